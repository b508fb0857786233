import { describe, expect, test } from "vitest";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { type CompileInputs, type CompileResult, compile, needsRestart } from "../compile.js";
import { renderDiagnostics } from "../diagnostics.js";
import { capabilities, SYSTEM, tableHost } from "../testing/host.js";
import { policy } from "../testing/policy.js";

const HOME = [
  "/srv/data/",
  "/root/project/",
  "/srv/home/.ssh/id",
  "/srv/home/notes",
  "/srv/home/state/config.json",
  "/srv/home/state/ws/.git/hooks/",
  "/srv/home/link -> notes",
  "/srv/home/linked -> state",
];
const host = tableHost([...SYSTEM, ...HOME]);

/** On a host with everything but AppArmor, unless the inputs say otherwise. */
function lower(sections: string, inputs: Partial<CompileInputs> = {}): CompileResult {
  return compile(policy(sections), {
    host,
    capabilities: capabilities({ without: ["apparmor"] }),
    ...inputs,
  });
}

/** Errors and warnings, "code rule" each. */
function findings(result: CompileResult): string[] {
  return result.diagnostics.map((d) => `${d.severity} ${d.code} ${d.rule}`);
}

interface Oci {
  mounts: { destination: string; type: string; source: string; options: string[] }[];
  linux: { maskedPaths: string[] };
}

function oci(result: CompileResult): Oci {
  if (result.artefacts === undefined) throw new Error(renderDiagnostics(result.diagnostics));
  return JSON.parse(result.artefacts.ociConfig.toString());
}

/** Binds below the home folder, in order: "path mode". */
function binds(result: CompileResult): string[] {
  return oci(result)
    .mounts.filter((m) => m.type === "bind" && m.destination.startsWith("/home/agent"))
    .map((m) => `${m.destination} ${m.options.includes("ro") ? "ro" : "rw"}`);
}

function rule(text: string): string {
  return `file:\n  - { id: r, ${text} }`;
}

describe("file rules go to the cheapest layer", () => {
  test("a denial to read is a mask, and the folders above it stay where they are", () => {
    const result = lower(rule("path: /home/agent/state/ws/.git, operations: read, action: deny"));
    expect(oci(result).linux.maskedPaths).toContain("/home/agent/state/ws/.git");
    expect(binds(result)).toEqual(["/home/agent rw", "/home/agent/state rw", "/home/agent/state/ws rw"]);
    expect(result.explain.find((r) => r.rule === "file/r")?.layer).toBe("mask");
  });

  test("a denial to write is a read-only bind over itself", () => {
    const result = lower(rule("path: /home/agent/state/config.json, operations: write, action: deny"));
    expect(binds(result)).toEqual([
      "/home/agent rw",
      "/home/agent/state rw",
      "/home/agent/state/config.json ro",
    ]);
    expect(oci(result).mounts.find((m) => m.destination.endsWith("config.json"))?.source).toBe(
      "/srv/home/state/config.json",
    );
  });

  test("a denial to delete one file makes it a mount point", () => {
    const result = lower(rule("path: /home/agent/notes, operations: [delete, rename], action: deny"));
    expect(binds(result)).toEqual(["/home/agent rw", "/home/agent/notes rw"]);
    expect(result.artefacts?.tables?.fileGuards).toEqual([]);
  });

  test("a hold on open is a guard on a mount of its own", () => {
    const result = lower(rule("path: /home/agent/state, operations: open, action: hold"));
    expect(binds(result)).toEqual(["/home/agent rw", "/home/agent/state rw"]);
    expect(result.artefacts?.tables?.fileGuards).toEqual([
      { path: "/home/agent/state", open: true, names: false },
    ]);
  });

  test("each mount inside a guarded folder is guarded too", () => {
    const result = lower(
      `file:
  - { id: ask, path: /home/agent/state, operations: open, action: hold }
  - { id: hooks, path: /home/agent/state/ws/.git/hooks, operations: write, action: deny }`,
    );
    expect(result.artefacts?.tables?.fileGuards.map((g) => g.path)).toEqual([
      "/home/agent/state",
      "/home/agent/state/ws",
      "/home/agent/state/ws/.git",
      "/home/agent/state/ws/.git/hooks",
    ]);
  });

  test("a guard inside a read-only folder does not make it writable again", () => {
    const result = lower(
      `file:
  - { id: ro, path: /home/agent/state, operations: write, action: deny }
  - { id: ask, path: /home/agent/state/config.json, operations: open, action: hold }`,
    );
    expect(binds(result)).toEqual([
      "/home/agent rw",
      "/home/agent/state ro",
      "/home/agent/state/config.json ro",
    ]);
  });

  test("name changes are asked about through seccomp, and only then are those calls notified", () => {
    const ask = rule("path: /home/agent/state, operations: [delete, rename], action: hold");
    const result = lower(ask);
    expect(result.artefacts?.tables?.fileGuards).toEqual([
      { path: "/home/agent/state", open: false, names: true },
    ]);
    const notified = (r: CompileResult) =>
      JSON.parse(r.artefacts?.seccomp.toString() ?? "{}").syscalls[0].names;
    expect(notified(result)).toContain("unlinkat");
    expect(notified(lower(""))).toEqual(["execve", "execveat"]);
  });

  test("in a read-only mount there is nothing to ask about", () => {
    const result = lower(rule("path: /data, operations: [delete, rename], action: hold"));
    expect(result.artefacts?.tables?.fileGuards).toEqual([]);
    expect(result.explain.find((r) => r.rule === "file/r")?.layer).toBe("read-only mount");
  });

  test("what is in no mount does not exist", () => {
    const result = lower(rule("path: /root, operations: read, action: deny"));
    expect(result.explain.find((r) => r.rule === "file/r")?.layer).toBe("mounts");
    expect(findings(result)).toEqual([]);
  });
});

