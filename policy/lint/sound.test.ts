// What lint says of the order of rules holds for every action that can be made from the patterns of the policy.

import fc from "fast-check";
import { expect, test } from "vitest";
import { ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import { makeProbes } from "../diff/probes.js";
import { evaluate } from "../evaluate.js";
import type { Policy } from "../model.js";
import { parsePolicy } from "../schema.js";
import { policyText } from "../testing/policy.js";
import { lint } from "./lint.js";

/** Not there most of the time: once in `odds` + 1. */
const seldom = <T>(arbitrary: fc.Arbitrary<T>, odds: number): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: odds, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
const paths = fc.constantFrom(
  "/usr/**",
  "/usr/bin/*",
  "/usr/bin/git",
  "/usr/bin/{git,go}",
  "/usr/bin/g*",
  "/**",
  "/opt/x",
);
const one = <T>(arbitrary: fc.Arbitrary<T>) => fc.array(arbitrary, { minLength: 1, maxLength: 2 });
const action = fc.constantFrom("allow", "deny", "hold", "log");

const common = {
  action,
  subject: seldom(fc.constantFrom("main", "tool"), 3),
  because: seldom(fc.constant("why"), 2),
};
/** What only some rules have, so that most can be compared. */
const rare = {
  mode: seldom(fc.constant("observe"), 8),
  locked: seldom(fc.constant(true), 6),
  rate: seldom(fc.constant({ max: 3, per: "1m" }), 8),
  when: seldom(fc.constant({ days: "mon" }), 8),
};
const execRule = fc.record({
  ...common,
  ...rare,
  executable: one(paths),
  script: seldom(one(paths), 4),
  argv: seldom(
    fc.constantFrom<object>(
      ["*", "**"],
      ["*", "push", "**"],
      ["*", "**", "push", "**"],
      ["**"],
      { flags: ["-f|--force"] },
      { prefix: ["push"] },
      { exact: ["push"] },
      { without: ["-f"] },
      { flags: ["-f|--force"], prefix: ["push"] },
    ),
    2,
  ),
  cwd: seldom(fc.constantFrom("/home/**", "/home/agent"), 6),
  parent: seldom(paths, 8),
  inWorkspace: seldom(fc.boolean(), 8),
  code: seldom(fc.constantFrom("inline", ["inline", "file"]), 8),
  kind: seldom(fc.constantFrom("file", ["file", "anonymous"]), 6),
});
const networkRule = fc.record({
  ...common,
  ...rare,
  host: one(fc.constantFrom("*", "*.x.com", "a.x.com", "*.a.x.com", "y.com")),
  port: seldom(fc.constantFrom(443, "1-1000", 80), 3),
  method: seldom(fc.constantFrom("GET", ["GET", "POST"]), 5),
  path: seldom(fc.constantFrom("/v1/**", "/v1/x"), 5),
});
const fileRule = fc.record({
  ...common,
  ...rare,
  path: one(fc.constantFrom("/data", "/data/*", "/data/x", "/home/agent/**")),
  operations: one(fc.constantFrom("open", "delete", "rename", "link", "create", "chmod")),
  owner: seldom(fc.constantFrom("root", ["root", "user"]), 5),
});

function read(lists: Record<string, object[]>, mode: string | undefined): Policy | undefined {
  const sections = Object.entries(lists).map(([section, rules]) => {
    const lines = rules.map((rule, i) => {
      const { locked, action, mode: own, rate, ...rest } = rule as Record<string, unknown>;
      // What the language refuses is left out: locks on permissions, rates on denials, observing floors.
      const floor = locked === true && (action === "deny" || action === "hold");
      const fields = {
        id: `r${i}`,
        action,
        ...rest,
        ...(floor ? { locked } : { mode: own }),
        ...(action === "deny" || floor ? {} : { rate }),
      };
      return `  - ${JSON.stringify(fields)}`;
    });
    return `${section}:\n${lines.join("\n")}`;
  });
  const subjects =
    "subjects:\n  - { name: main }\n  - { name: tool, enters: [{ from: main, executable: /usr/bin/t }] }";
  const head = mode === undefined ? "" : `mode: ${mode}\n`;
  return parsePolicy(policyText(`${head}${subjects}\n${sections.join("\n")}`), "sound.yaml").policy;
}

const rules = fc.record({
  exec: fc.array(execRule, { minLength: 1, maxLength: 5 }),
  network: fc.array(networkRule, { minLength: 1, maxLength: 5 }),
  file: fc.array(fileRule, { minLength: 1, maxLength: 4 }),
});
const defaults = seldom(fc.constant("observe"), 8);

test("a rule that is said never to decide decides no probe, and one that changes nothing can go", () => {
  const said = new Map<string, number>();
  fc.assert(
    fc.property(rules, defaults, (lists, mode) => {
      const policy = read(lists, mode);
      if (policy === undefined) throw new Error("the generated policy does not parse");
      const findings = lint(policy).filter(({ code }) =>
        ["shadowed", "redundant", "contradictory"].includes(code),
      );
      if (findings.length === 0) return;
      const { probes } = makeProbes(policy, policy, 3000);
      for (const { code, rule, message } of findings) {
        const kind = message.includes("never decides")
          ? "never"
          : message.includes("changes nothing")
            ? "nothing"
            : message.includes("no program")
              ? "programs"
              : code;
        said.set(kind, (said.get(kind) ?? 0) + 1);
        const others = <T extends { id: string }>(list: readonly T[]) => list.filter(({ id }) => id !== rule);
        const without: Policy = {
          ...policy,
          exec: others(policy.exec),
          file: others(policy.file),
          network: others(policy.network),
        };
        for (const { action, timeMs } of probes) {
          const moment = timeMs === undefined ? undefined : { timeMs, used: () => 0 };
          const evaluation = evaluate(policy, action, moment);
          const context = `${message}\n${JSON.stringify(action)}`;
          if (kind === "nothing") {
            const next = evaluate(without, action, moment);
            expect([next.verdict, next.enterSubject], context).toEqual([
              evaluation.verdict,
              evaluation.enterSubject,
            ]);
          } else if (kind === "programs") {
            if (evaluation.rule !== rule || action.action?.$case !== "exec") continue;
            const { kind: file, script } = action.action.value;
            expect(file !== ExecutableKind.FILE || script !== "", context).toBe(true);
          } else {
            expect(evaluation.rule, context).not.toBe(rule);
          }
        }
      }
    }),
    { numRuns: 150 },
  );
  for (const kind of ["never", "nothing", "programs"]) expect(said.get(kind) ?? 0, kind).toBeGreaterThan(0);
}, 60_000);
