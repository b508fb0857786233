// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${name} is the policy language's own way to name a variable.

// What a locked rule takes from elsewhere in the policy, against the files that extend its own or stand beside it.

import { describe, expect, test } from "vitest";
import { parsePolicy } from "./schema.js";

const HEAD = "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: t }\n";
const SANDBOX = "sandbox: { mounts: [{ source: /usr }] }\n";

/** "FILE CODE RULE" of each error of the file "main"; the other files are what it can extend. */
function refused(texts: Readonly<Record<string, string>>, variables: Record<string, string> = {}): string[] {
  const base = (reference: string) =>
    texts[reference] === undefined
      ? { error: "there is no such file" }
      : { file: reference, text: HEAD + texts[reference] };
  const { policy, diagnostics } = parsePolicy(HEAD + texts.main, "main", { base, variables });
  const errors = diagnostics.filter((d) => d.severity === "error");
  expect(policy === undefined).toBe(errors.length > 0);
  return errors.map((d) => `${d.origin.file} ${d.code} ${d.rule}`);
}

const locked = (more: string) =>
  `exec:\n  - { id: x, executable: /x, ${more}, action: deny, locked: true }\n`;
const open = (more: string) => locked(more).replace(", locked: true", "");
const ORDERS = ["[other, base]", "[base, other]"];

describe("the subjects of a locked rule", () => {
  const subjects =
    "subjects:\n  - { name: main, loopback: any }\n  - { name: tool, enters: [{ from: main, executable: /b }] }\n";
  const base = SANDBOX + subjects + locked("subject: tool");

  test.each(ORDERS)("cannot be changed by a file beside its own: %s", (order) => {
    const other =
      "subjects:\n  - { name: main }\n  - { name: loose, enters: [{ from: main, executable: /b }] }\n";
    expect(refused({ main: `extends: ${order}\n`, base, other })).toEqual(["other locked exec/x"]);
    expect(
      refused({ main: `extends: ${order}\n`, base: SANDBOX + subjects + open("subject: tool"), other }),
    ).toEqual([]);
    expect(refused({ main: `extends: ${order}\n`, base, other: "" })).toEqual([]);
  });

  test("can come from a file that its own extends, wherever else that is extended", () => {
    const files = { far: SANDBOX + subjects, base: `extends: far\n${locked("subject: tool")}` };
    const other = `extends: far\n${open("subject: tool").replace("id: x", "id: y")}`;
    for (const order of ORDERS) expect(refused({ main: `extends: ${order}\n`, ...files, other })).toEqual([]);
    expect(refused({ main: `extends: base\n${subjects}`, ...files })).toEqual(["main locked exec/x"]);
  });

  test("cannot be changed by another order of the files that its own extends", () => {
    const files = {
      one: SANDBOX + subjects,
      two: "subjects: [{ name: main }, { name: tool, enters: [{ from: main, executable: /c }] }]\n",
      base: `extends: [one, two]\n${locked("subject: tool")}`,
    };
    expect(refused({ main: "extends: base\n", ...files })).toEqual([]);
    expect(refused({ main: "extends: [one, base]\n", ...files })).toEqual([]);
    expect(refused({ main: "extends: [two, base]\n", ...files })).toEqual(["main locked exec/x"]);
  });

  test("cannot be changed by a variable that their section uses", () => {
    const with_ = (value: string, rule = locked("subject: tool")) => ({
      base: `${SANDBOX}variables: { b: ${value} }\n${subjects.replace("/b", '"${b}"')}${rule}`,
    });
    const main = "extends: base\nvariables: { b: /c }\n";
    expect(refused({ main, ...with_("/b") })).toEqual(["base locked exec/x"]);
    expect(refused({ main, ...with_("") })).toEqual([]);
    expect(refused({ main, ...with_("/b", open("subject: tool")) })).toEqual([]);
    expect(refused({ main: "extends: base\n", ...with_("/b") }, { b: "/c" })).toEqual([]);
  });
});

describe("the variables of a locked rule", () => {
  const rule = 'exec:\n  - { id: x, executable: "${v}", action: deny, locked: true }\n';

  test("of a file that its own extends cannot be changed by a file between them", () => {
    const files = { far: "variables: { v: /x }\n", base: `extends: far\n${SANDBOX}${rule}` };
    const other = "variables: { v: /nowhere }\n";
    expect(refused({ main: "extends: [far, other, base]\n", ...files, other })).toEqual([
      "base locked exec/x",
    ]);
    expect(refused({ main: "extends: [base, other]\n", ...files, other })).toEqual(["base locked exec/x"]);
    // What stands before is overridden by the value that the rule's own file sees.
    expect(refused({ main: "extends: [other, base]\n", ...files, other })).toEqual([]);
    expect(refused({ main: "extends: [far, base]\n", ...files, other: "" })).toEqual([]);
  });
});