describe("a rule that no layer can enforce is an error", () => {
  test.each([
    ["a path that does not exist", "path: /home/agent/none, operations: read, action: deny", "mounts"],
    ["a path behind a link", "path: /home/agent/link, operations: write, action: deny", "mounts"],
    [
      "a path through a link",
      "path: /home/agent/linked/config.json, operations: write, action: deny",
      "mounts",
    ],
    ["a path on a tmpfs", "path: /tmp/x, operations: read, action: deny", "mounts"],
    ["a path over several mounts", "path: /, operations: open, action: hold", "mounts"],
    ["a pattern anywhere", "path: '**/.env', operations: open, action: deny", "mounts"],
    ["a pattern made read-only", "path: /home/agent/**/.env, operations: write, action: deny", "apparmor"],
    ["a hold on reading alone", "path: /home/agent/notes, operations: read, action: hold", "fanotify"],
    [
      "a subject that Landlock cannot narrow",
      "path: /home/agent/notes, operations: read, action: deny, subject: main",
      "landlock",
    ],
  ])("%s", (_, text, layer) => {
    const result = lower(rule(text));
    expect(result.artefacts).toBeUndefined();
    const [error] = result.diagnostics.filter((d) => d.severity === "error");
    expect(error).toMatchObject({ rule: "file/r", layer });
    expect(error?.remedy).not.toBe("");
  });

  test("`optional` waives a missing path, and only that", () => {
    const missing = "path: /home/agent/none, operations: read, action: deny, optional: true";
    expect(findings(lower(rule(missing)))).toEqual([]);
    expect(lower(rule(missing)).explain.find((r) => r.rule === "file/r")?.layer).toBe("none");
    const link = "path: /home/agent/link, operations: read, action: deny, optional: true";
    expect(findings(lower(rule(link)))).toEqual(["error cannot-enforce file/r"]);
  });

  test("an exception inside what is to be masked", () => {
    const result = lower(`file:
  - { id: id, path: /home/agent/.ssh/id, operations: read, action: allow }
  - { id: ssh, path: /home/agent/.ssh, operations: read, action: deny }`);
    expect(findings(result)).toEqual(["error cannot-enforce file/ssh"]);
  });

  test.each([
    ["fanotify.perm", rule("path: /home/agent/notes, operations: open, action: hold"), "file/r"],
    ["ptrace.hold", "exec:\n  - { id: r, executable: /a, action: hold }", "exec/r"],
    ["netns.sk_lookup", "network:\n  - { id: r, host: x.com, action: allow }", "network/r"],
    ["tmpfs.noswap", "secrets: { items: [] }", "secrets"],
    ["landlock", "", "sandbox"],
    ["nftables", "", "sandbox"],
    ["cgroup.memory", "", "sandbox.limits"],
    ["cgroup.pids", "", "sandbox.limits"],
    ["cgroup.cpu", "", "sandbox.limits"],
    ["runc", "", "sandbox"],
    ["seccomp.notify", "", "sandbox"],
    ["bpf.exec_verify", "", "sandbox"],
  ])("a host without %s", (missing, sections, name) => {
    expect(findings(lower(sections))).toEqual([]);
    const result = lower(sections, { capabilities: capabilities({ without: [missing] }) });
    expect(result.artefacts).toBeUndefined();
    const error = result.diagnostics.find((d) => d.rule === name && d.layer === missing);
    expect(error?.remedy).toBe(`Install ${missing}.`);
  });

  test("a loader that cannot ask about names, unless a mount point decides it", () => {
    const without = { capabilities: capabilities({ without: ["file.names"] }) };
    expect(
      findings(lower(rule("path: /home/agent/state, operations: delete, action: hold"), without)),
    ).toEqual(["error cannot-enforce file/r"]);
    expect(
      findings(lower(rule("path: /home/agent/notes, operations: delete, action: deny"), without)),
    ).toEqual([]);
  });

  test("nothing is present when nothing is said", () => {
    expect(lower("", { capabilities: [] }).artefacts).toBeUndefined();
  });
});

