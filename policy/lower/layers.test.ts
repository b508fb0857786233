// Which layer a rule goes to, beyond the first ones: AppArmor, noexec mounts, questions that only some layers can ask,
// waivers, hashes; and what is said about it.

import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { artefactFiles, type CompileInputs, type CompileResult, compile } from "../compile.js";
import { renderDiagnostics } from "../diagnostics.js";
import { renderExplain } from "../explain.js";
import { capabilities, SYSTEM, tableHost } from "../testing/host.js";
import { policy } from "../testing/policy.js";

const host = tableHost([
  ...SYSTEM,
  "/srv/data/",
  "/srv/home/notes",
  "/srv/home/state/config.json",
  "/srv/home/state/ws/.git/hooks/",
  "/srv/home/linked -> state",
]);

function lower(sections: string, inputs: Partial<CompileInputs> = {}): CompileResult {
  return compile(policy(sections), { host, capabilities: capabilities(), ...inputs });
}

const without = (...names: string[]) => ({ capabilities: capabilities({ without: names }) });
const rule = (text: string) => `file:\n  - { id: r, ${text} }`;
const findings = (result: CompileResult) =>
  result.diagnostics.map((d) => `${d.severity} ${d.code} ${d.rule}`);
const layers = (result: CompileResult, id = "file/r") =>
  result.explain.filter((row) => row.rule === id).map((row) => row.layer);

/** Lines of the AppArmor profile that deny. */
function denials(result: CompileResult): string[] {
  if (result.artefacts === undefined) throw new Error(renderDiagnostics(result.diagnostics));
  return (result.artefacts.apparmor?.text ?? "")
    .split("\n")
    .filter((line) => line.includes(" deny "))
    .map((line) => line.trim());
}

function oci(result: CompileResult): {
  process: { apparmorProfile?: string };
  mounts: { destination: string; options: string[] }[];
} {
  if (result.artefacts === undefined) throw new Error(renderDiagnostics(result.diagnostics));
  return JSON.parse(result.artefacts.ociConfig.toString());
}

