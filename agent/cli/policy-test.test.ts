/** policy test, on real files. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { GIT, PolicyFolder } from "../testing/policy-folder.js";

const { cli, file, folder, host, json, policy, end } = new PolicyFolder();
afterAll(end);

describe("test", () => {
  const cases = (...lines: string[]) =>
    `apiVersion: clawsec/v1\nkind: PolicyTest\npolicy: ./tested.yaml\ncases:\n${lines.map((l) => `  - ${l}\n`).join("")}`;
  const PASSES = "{ name: pull, exec: /tools/real pull, expect: { verdict: allow, rule: exec/tools } }";
  const FAILS = "{ name: push, exec: /tools/real push, expect: { verdict: allow, rule: exec/tools } }";

  beforeEach(() => {
    policy("tested", GIT);
  });

  test("cases that hold end with 0, one that does not with 3, and it says expected, got and why", async () => {
    const good = file("good.test.yaml", cases(PASSES));
    expect(await cli("test", good)).toMatchObject({ code: 0, out: "1 passed, 0 failed\n" });
    const bad = file("bad.test.yaml", cases(PASSES, FAILS));
    const result = await cli("test", bad);
    expect(result.code).toBe(3);
    expect(result.out).toMatch(/^FAIL .*bad\.test\.yaml:6: push\n/);
    expect(result.out).toContain(
      "verdict: expected allow, got deny; rule: expected exec/tools, got exec/no-push",
    );
    expect(result.out).toContain("what is pushed cannot be taken back");
    expect(result.out).toMatch(/1 passed, 1 failed\n$/);
    expect(await json("test", bad)).toMatchObject({
      passed: 1,
      failed: 1,
      cases: [{ passed: true }, { passed: false, got: { verdict: "deny", rule: "exec/no-push" } }],
    });
  });

  test("an expected layer is compared with this host's, and fails where the host is not known", async () => {
    const layer = (name: string) =>
      cases(`{ name: a, exec: /tools/real push, expect: { verdict: deny, layer: ${name} } }`);
    const unknown = file("layer.test.yaml", layer("nothing"));
    const wrong = await json("test", unknown, "--capabilities", host);
    expect(wrong.failed).toBe(1);
    const real: string = wrong.cases[0].got.layer;
    expect(real).not.toBe("");
    const right = file("layer2.test.yaml", layer(`"${real}"`));
    expect((await cli("test", right, "--capabilities", host)).code).toBe(0);
    expect(await cli("test", right)).toMatchObject({
      code: 3,
      out: expect.stringContaining("the host is not known"),
    });
  });

  test("of a folder all *.test.yaml below it are run, and a folder without any is an error", async () => {
    const below = join(folder, "suite", "deep");
    mkdirSync(below, { recursive: true });
    policy("suite/tested", GIT);
    policy("suite/deep/tested", GIT);
    file("suite/one.test.yaml", cases(PASSES));
    file("suite/deep/two.test.yaml", cases(PASSES, FAILS));
    expect((await cli("test", join(folder, "suite"))).out).toMatch(/2 passed, 1 failed\n$/);
    expect((await cli("test", join(folder, "tools"))).code).toBe(1);
  });

  test("a test file with errors, or whose policy has some, ends with 3", async () => {
    expect((await cli("test", file("e1.test.yaml", "kind: Policy\n"))).code).toBe(3);
    const missing = cases(PASSES).replace("tested.yaml", "missing.yaml");
    expect(await cli("test", file("e2.test.yaml", missing))).toMatchObject({
      code: 3,
      out: expect.stringContaining("missing.yaml"),
    });
  });
});