describe("mounts", () => {
  const mounted = (mount: string) =>
    lower(`sandbox: { command: [/x], workspace: /usr, home: /usr, mounts: [{ source: /usr }, ${mount}] }`);
  test.each([
    ["{ source: /nowhere }", "missing-source"],
    ["{ source: /srv/data, target: /usr }", "duplicate-target"],
    ["{ source: /srv/data, target: /etc }", "reserved-target"],
    ["{ source: /srv/data, target: / }", "reserved-target"],
    ["{ source: /srv/data, target: /proc/x }", "reserved-target"],
    ["{ source: /srv/data, target: /.clawsec/x }", "reserved-target"],
    ["{ source: /srv/home/notes, target: /etc/passwd }", "reserved-target"],
    ["{ source: / , target: /host }", "protected-source"],
    ["{ source: /run, target: /host }", "protected-source"],
    ["{ source: /run/clawsec, target: /host }", "protected-source"],
    ["{ source: /var, target: /host }", "protected-source"],
    ["{ source: /etc/ssl, mode: rw }", "system-source"],
    ["{ source: /usr, target: /opt/usr, mode: rw }", "system-source"],
    ["{ source: /root, target: /work, mode: rw }", "system-source"],
    ["{ source: /srv/data, target: /usr/none }", "mount-point"],
    ["{ source: /srv/home/notes, target: /usr/lib }", "mount-point"],
  ])("%s is refused", (mount, code) => {
    const result = mounted(mount);
    expect(result.diagnostics.map((d) => d.code)).toContain(code);
    expect(result.diagnostics.find((d) => d.code === code)?.origin.line).toBe(4);
    expect(result.artefacts).toBeUndefined();
  });

  test.each([
    "{ source: /nowhere, optional: true }",
    "{ source: /srv/data, target: /usr/lib }",
    "{ source: /srv/home/link, target: /data }",
    "{ source: /srv/data, mode: rw }",
    "{ source: /root/project, mode: rw }",
    "{ type: tmpfs, target: /cache }",
  ])("%s is taken", (mount) => {
    expect(findings(mounted(mount))).toEqual([]);
  });

  test("further protected paths come from the caller", () => {
    const sections = "";
    expect(findings(lower(sections, { protectedPaths: ["/srv/home/state"] }))).toEqual([
      "error protected-source mount /home/agent",
    ]);
  });

  test("what is inside comes after what it is in, and no bind brings mounts of the host along", () => {
    const mounts = oci(
      lower(rule("path: /home/agent/state/config.json, operations: write, action: deny")),
    ).mounts;
    for (const [i, mount] of mounts.entries()) {
      for (const later of mounts.slice(i + 1))
        expect(mount.destination.startsWith(`${later.destination}/`)).toBe(false);
      if (mount.type === "bind")
        expect(mount.options).toEqual(expect.arrayContaining(["bind", "nosuid", "nodev"]));
      expect(mount.options).not.toContain("rbind");
    }
  });
});

