/** policy diff: by generated and by recorded actions. */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { GIT, PolicyFolder } from "../testing/policy-folder.js";
import { denied } from "../testing/questions.js";
import { World } from "../testing/world.js";

const { cli, file, host, json, policy, run, end } = new PolicyFolder();
afterAll(end);

describe("diff", () => {
  const older = () => policy("before", GIT);
  const newer = () =>
    policy("after", GIT.replace("action: deny", "action: allow").replace("port: 443, ", ""));

  test("no change ends with 0, changes with 1, looser ones are marked and say their rules", async () => {
    const same = policy(
      "same",
      GIT.replace("no-push", "other-name").replace("because: what", "because: all"),
    );
    expect(await cli("diff", older(), same)).toMatchObject({
      code: 0,
      out: expect.stringMatching(/generated actions: no verdict differs/),
    });
    const result = await cli("diff", older(), newer());
    expect(result.code).toBe(1);
    expect(result.out).toMatch(/deny -> allow: \d+ actions LOOSER\n {2}e\.g\. /);
    expect(result.out).toContain("exec/no-push -> exec/no-push");
    expect(result.out).toContain("What needs a new sandbox is not known");
    const document = await json("diff", older(), newer());
    expect(document).toMatchObject({ same: false, recorded: null, needsRestart: null });
    expect(document.generated.groups[0]).toMatchObject({ from: "deny", to: "allow", direction: "looser" });
  });

  test("recorded actions are asked again", async () => {
    const record = (argv: string[], executable = "/tools/real", cut = false) => ({
      timeUs: 1_700_000_000_000_000,
      facts: {
        sandbox: "box",
        subject: "main",
        decision: {
          exec: { executable, argv, kind: "EXECUTABLE_KIND_FILE", cwd: "/work" },
          verdict: "VERDICT_DENY",
          cut,
        },
      },
    });
    const records = [
      record(["real", "push", "x"]),
      record(["real", "push", "x"]),
      record(["real", "pull"]),
      { facts: {} },
      // Asked again, it would be another action.
      record(["real", "push", "y"], "/tools/real", true),
    ];
    const whole = file("audit.json", JSON.stringify({ records, truncated: false }));
    const lines = file("audit.jsonl", records.map((r) => JSON.stringify(r)).join("\n"));
    for (const audit of [whole, lines]) {
      const document = await json("diff", older(), newer(), "--audit", audit);
      expect(document.recorded).toMatchObject({
        actions: 2,
        groups: [
          {
            from: "deny",
            to: "allow",
            count: 1,
            examples: [{ action: { exec: { argv: ["real", "push", "x"] } } }],
          },
        ],
      });
    }
    const told = await cli("diff", older(), newer(), "--audit", whole);
    expect(told.err).toContain("1 record had no action, or not a whole one");
    expect((await cli("diff", older(), newer(), "--audit", "/nonexistent")).code).toBe(1);
    expect((await cli("diff", older(), newer(), "--audit", file("bad.jsonl", "{"))).code).toBe(1);
    expect((await cli("diff", older(), newer(), "--audit", whole, "--recorded")).code).toBe(2);
    expect((await cli("diff", older(), newer(), "--recorded")).code).toBe(4);
  });

  test("recorded actions come from a running supervisor, too, and from one sandbox only when that is said", async () => {
    const world = new World();
    await world.start();
    try {
      await world.loader.emit(denied(701, { executable: "/tools/real", argv: ["real", "push"] }, "exec/x"));
      await world.loader.until(() => world.loader.acks.includes(701));
      const [first, second] = [older(), newer()];
      const recorded = async (...args: string[]) =>
        JSON.parse((await run(world.paths, "diff", first, second, "--json", ...args)).out).recorded;
      expect(await recorded("--recorded")).toMatchObject({
        actions: 1,
        groups: [{ from: "deny", to: "allow" }],
      });
      expect(await recorded("--name", "box")).toMatchObject({ actions: 1 });
      expect(await recorded("--name", "other")).toMatchObject({ actions: 0, groups: [] });
      // The loader says what the host can enforce.
      const { out } = await run(world.paths, "check", first);
      expect(out).not.toContain("not compiled");
    } finally {
      await world.end();
    }
  });

  test("where the host is known, it says what needs a new sandbox", async () => {
    const mounts = policy("mounts", GIT);
    writeFileSync(mounts, readFileSync(mounts, "utf8").replace("mode: rw", "mode: ro"));
    const changed = await json("diff", older(), mounts, "--capabilities", host);
    expect(changed.needsRestart.length).toBeGreaterThan(0);
    expect((await json("diff", older(), newer(), "--capabilities", host)).needsRestart).toEqual([]);
  });

  test("a variable is given to the policy that has it, and one that neither has is refused", async () => {
    const head = "variables: { port: 443 }\n";
    const own = policy("own-variable", GIT.replace("port: 443", 'port: "${port}"'), head);
    expect((await cli("diff", older(), own)).code).toBe(0);
    expect((await cli("diff", older(), own, "--var", "port=444")).code).toBe(1);
    expect((await cli("diff", older(), own, "--var", "other=1")).code).toBe(2);
  });
});