describe("a pattern denied to everybody", () => {
  test.each([
    ["path: '**/.env', operations: read", ['audit deny "/{,**/}.env{,/}" rmlx,']],
    ["path: '**/.env', operations: write", ['audit deny "/{,**/}.env{,/}" wl,']],
    ["path: '**/.env', operations: [read, write]", ['audit deny "/{,**/}.env{,/}" rwmlx,']],
    ["path: '**/.env', operations: [open, write]", ['audit deny "/{,**/}.env{,/}" rwmlx,']],
    [
      "path: '**/*.pem', operations: [create, delete, rename, link, truncate, chmod]",
      ['audit deny "/{,**/}*.pem{,/}" wl,'],
    ],
    ["path: '/data/**/*.sh', operations: exec", ['audit deny "/data/{,**/}*.sh{,/}" mx,']],
  ])("%s goes to AppArmor", (text, expected) => {
    const result = lower(rule(`${text}, action: deny`));
    expect(denials(result)).toEqual(expected);
    expect(layers(result)).toEqual(["apparmor"]);
    expect(oci(result).process.apparmorProfile).toBe("clawsec-test");
    expect(findings(result).filter((f) => !f.includes("pattern-names"))).toEqual([]);
  });

  test("makes the profile carry the sandbox's name, and no profile where nothing needs one", () => {
    const named = lower(rule("path: '**/.env', operations: read, action: deny"), { name: "box-7" });
    expect(named.artefacts?.apparmor?.name).toBe("clawsec-box-7");
    expect(named.artefacts?.apparmor?.text).toContain('profile "clawsec-box-7"');
    expect(oci(named).process.apparmorProfile).toBe("clawsec-box-7");
    const plain = lower(rule("path: /home/agent/notes, operations: read, action: deny"));
    expect(plain.artefacts?.apparmor).toBeUndefined();
    expect(oci(plain).process.apparmorProfile).toBeUndefined();
  });

  test("keeps its folder from being renamed away", () => {
    const result = lower(rule("path: '/home/agent/state/**/.env', operations: read, action: deny"));
    expect(oci(result).mounts.map((m) => m.destination)).toContain("/home/agent/state");
    expect(findings(result)).toEqual([]);
    // Folders that the pattern itself names are kept by the profile, which is said, since it has a price.
    const named = lower(rule("path: '/home/agent/*/ws/.env', operations: read, action: deny"));
    expect(findings(named)).toEqual(["warning pattern-names file/r"]);
    expect(denials(named)).toEqual([
      'audit deny "/home/agent/?*/" w,',
      'audit deny "/home/agent/?*/ws/" w,',
      'audit deny "/home/agent/?*/ws/.env{,/}" rmlx,',
    ]);
    // Nothing can be renamed in what is read-only.
    const fixed = lower(rule("path: '/data/*/ws/.env', operations: read, action: deny"));
    expect([findings(fixed), denials(fixed)]).toEqual([[], ['audit deny "/data/?*/ws/.env{,/}" rmlx,']]);
    // Who may rename or copy a program can run it under another name.
    const programs = lower(rule("path: '/home/agent/*/run', operations: exec, action: deny"));
    expect([findings(programs), denials(programs)]).toEqual([
      ["warning pattern-names file/r"],
      ['audit deny "/home/agent/?*/run{,/}" mx,'],
    ]);
  });

  test("that is one of too many is asked about where it can be, and fits where it has a folder of its own", () => {
    const seven = (pattern: (n: number) => string) =>
      lower(
        rule(
          `path: [${Array.from({ length: 7 }, (_, n) => `"${pattern(n)}"`).join(", ")}], operations: read, action: deny`,
        ),
      );
    expect(layers(seven((n) => `/data/**/d${n}/**/f${n}`))).toEqual([
      ...Array.from({ length: 6 }, () => "apparmor"),
      "fanotify",
    ]);
    expect(layers(seven((n) => `/data/${n}/**/d${n}/**/f${n}`))).toEqual(
      Array.from({ length: 7 }, () => "apparmor"),
    );
  });

  test.each([
    ["a part of what AppArmor's w is", "path: '**/.env', operations: [delete, truncate]", "mounts"],
    ["creating alone", "path: '/home/agent/**/.env', operations: create", "seccomp.notify"],
    [
      "one of too many that AppArmor's parser takes long for",
      "path: ['**/a/**/1', '**/b/**/2', '**/c/**/3', '**/d/**/4', '**/e/**/5', '**/f/**/6', '**/g/**/7'], operations: write",
      "apparmor",
    ],
    ["a folder that is not there", "path: '/home/agent/none/**/x', operations: write", "mounts"],
    ["a folder behind a link", "path: '/home/agent/linked/**/x', operations: write", "mounts"],
    ["a folder on a tmpfs", "path: '/tmp/a/**/x', operations: write", "mounts"],
  ])("%s is refused", (_, text, layer) => {
    const result = lower(rule(`${text}, action: deny`), without("file.names"));
    expect(result.artefacts).toBeUndefined();
    const errors = result.diagnostics.filter(({ severity }) => severity === "error");
    expect(errors).toEqual([expect.objectContaining({ code: "cannot-enforce", rule: "file/r", layer })]);
    expect(errors[0]?.remedy).not.toBe("");
  });

  test("with an exception before it is refused: AppArmor's denials know none", () => {
    const text = (first: string) => `file:
  - { id: first, path: /home/agent/state/config.json, operations: read, action: ${first} }
  - { id: r, path: "**/*.json", operations: read, action: deny }`;
    expect(findings(lower(text("allow")))).toEqual(["error cannot-enforce file/r"]);
    expect(findings(lower(text("deny")))).toEqual([]);
  });

  test("is asked about at each open where the host has no AppArmor, or refused where nobody could be asked", () => {
    const no = without("apparmor");
    const read = lower(rule("path: '/data/**/.env', operations: read, action: deny"), no);
    expect([layers(read), findings(read)]).toEqual([["fanotify"], []]);
    const write = lower(rule("path: '/data/**/.env', operations: write, action: deny"), no);
    expect(write.diagnostics).toEqual([
      expect.objectContaining({ code: "missing-layer", layer: "apparmor", rule: "file/r" }),
    ]);
    const anywhere = lower(rule("path: '**/.env', operations: read, action: deny"), no);
    expect(anywhere.diagnostics).toEqual([
      expect.objectContaining({ code: "missing-layer", layer: "apparmor" }),
    ]);
  });
});