describe("subjects", () => {
  const tool = (more: string) => `subjects:
  - name: main
  - name: tool
    entry: { path: /.clawsec/bash, exec: /bin/bash }
    enters: [{ from: main, executable: /.clawsec/bash }]
${more}`;

  test("an entry's Landlock grants its trees and what clawsec makes, nothing else", () => {
    const result = lower(tool("    files: { read: [/usr], write: [/tmp], exec: [/usr, /bin] }\n"));
    const paths = result.artefacts?.subjects[1]?.entryLandlock?.paths.map((p) => p.path);
    expect(paths).toEqual(["/.clawsec", "/bin", "/dev", "/dev/shm", "/etc", "/proc", "/tmp", "/usr"]);
  });

  test("a denial for a subject holds when its trees leave the path out, and is refused when they do not", () => {
    const denial =
      "file:\n  - { id: r, path: /home/agent/notes, operations: [read, write], action: deny, subject: tool }";
    const narrow = lower(
      tool(`    files: { read: [/usr], write: [/home/agent/state], exec: [/usr] }\n${denial}`),
    );
    expect(findings(narrow)).toEqual([]);
    expect(narrow.explain.filter((r) => r.rule === "file/r").map((r) => r.layer)).toEqual([
      "landlock",
      "landlock",
    ]);
    const wide = lower(tool(`    files: { read: [/usr], write: [/home/agent], exec: [/usr] }\n${denial}`));
    expect(findings(wide)).toEqual(["error cannot-enforce file/r", "error cannot-enforce file/r"]);
  });

  test("a way round the entry is refused", () => {
    const text = tool("").replace(
      "executable: /.clawsec/bash",
      "executable: [/.clawsec/bash, /usr/bin/bash]",
    );
    expect(findings(lower(text))).toEqual(["error way-round-entry subject tool"]);
  });

  test("an entry into nothing is refused", () => {
    expect(findings(lower(tool("").replace("/bin/bash }", "/bin/zsh }")))).toEqual([
      "error missing-path subject tool",
    ]);
    expect(findings(lower(tool("    files: { read: [/opt] }\n")))).toEqual([
      "error missing-path subject tool",
    ]);
    expect(findings(lower(tool("    files: { read: [{ path: /opt, optional: true }] }\n")))).toEqual([]);
  });
});

describe("Landlock", () => {
  const landlock = (abi: number) =>
    lower("", { capabilities: capabilities({ landlock: abi }) }).artefacts?.landlock;
  const bit = (n: number) => 2 ** n;

  test("everything that the kernel knows is handled, as far as its ABI goes", () => {
    expect(landlock(7)).toMatchObject({ abi: 6, handledAccessFs: bit(16) - 1, scoped: 3 });
    expect(landlock(5)).toMatchObject({ abi: 5, handledAccessFs: bit(16) - 1, scoped: 0 });
    expect(landlock(3)).toMatchObject({ abi: 3, handledAccessFs: bit(15) - 1, scoped: 0 });
    expect(landlock(2)).toMatchObject({ abi: 2, handledAccessFs: bit(14) - 1, scoped: 0 });
    expect(landlock(1)).toMatchObject({ abi: 1, handledAccessFs: bit(13) - 1, scoped: 0 });
  });

  test("writing is granted in writable mounts only, and nowhere in /proc", () => {
    const paths = landlock(7)?.paths ?? [];
    const writable = paths.filter((p) => p.allowedAccess & bit(1)).map((p) => p.path);
    expect(writable).toEqual(["/dev", "/dev/shm", "/home/agent", "/run", "/tmp", "/var/tmp"]);
    expect(paths.find((p) => p.path === "/usr")?.allowedAccess).toBe(bit(0) + bit(2) + bit(3));
  });
});

describe("network", () => {
  test("rows keep the order of the policy, and a hold is asked about", () => {
    const table = lower(`resolver: { hosts: { m.test: 10.0.0.1 } }
network:
  - { id: a, host: [A.com, "*.b.com"], ports: [443, "1-2"], action: hold }
  - { id: b, cidr: 192.0.2.0/24, action: deny, message: no }
  - { id: c, host: m.test, action: log, resolvesTo: 10.0.0.0/8 }
defaults: { network: log }`).artefacts?.tables?.network;
    const common = {
      subjects: [],
      message: "",
      resolvesTo: [],
      observe: false,
      protocols: [],
      httpMethods: [],
      httpPath: "",
    };
    const ports = [
      { first: 443, last: 443 },
      { first: 1, last: 2 },
    ];
    expect(table).toEqual({
      rows: [
        { ...common, rule: "network/a", host: "a.com", cidr: "", ports, verdict: Verdict.ASK },
        { ...common, rule: "network/a", host: "*.b.com", cidr: "", ports, verdict: Verdict.ASK },
        {
          ...common,
          rule: "network/b",
          host: "",
          cidr: "192.0.2.0/24",
          ports: [],
          verdict: Verdict.DENY,
          message: "no",
        },
        {
          ...common,
          rule: "network/c",
          host: "m.test",
          cidr: "",
          ports: [],
          verdict: Verdict.LOG,
          resolvesTo: ["10.0.0.0/8"],
        },
      ],
      defaultVerdict: Verdict.LOG,
      defaultRule: "network/default",
      hosts: { "m.test": "10.0.0.1" },
    });
  });

  test.each([
    ["network:\n  - { id: r, cidr: 127.0.0.0/8, action: allow }", "error loopback network/r"],
    ["network:\n  - { id: r, cidr: '2001:db8::/32', action: allow }", "error ipv6 network/r"],
    ["network:\n  - { id: r, cidr: 169.254.169.254, action: allow }", "warning link-local network/r"],
    [
      "resolver: { hosts: { m.test: 127.0.0.1 } }\nnetwork:\n  - { id: r, host: m.test, action: allow }",
      "warning resolves-to network/r",
    ],
  ])("%s", (sections, finding) => {
    expect(findings(lower(sections))).toEqual([finding]);
  });
});

