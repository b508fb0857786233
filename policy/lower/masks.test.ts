// Masks against what is expected to be there below them.

import { expect, test } from "vitest";
import { type CompileResult, compile } from "../compile.js";
import { renderDiagnostics } from "../diagnostics.js";
import { parsePolicy } from "../schema.js";
import { capabilities, SYSTEM, tableHost } from "../testing/host.js";

const host = tableHost([...SYSTEM, "/srv/nest/a/b/c", "/srv/nest/a/d"]);
const HEAD = "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: t }\n";

function lower(read: string, mounts = "", more = "", operations = "read"): CompileResult {
  const text = `${HEAD}sandbox:
  command: [/usr/bin/dash]
  home: /nest
  mounts: [{ source: /usr }, { source: /srv/nest, target: /nest, mode: rw }${mounts}]
subjects:
  - { name: main }
  - name: tool
    enters: [{ from: main, executable: /.clawsec/sh }]
    entry: { path: /.clawsec/sh, exec: /usr/bin/dash }
    files: { read: [/usr, ${read}], write: [], exec: [/usr] }
file:\n  - { id: m, path: /nest/a, operations: ${operations}, action: deny }\n${more}`;
  const { policy, diagnostics } = parsePolicy(text, "p.yaml");
  if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
  return compile(policy, { host, capabilities: capabilities() });
}

const errors = (result: CompileResult) =>
  result.diagnostics.filter((d) => d.severity === "error").map((d) => `${d.code} ${d.layer} ${d.rule}`);

test("a tree of a subject cannot lie below what is masked for everybody", () => {
  for (const tree of ["/nest/a/b", "/nest/a/b/c"]) {
    const result = lower(tree);
    expect(errors(result)).toEqual(["cannot-enforce landlock file/m"]);
    expect(result.artefacts).toBeUndefined();
    const [finding] = result.diagnostics.filter((d) => d.severity === "error");
    expect(finding?.message).toContain(`${tree} under "files" of the subject tool lies below /nest/a`);
    expect(finding?.remedy).toContain("Take it out of the subject's files");
  }
});

test("a tree that is masked itself, above, beside or optional is none of these", () => {
  for (const tree of ["/nest/a", "/nest", "{ path: /nest/a/b, optional: true }"])
    expect(errors(lower(tree))).toEqual([]);
  expect(errors(lower("/nest/a/b", "", "", "write"))).toEqual([]);
});

test("a mount cannot lie below what is masked for everybody", () => {
  const mount = (target: string) => `, { source: /srv/nest/a/b, target: ${target} }`;
  expect(errors(lower("/nest", mount("/nest/a/b")))).toEqual(["cannot-enforce mounts file/m"]);
  expect(errors(lower("/nest", mount("/nest/a")))).toEqual([]);
  expect(errors(lower("/nest", mount("/nest/a/b"), "", "write"))).toEqual([]);
});

test("a waived mask is not there", () => {
  const result = lower("/nest/a/b", "", "waive: [{ name: file/m, reason: not here }]\n");
  expect(errors(result)).toEqual([]);
  const config = JSON.parse(result.artefacts?.ociConfig.toString() ?? "{}");
  expect(config.linux.maskedPaths).not.toContain("/nest/a");
  const enforced = JSON.parse(lower("/nest").artefacts?.ociConfig.toString() ?? "{}");
  expect(enforced.linux.maskedPaths).toContain("/nest/a");
});