describe("the newer operations", () => {
  const options = (result: CompileResult, path: string) =>
    oci(result).mounts.find((m) => m.destination === path)?.options;

  test("exec of a tree is a noexec mount, also for what is mounted below it", () => {
    const result = lower(`file:
  - { id: r, path: /home/agent/state, operations: exec, action: deny }
  - { id: inner, path: /home/agent/state/config.json, operations: write, action: deny }`);
    expect(layers(result)).toEqual(["noexec mount"]);
    expect(options(result, "/home/agent/state")).toEqual(expect.arrayContaining(["rw", "noexec"]));
    expect(options(result, "/home/agent/state/config.json")).toEqual(
      expect.arrayContaining(["ro", "noexec"]),
    );
    expect(options(result, "/home/agent")).not.toContain("noexec");
  });

  test("exec where nothing can be executed anyway needs nothing", () => {
    const result = lower(rule("path: /tmp/downloads, operations: exec, action: deny"));
    expect([layers(result), findings(result)]).toEqual([["mounts"], []]);
  });

  test.each([
    ["[create, write]", "/home/agent/state", "read-only mount", []],
    ["[write, chmod, exec]", "/home/agent/state", "noexec mount", []],
    ["[create, chmod]", "/data", "read-only mount", []],
    ["[create]", "/home/agent/state", undefined, ["error cannot-enforce file/r"]],
    ["[chmod]", "/home/agent/state", undefined, ["error cannot-enforce file/r"]],
  ])("deny %s of %s", (operations, path, layer, expected) => {
    const result = lower(rule(`path: ${path}, operations: ${operations}, action: deny`));
    expect(findings(result)).toEqual(expected);
    expect(layers(result)[0]).toBe(layer);
  });

  test.each(["exec", "create", "chmod", "write"])("%s cannot be held", (operation) => {
    expect(findings(lower(rule(`path: /home/agent/notes, operations: ${operation}, action: hold`)))).toEqual([
      "error cannot-enforce file/r",
    ]);
  });
});

describe("what only a question decides", () => {
  test.each([
    ["when: { from: '09:00', to: '18:00' }, operations: read, action: deny", ["fanotify"]],
    ["when: { from: '09:00', to: '18:00' }, operations: open, action: hold", ["fanotify"]],
    ["rate: { max: 3, per: 1m }, operations: open, action: log", ["fanotify"]],
    ["owner: root, operations: [open, read], action: deny", ["fanotify"]],
    ["mode: observe, operations: [read, open], action: deny", ["fanotify"]],
    ["mode: observe, operations: open, action: hold", ["fanotify"]],
    ["mode: observe, operations: write, action: allow", ["supervisor"]],
    ["when: { from: '09:00', to: '18:00' }, operations: delete, action: deny", ["seccomp notify"]],
    ["locked: true, operations: read, action: deny", ["mask"]],
  ])("%s", (text, expected) => {
    const result = lower(rule(`path: /home/agent/notes, ${text}`));
    expect([findings(result), layers(result)]).toEqual([[], expected]);
    if (expected[0] === "fanotify")
      expect(result.artefacts?.tables?.fileGuards).toEqual([
        { path: "/home/agent/notes", open: true, names: false },
      ]);
  });

  test.each([
    ["when: { from: '09:00', to: '18:00' }, operations: write, action: deny", "time"],
    ["owner: root, operations: write, action: deny", "who owns"],
    ["owner: root, operations: delete, action: hold", "who owns"],
    ["mode: observe, operations: write, action: deny", "cannot be observed"],
    ["mode: observe, operations: [delete, rename], action: hold", "cannot be observed"],
    ["mode: observe, operations: create, action: deny", "cannot be observed"],
  ])("%s is refused", (text, why) => {
    const result = lower(rule(`path: /home/agent/notes, ${text}`));
    expect(result.artefacts).toBeUndefined();
    for (const d of result.diagnostics) expect(d).toMatchObject({ code: "cannot-enforce", rule: "file/r" });
    expect(result.diagnostics[0]?.message).toContain(why);
    expect(result.diagnostics[0]?.remedy).not.toBe("");
  });

  test("a policy that observes leaves its floors where they are, and asks about the rest", () => {
    const result = lower(`mode: observe
file:
  - { id: floor, path: /home/agent/notes, operations: read, action: deny, locked: true }
  - { id: r, path: /home/agent/state, operations: read, action: deny }`);
    expect([layers(result, "file/floor"), layers(result)]).toEqual([["mask"], ["fanotify"]]);
  });

  test("a floor is no exception to a denial, a permission is", () => {
    const text = (first: string) => `file:
  - { id: first, path: /home/agent/state/config.json, operations: open, ${first} }
  - { id: r, path: /home/agent/state, operations: read, action: deny }`;
    expect(findings(lower(text("action: hold, locked: true")))).toEqual([]);
    expect(findings(lower(text("action: hold")))).toEqual(["error cannot-enforce file/r"]);
  });
});