test("private addresses open at times, and other rules permit the same peers without them", () => {
  const often = "{ id: r, host: a.com, resolvesTo: 10.0.0.0/8, when: { days: mon }, action: allow }";
  const sections = `network:\n  - ${often}\n  - { id: s, host: "*.com", action: allow }\ndefaults: { network: hold }`;
  const result = lower(sections);
  expect(findings(result)).toEqual([]);
  // The gate takes the ranges from the rows of the rule that the answer names.
  expect(
    result.artefacts?.tables?.network?.rows.map(({ rule, verdict, resolvesTo }) => [
      rule,
      verdict,
      resolvesTo,
    ]),
  ).toEqual([
    ["network/r", Verdict.ASK, ["10.0.0.0/8"]],
    ["network/s", Verdict.ALLOW, []],
  ]);
  const range = "network:\n  - { id: r, cidr: 10.1.0.0/16, when: { days: mon }, action: allow }";
  expect(findings(lower(`${range}\ndefaults: { network: hold }`))).toEqual([]);
});

describe("a new policy for a running sandbox", () => {
  const artefacts = (sections: string) => {
    const result = lower(sections);
    if (result.artefacts === undefined) throw new Error(renderDiagnostics(result.diagnostics));
    return result.artefacts;
  };

  test("needs no new sandbox for rules that are decided at run time", () => {
    const after = artefacts(
      "exec:\n  - { id: a, executable: /a, action: hold }\nnetwork:\n  - { id: a, host: x.com, action: allow }",
    );
    expect(needsRestart(artefacts(""), after)).toEqual([]);
  });

  test("needs one for what is set up when it starts, and says what of it", () => {
    const after = artefacts(rule("path: /home/agent/notes, operations: open, action: hold"));
    expect(needsRestart(artefacts(""), after)).toEqual([
      "The new policy changes the mounts (adds /home/agent/notes rw), which needs a new sandbox.",
      "The new policy changes the files that are asked about (adds /home/agent/notes), which needs a new sandbox.",
    ]);
    expect(needsRestart(after, artefacts(""))[0]).toContain("(removes /home/agent/notes rw)");
  });

  test.each([
    [rule("path: /home/agent/notes, operations: read, action: deny"), "masks (adds /home/agent/notes)"],
    ["subjects: [{ name: main, loopback: { ports: [80] } }]", "loopback ports (changes main)"],
    ["waive: [{ name: nftables, reason: r }]", "nftables ruleset (removes table inet clawsec)", ["nftables"]],
    [
      rule("path: '**/.env', operations: write, action: deny"),
      'AppArmor profile (adds clawsec-test, audit deny "/{,**/}.env{,/}" wl)',
      [],
    ],
  ] as [string, string, string[]?][])("%s: %s", (sections, change, without = ["apparmor"]) => {
    const after = lower(sections, { capabilities: capabilities({ without }) }).artefacts;
    if (after === undefined) throw new Error("no artefacts");
    expect(needsRestart(artefacts(""), after)).toContain(
      `The new policy changes the ${change}, which needs a new sandbox.`,
    );
  });

  test("needs none for exec rules of whatever kind, and for the facts that they need", () => {
    const after = artefacts(
      `exec:\n  - { id: a, sha256: "${"a".repeat(64)}", action: deny }\n  - { id: b, executable: /b, action: allow }`,
    );
    expect(after.tables?.facts).toEqual({ sha256: true });
    expect(needsRestart(artefacts(""), after)).toEqual([]);
  });
});

test("a command is needed from somewhere", () => {
  const text = "sandbox: { home: /usr, mounts: [{ source: /usr }] }";
  expect(findings(lower(text))).toEqual(["error no-command sandbox"]);
  expect(lower(text, { command: ["/bin/true", "x"] }).artefacts?.args).toEqual(["/bin/true", "x"]);
});
