// What a base denies for names of the environment, and a permission before it lets through without meaning it.

import { expect, test } from "vitest";
import { parsePolicy } from "../schema.js";
import { lint } from "./lint.js";

const HEAD = "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: t }\n";
const BASE = `${HEAD}sandbox: { command: [/usr/bin/x], mounts: [{ source: /usr }] }
subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /.clawsec/sh }]
    entry: { path: /.clawsec/sh, exec: /usr/bin/dash }
    files: { read: [/usr], exec: [/usr] }
exec:
  - { id: vars, executable: /**, environment: [LD_PRELOAD], action: deny }
  - { id: entry, subject: main, executable: /.clawsec/sh, action: allow }
`;

function said(rules: readonly string[], base = BASE): string[] {
  const text = `${HEAD}extends: base\nexec:\n${rules.map((rule) => `  - ${rule}\n`).join("")}`;
  const { policy } = parsePolicy(text, "main", { base: () => ({ file: "base", text: base }) });
  if (policy === undefined) throw new Error("the policy does not parse");
  return lint(policy)
    .filter(({ code }) => code === "variables-pass")
    .map(({ message, remedy }) => `${message}. ${remedy}`);
}

const GIT = "{ id: git, executable: /usr/bin/git, action: allow }";
const VARS = "{ id: mine, executable: /usr/**, environment: ['LD_*'], action: deny }";

test("a permission before the base's denial is named with what would close it", () => {
  expect(said([GIT])).toEqual([
    "exec/git (allow) also permits what exec/vars of base denies for its environment (LD_PRELOAD), since it comes first. Put a denial with the id vars before it: it takes the place of the other.",
  ]);
  expect(said([GIT, "{ id: make, executable: /usr/bin/make, action: log }"])).toEqual([
    "exec/git, exec/make (allow) also permit what exec/vars of base denies for its environment (LD_PRELOAD), since they come first. Put a denial with the id vars before them: it takes the place of the other.",
  ]);
});

test.each<[string, string[]]>([
  ["a denial of one's own before it", [VARS, GIT]],
  [
    "the base's rule, replaced in front",
    ["{ id: vars, executable: /**, environment: [LD_AUDIT], action: deny }", GIT],
  ],
  [
    "a permission that speaks of the environment",
    [GIT.replace("action", "environment: [LD_PRELOAD], action")],
  ],
  [
    "a denial and a hold",
    [GIT.replace("allow", "deny"), GIT.replace("allow", "hold").replace("git,", "g2,")],
  ],
  ["a rule that only observes", [GIT.replace("allow", "allow, mode: observe")]],
  ["an entry, which takes the variables away", ["{ id: e, executable: /.clawsec/sh, action: allow }"]],
])("nothing is said of %s", (_, rules) => {
  expect(said(rules)).toEqual([]);
});

test("a denial of one's own for fewer programs, or after the permission, is no help", () => {
  expect(said([VARS.replace("/usr/**", "/usr/lib/**"), GIT])).toHaveLength(1);
  expect(said([GIT, VARS])).toHaveLength(1);
});

test("nothing is said of a locked denial, which decides first, nor of one for other subjects", () => {
  expect(said([GIT], BASE.replace("action: deny", "action: deny, locked: true"))).toEqual([]);
  const ofTool = BASE.replace("vars,", "vars, subject: tool,");
  expect(said([GIT.replace("git,", "git, subject: main,")], ofTool)).toEqual([]);
  expect(said([GIT], ofTool)).toHaveLength(1);
});