describe("the workspace of a locked rule", () => {
  const floor = "exec:\n  - { id: x, inWorkspace: true, action: deny, locked: true }\n";
  const sandbox = (more: string) => `sandbox: { ${more}mounts: [{ source: /usr }] }\n`;
  const base = sandbox("workspace: /home/agent/w, ") + floor;
  const other = "sandbox: { workspace: /home/agent/prod }\n";

  test("cannot be another in a file that extends its own, or stands after it", () => {
    expect(refused({ main: `extends: base\n${other}`, base })).toEqual(["main locked exec/x"]);
    expect(refused({ main: "extends: [base, other]\n", base, other })).toEqual(["other locked exec/x"]);
    expect(refused({ main: "extends: [other, base]\n", base, other })).toEqual([]);
    const unlocked = base.replace(", locked: true", "");
    expect(refused({ main: `extends: base\n${other}`, base: unlocked })).toEqual([]);
  });

  test("can be said again, and the rest of the sandbox changed", () => {
    const main =
      "extends: base\nsandbox: { workspace: /home/agent/w, hostname: a, home: /home/agent, user: { uid: 7 } }\n";
    expect(refused({ main, base })).toEqual([]);
  });

  test("is the home folder where it is not said, or /home/agent", () => {
    const usual = sandbox("") + floor;
    const home = "extends: base\nsandbox: { home: /data }\n";
    expect(refused({ main: `extends: base\n${other}`, base: usual })).toEqual(["main locked exec/x"]);
    expect(refused({ main: home, base: usual })).toEqual(["main locked exec/x"]);
    expect(refused({ main: home, base: sandbox("home: /d, ") + floor })).toEqual(["main locked exec/x"]);
    expect(refused({ main: home, base })).toEqual([]);
    // Beside it, a home that the rule's file does not have is one, too.
    expect(refused({ main: "extends: [other, base]\n", base: usual, other })).toEqual([
      "other locked exec/x",
    ]);
  });

  test("cannot be changed by a variable, unless it is left open", () => {
    const by = (value: string) =>
      `variables: { w: ${value} }\n${sandbox('workspace: "/home/agent/${w}", ')}${floor}`;
    const main = "extends: base\nvariables: { w: prod }\n";
    expect(refused({ main, base: by("a") })).toEqual(["base locked exec/x"]);
    expect(refused({ main, base: by("") })).toEqual([]);
    expect(refused({ main: "extends: base\n", base: by("a") }, { w: "prod" })).toEqual([]);
  });

  test("is whoever's has a sandbox, where its own file has none", () => {
    expect(refused({ main: `extends: base\n${sandbox("workspace: /w, ")}`, base: floor })).toEqual([]);
  });
});

describe("the sandbox's user of a locked rule", () => {
  const floor = (owner: string, more = ", locked: true") =>
    `${SANDBOX}file:\n  - { id: f, path: /d, operations: open, owner: ${owner}, action: deny${more} }\n`;
  const user = "sandbox: { user: { uid: 1001, gid: 1001, name: other } }\n";

  test("cannot be another in another file", () => {
    for (const owner of ["user", "[root, user]"]) {
      expect(refused({ main: `extends: base\n${user}`, base: floor(owner) })).toEqual(["main locked file/f"]);
      for (const order of ORDERS)
        expect(refused({ main: `extends: ${order}\n`, base: floor(owner), other: user })).toEqual([
          "other locked file/f",
        ]);
    }
  });

  test("can be where the rule names no user, or does not hold as a floor, and so can the group and name", () => {
    for (const base of [floor("root"), floor("[1000]"), floor("user", "")])
      expect(refused({ main: `extends: base\n${user}`, base })).toEqual([]);
    const same = "sandbox: { user: { uid: 1000, gid: 1001, name: other } }\n";
    expect(refused({ main: `extends: base\n${same}`, base: floor("user") })).toEqual([]);
    const own = floor("user").replace("mounts:", "user: { uid: 1001 }, mounts:");
    expect(refused({ main: `extends: base\n${user}`, base: own })).toEqual([]);
  });
});

test("the terms of a locked hold are those that its own file sees, also beside a file that extends the same", () => {
  const texts: Record<string, string> = {
    far: `${SANDBOX}approvals: { timeout: 1m }\n`,
    other: "extends: far\napprovals: { timeout: 5s, default: allow }\n",
    base: "extends: far\nexec:\n  - { id: x, executable: /x, action: hold, locked: true }\n",
  };
  const { policy } = parsePolicy(`${HEAD}extends: [other, base]\n`, "main", {
    base: (reference) => ({ file: reference, text: HEAD + texts[reference] }),
  });
  expect(policy?.exec[0]?.hold).toEqual({ timeoutMs: 60_000, onTimeout: "deny" });
});