describe("a waiver", () => {
  const waive = (name: string) => `waive: [{ name: ${name}, reason: not on this host }]\n`;
  const pattern = rule("path: /home/agent/none, operations: read, action: deny");

  test("of a rule that cannot be enforced leaves it out, says so, and nothing of it behind", () => {
    const text = `${waive("file/r")}file:
  - { id: r, path: [/home/agent/notes, /home/agent/none], operations: read, action: deny }
  - { id: other, path: /home/agent/state, operations: read, action: deny }`;
    const result = lower(text);
    expect(findings(result)).toEqual(["warning waived file/r"]);
    expect(result.diagnostics[0]?.message).toContain("not on this host");
    expect(result.explain.find((row) => row.rule === "file/r")).toMatchObject({
      action: "deny",
      layer: "waived",
      why: "not on this host",
    });
    const { maskedPaths } = (
      JSON.parse(result.artefacts?.ociConfig.toString() ?? "{}") as { linux: { maskedPaths: string[] } }
    ).linux;
    expect(maskedPaths).not.toContain("/home/agent/notes");
    expect(maskedPaths).toContain("/home/agent/state");
    expect(findings(lower(text.replace("file/r", "file/other")))).toEqual([
      "warning waiver-unused file/other",
      "error cannot-enforce file/r",
    ]);
  });

  test("of what this host can enforce changes nothing but a warning", () => {
    const deny = rule("path: /home/agent/notes, operations: read, action: deny");
    const waived = lower(waive("file/r") + deny);
    expect(findings(waived)).toEqual(["warning waiver-unused file/r"]);
    expect(layers(waived)).toEqual(["mask"]);
    expect(waived.artefacts?.ociConfig).toEqual(lower(deny).artefacts?.ociConfig);
  });

  test.each([
    ["nftables", "", "nftables"],
    ["landlock", "", "landlock"],
    ["cgroup.memory", "", "cgroup.memory"],
    ["cgroup.pids", "", "cgroup.pids"],
    ["cgroup.cpu", "", "cgroup.cpu"],
    ["tmpfs.noswap", "secrets: { items: [] }", "tmpfs.noswap"],
    ["fanotify.perm", rule("path: /home/agent/notes, operations: open, action: hold"), "file/r"],
    ["apparmor", rule("path: '**/.env', operations: write, action: deny"), "file/r"],
  ])("of the mechanism %s", (name, sections, row) => {
    const missing = without(name);
    expect(lower(sections, missing).artefacts).toBeUndefined();
    const result = lower(waive(name) + sections, missing);
    expect(findings(result).map((f) => f.split(" ").slice(0, 2).join(" "))).toEqual(["warning waived"]);
    expect(layers(result, row)).toEqual(["waived"]);
    expect(findings(lower(waive(name) + sections))).toEqual([`warning waiver-unused ${name}`]);
  });

  test("leaves the layer itself out, and only that one", () => {
    const result = lower(waive("nftables"), without("nftables"));
    expect([result.artefacts?.nftables.length, result.artefacts?.landlock?.abi]).toEqual([0, 6]);
    const other = lower(waive("landlock"), without("landlock"));
    expect(other.artefacts?.landlock).toBeUndefined();
    expect(other.artefacts?.nftables.length).toBeGreaterThan(0);
  });

  test("of a mechanism does not waive what a rule of another kind needs", () => {
    expect(findings(lower(waive("apparmor") + pattern, without("apparmor")))).toEqual([
      "warning waiver-unused apparmor",
      "error cannot-enforce file/r",
    ]);
  });

  /** The reader refuses names that it knows are none; the compiler must not trust that it did. */
  const lowerWaiving = (name: string, inputs: Partial<CompileInputs> = {}) => {
    const p = policy("");
    const origin = p.sandbox.origin;
    return compile(
      { ...p, waive: [{ name, reason: "r", origin }] },
      { host, capabilities: capabilities(), ...inputs },
    );
  };

  test.each(["runc", "seccomp.notify", "bpf.exec_verify", "netns.sk_lookup"])("of %s is refused", (name) => {
    expect(findings(lowerWaiving(name))).toEqual([`error waiver-refused ${name}`]);
    expect(findings(lowerWaiving(name, without(name))).sort()).toEqual([
      "error missing-layer sandbox",
      `error waiver-refused ${name}`,
    ]);
  });

  test.each(["file/none", "nftable", "sandbox", "ptrace.hold"])(
    "of %s, which nothing waivable is called, is an error",
    (name) => {
      expect(findings(lowerWaiving(name))).toEqual([`error waiver-unknown ${name}`]);
    },
  );
});

