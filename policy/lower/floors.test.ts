// Waivers of mechanisms against locked rules of other files.

import { describe, expect, test } from "vitest";
import { type CompileResult, compile } from "../compile.js";
import { renderDiagnostics } from "../diagnostics.js";
import { parsePolicy } from "../schema.js";
import { capabilities, SYSTEM, tableHost } from "../testing/host.js";

const HEAD = "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: t }\n";
const SANDBOX =
  "sandbox: { command: [/usr/bin/x], home: /data, workspace: /data, mounts: [{ source: /usr }, { source: /srv/data, target: /data, mode: rw }] }\n";
const host = tableHost([...SYSTEM, "/srv/data/notes"]);

/** Compiles the file "main" for a host without `missing`; the other files are what it can extend. */
function lower(missing: string, texts: Readonly<Record<string, string>>): CompileResult {
  const base = (reference: string) =>
    reference in texts
      ? { file: reference, text: HEAD + texts[reference] }
      : { error: "there is no such file" };
  const { policy, diagnostics } = parsePolicy(HEAD + texts.main, "main", { base });
  if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
  return compile(policy, { host, capabilities: capabilities({ without: [missing] }) });
}

/** Errors, and what is waived. */
const findings = (result: CompileResult) =>
  result.diagnostics.map((d) => `${d.severity} ${d.code} ${d.rule} ${d.layer} at ${d.origin.file}`);
const waive = (name: string) => `waive: [{ name: ${name}, reason: not here }]\n`;

const SUBJECTS = `subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /.clawsec/sh }]
    entry: { path: /.clawsec/sh, exec: /usr/bin/dash }
    files: { read: [/usr], write: [], exec: [/usr] }
`;
const FLOORS: readonly (readonly [mechanism: string, rule: string, sections: string, more: string])[] = [
  [
    "apparmor",
    "file/r",
    "file:\n  - { id: r, path: ['/data/**/*.pem', '/data/**/.env'], operations: write, action: deny, LOCKED }\n",
    "",
  ],
  [
    "fanotify.perm",
    "file/r",
    "file:\n  - { id: r, path: /data/notes, operations: open, action: hold, LOCKED }\n",
    "",
  ],
  [
    "landlock",
    "file/r",
    "file:\n  - { id: r, path: /data/notes, operations: read, subject: tool, action: deny, LOCKED }\n",
    SUBJECTS,
  ],
  ["nftables", "network/r", "network:\n  - { id: r, host: x.com, action: deny, LOCKED }\n", ""],
];

describe.each(FLOORS)("a waiver of %s", (mechanism, rule, sections, more) => {
  const locked = sections.replace("LOCKED", "locked: true");
  const open = sections.replace(", LOCKED", "");
  const base = (text: string, waiver = "") => SANDBOX + more + waiver + text;
  const refused = (file: string) => `error locked ${rule} ${mechanism} at ${file}`;
  const errors = (result: CompileResult) => findings(result).filter((finding) => finding.startsWith("error"));

  test("does not lift a rule that is locked in a base", () => {
    const result = lower(mechanism, { base: base(locked), main: `extends: [base]\n${waive(mechanism)}` });
    expect(errors(result)).toEqual([refused("main")]);
    expect(result.artefacts).toBeUndefined();
    expect(result.diagnostics.find((d) => d.code === "locked")?.message).toContain(
      `${mechanism} cannot be waived here: the rule ${rule}, which is locked by base:`,
    );
    const unlocked = lower(mechanism, { base: base(open), main: `extends: [base]\n${waive(mechanism)}` });
    expect(errors(unlocked)).toEqual([]);
    expect(unlocked.artefacts).toBeDefined();
  });

  test("in a file of its own beside the base does not lift it either", () => {
    for (const order of ["[waiver, base]", "[base, waiver]"]) {
      const files = { base: base(locked), waiver: waive(mechanism), main: `extends: ${order}\n` };
      expect(errors(lower(mechanism, files))).toEqual([refused("waiver")]);
    }
  });

  test("of the file that locks the rule, or of one that this extends, stands", () => {
    const own = lower(mechanism, { base: base(locked, waive(mechanism)), main: "extends: [base]\n" });
    const below = {
      far: waive(mechanism),
      base: `extends: [far]\n${base(locked)}`,
      main: "extends: [base]\n",
    };
    for (const result of [
      own,
      lower(mechanism, below),
      lower(mechanism, { main: base(locked, waive(mechanism)) }),
    ]) {
      expect(errors(result)).toEqual([]);
      expect(result.artefacts).toBeDefined();
    }
  });

  test("changes nothing on a host that has it", () => {
    const files = { base: base(locked), main: `extends: [base]\n${waive(mechanism)}` };
    const result = lower("none", files);
    expect(findings(result)).toEqual([`warning waiver-unused ${mechanism}  at main`]);
  });
});

test("a waiver of what no locked rule needs stands beside locked rules", () => {
  const floors = `${SANDBOX}secrets: { items: [] }
exec:\n  - { id: e, executable: /usr/bin/su, action: deny, locked: true }
file:\n  - { id: f, path: /data/notes, operations: write, action: deny, locked: true }
`;
  for (const mechanism of ["landlock", "nftables", "apparmor", "fanotify.perm", "tmpfs.noswap"]) {
    const result = lower(mechanism, { base: floors, main: `extends: [base]\n${waive(mechanism)}` });
    expect(result.diagnostics.filter((d) => d.severity === "error")).toEqual([]);
    // The file system of secrets may be swapped only where this is waived, and the host has no other.
    expect(result.artefacts?.secretsMount?.maySwap).toBe(mechanism === "tmpfs.noswap");
  }
  const refused = lower("tmpfs.noswap", { main: floors });
  expect(refused.diagnostics.map((d) => d.code)).toEqual(["missing-layer"]);
  expect(refused.artefacts).toBeUndefined();
});