describe("a hash", () => {
  const hash = `sha256: ${"a".repeat(64)}`;
  test.each([
    [`${hash}, executable: /usr/bin/x, action: allow`, []],
    [`${hash}, executable: ["/usr/bin/*", "/data/**"], action: log`, []],
    [`${hash}, executable: /data/run, script: "/usr/**", action: allow`, []],
    [`${hash}, action: allow`, ["error sha256-writable exec/r"]],
    [`${hash}, executable: /home/agent/x, action: allow`, ["error sha256-writable exec/r"]],
    [`${hash}, executable: "/**", action: allow`, ["error sha256-writable exec/r"]],
    [`${hash}, executable: /opt/x, action: allow`, ["error sha256-writable exec/r"]],
    [`${hash}, executable: [/usr/bin/x, /tmp/x], action: allow`, ["error sha256-writable exec/r"]],
    [`${hash}, action: deny`, ["warning sha256-writable exec/r"]],
    [`${hash}, executable: /usr/bin/x, action: hold`, []],
  ])("%s", (text, expected) => {
    const result = lower(`exec:\n  - { id: r, ${text} }`);
    expect(findings(result)).toEqual(expected);
    if (result.artefacts !== undefined) expect(result.artefacts.tables?.facts).toEqual({ sha256: true });
  });

  test("of what a writable mount shows too is not to be trusted", () => {
    const mounts = (mode: string) => `sandbox:
  command: [/x]
  workspace: /usr
  home: /usr
  mounts: [{ source: /usr }, { source: /srv/data, target: /data }, { source: /srv/data, target: /again, mode: ${mode} }]
exec:
  - { id: r, ${hash}, executable: /data/x, action: allow }`;
    expect(findings(lower(mounts("ro")))).toEqual([]);
    expect(findings(lower(mounts("rw")))).toEqual(["error sha256-writable exec/r"]);
  });

  test("is not taken where no rule looks at one", () => {
    expect(lower("exec:\n  - { id: r, executable: /x, action: deny }").artefacts?.tables?.facts).toEqual({
      sha256: false,
    });
  });
});

describe("what is said about a policy", () => {
  test("an exec rule names BPF-LSM where the host has it, and is enforced all the same where it has not", () => {
    const rules = `exec:
  - { id: a, executable: /a, action: allow }
  - { id: b, executable: /a, argv: ["*"], action: deny }`;
    const why = (inputs: Partial<CompileInputs>) => {
      const result = lower(rules, inputs);
      expect(findings(result)).toEqual([]);
      return result.explain.filter((row) => row.rule.startsWith("exec/")).map((row) => row.why);
    };
    for (const words of why({})) expect(words).toContain("BPF-LSM refuses the call");
    for (const words of why(without("bpf.lsm"))) {
      expect(words).toContain("BPF checks that what runs is what was approved");
      expect(words).not.toContain("LSM");
    }
  });

  test("names for every rule why no cheaper layer has it, unless it has the cheapest", () => {
    const { explain } = lower(`exec:
  - { id: a, executable: /a, action: allow }
  - { id: b, executable: /a, argv: ["*"], action: hold }
file:
  - { id: r, path: /home/agent/notes, operations: read, action: deny }
  - { id: s, path: /home/agent/state, operations: open, action: hold }
network:
  - { id: n, host: x.com, action: allow }`);
    const rules = explain.filter((row) => /^(exec|file|network)\//.test(row.rule));
    expect(rules.map((row) => [row.rule, row.notCheaper !== ""])).toEqual([
      ["exec/a", true],
      ["exec/b", true],
      ["file/r", false],
      ["file/s", true],
      ["network/n", true],
    ]);
    const text = renderExplain(rules);
    expect(text).toContain("\n    not cheaper: only a person answers a hold\n");
    expect(text).not.toMatch(/ $/m);
    expect(text.split("\n")).toHaveLength(1 + 5 + 4);
  });

  test("stands in files whose sums are in the manifest", () => {
    const { artefacts } = lower(rule("path: '**/.env', operations: read, action: deny"));
    if (artefacts === undefined) throw new Error("no artefacts");
    const files = artefactFiles(artefacts);
    expect([...files.keys()]).toEqual([
      "oci.json",
      "rootfs.json",
      "seccomp.json",
      "landlock.json",
      "apparmor.profile",
      "nftables.json",
      "bpf.json",
      "gate.json",
      "exec.json",
      "file-guards.json",
      "manifest.json",
    ]);
    const manifest = JSON.parse(files.get("manifest.json") ?? "{}");
    expect(Object.keys(manifest.sha256)).toEqual([...files.keys()].slice(0, -1));
    for (const [name, sum] of Object.entries(manifest.sha256))
      expect(
        createHash("sha256")
          .update(files.get(name) ?? "")
          .digest("hex"),
      ).toBe(sum);
    expect(artefactFiles(artefacts)).toEqual(files);
    for (const [name, text] of files)
      if (name.endsWith(".json")) expect(() => JSON.parse(text)).not.toThrow();
  });
});
