// What must hold for every policy with every matcher, tried on random ones.

import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { CacheScope, type ExecAction, ExecFact, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { type Evaluation, evaluate, evaluatePlainly, type Moment } from "../evaluate.js";
import type { Action, ExecRule, FileRule, NetworkRule, Policy, RuleBase } from "../model.js";
import { anyActions, execActions, moments, policies, ruleActions } from "../testing/arbitrary.js";
import { connect, exec } from "../testing/policy.js";
import { why } from "../why.js";

// Random policies take their time where other tests run beside them.
vi.setConfig({ testTimeout: 60_000 });

/** More is permitted the higher it is. */
const PERMITS: Partial<Record<Verdict, number>> = {
  [Verdict.DENY]: 0,
  [Verdict.HOLD]: 1,
  [Verdict.LOG]: 2,
  [Verdict.ALLOW]: 2,
};
const permits = (evaluation: Evaluation) => PERMITS[evaluation.verdict] ?? Number.NaN;

type Rules = { exec: readonly ExecRule[]; file: readonly FileRule[]; network: readonly NetworkRule[] };
const each = (p: Policy, change: <T extends RuleBase>(rules: readonly T[]) => readonly T[]): Policy => ({
  ...p,
  ...({ exec: change(p.exec), file: change(p.file), network: change(p.network) } satisfies Rules),
});
const enforced = (p: Policy): Policy => ({ ...p, mode: "enforce" });
/** What another policy's rules are called beside these. */
const renamed = <T extends RuleBase>(rules: readonly T[]) =>
  rules.map((rule) => ({ ...rule, id: `${rule.id}-x` }));
const merged = (first: Policy, second: Policy): Policy => ({
  ...second,
  exec: [...renamed(first.exec), ...second.exec],
  file: [...renamed(first.file), ...second.file],
  network: [...renamed(first.network), ...second.network],
});

describe("the index", () => {
  test("gives what going through all rules gives", () => {
    fc.assert(
      fc.property(policies, anyActions, moments, (p, action, moment) => {
        const { trace, ...fast } = evaluate(p, action, moment);
        const { trace: whole, ...plain } = evaluatePlainly(p, action, moment);
        expect(fast).toEqual(plain);
        // What was looked at was looked at the same way, and nothing that matched was left out.
        const seen = new Map(trace.map((step) => [step.rule, step]));
        expect(whole.filter((step) => seen.has(step.rule))).toEqual(trace);
        expect(whole.filter((step) => step.matched && !seen.has(step.rule))).toEqual([]);
      }),
      { numRuns: 1000 },
    );
  });

  test("of many rules under one broad pattern keeps their order", () => {
    const [first] = fc.sample(
      policies.filter((p) => p.exec.length > 0),
      { numRuns: 1, seed: 7 },
    );
    const [rule] = first?.exec ?? [];
    if (first === undefined || rule === undefined) throw new Error("no rule");
    const plain: ExecRule = {
      ...rule,
      subjects: [],
      action: "allow",
      mode: "enforce",
      locked: false,
      when: [],
      rate: undefined,
      executable: ["/usr/**"],
      sha256: [],
      script: [],
      inWorkspace: undefined,
      code: [],
      cwd: [],
      environment: [],
      parent: [],
      ancestor: [],
      kinds: ["file"],
    };
    const broad: Policy = {
      ...enforced(first),
      exec: Array.from({ length: 2000 }, (_, i) => ({
        ...plain,
        id: `exec/r${i}`,
        action: i % 2 === 0 ? "allow" : "deny",
        executable: i % 3 === 0 ? ["/usr/bin/tool"] : ["/usr/**", "/usr/bin/*"],
        argv: {
          glob: ["*", String(i)],
          exact: undefined,
          prefix: undefined,
          regex: [],
          flags: [],
          without: [],
          valued: [],
        },
      })),
    };
    for (const i of [0, 1, 3, 998, 1999]) {
      const { rule: decided } = evaluate(
        broad,
        exec({ executable: "/usr/bin/tool", argv: ["x", String(i)] }),
      );
      expect(decided).toBe(`exec/r${i}`);
    }
    expect(evaluate(broad, exec({ executable: "/usr/bin/tool", argv: ["x", "2000"] })).rule).toBe(
      "exec/default",
    );
  });
});

describe("a denial more", () => {
  const denials = fc.tuple(policies, fc.constantFrom("first", "locked")).map(([p, where]) =>
    each(p, (rules) =>
      rules.map((rule) => ({
        ...rule,
        action: "deny" as const,
        hold: undefined,
        rate: undefined,
        mode: "enforce" as const,
        locked: where === "locked",
      })),
    ),
  );

  test("put first, or locked wherever it stands, never permits more", () => {
    fc.assert(
      fc.property(policies, denials, anyActions, moments, (p, more, action, moment) => {
        const before = evaluate(p, action, moment);
        expect(permits(evaluate(merged(more, p), action, moment))).toBeLessThanOrEqual(permits(before));
        const last = each(more, (rules) => rules.map((rule) => ({ ...rule, locked: true })));
        const after = { ...merged(p, last), defaults: p.defaults, mode: p.mode };
        expect(permits(evaluate(after, action, moment))).toBeLessThanOrEqual(permits(before));
      }),
      { numRuns: 400 },
    );
  });
});

describe("a locked rule", () => {
  const locks = policies.map((p) => enforced(each(p, (rules) => rules.filter((rule) => rule.locked))));

  test("is a floor under any other rules, whatever their order and mode", () => {
    fc.assert(
      fc.property(policies, locks, anyActions, moments, (p, floor, action, moment) => {
        // Alone, in a policy that permits everything else.
        const alone = { ...floor, defaults: { ...floor.defaults, exec: "allow", network: "allow" } } as const;
        const most = evaluate(alone, action, moment);
        // What no mount grants and what has no name is no floor: a rule can speak of it.
        if (most.origin === undefined) return;
        for (const both of [merged(floor, p), { ...merged(p, floor), defaults: p.defaults, mode: p.mode }]) {
          expect(permits(evaluate(both, action, moment))).toBeLessThanOrEqual(permits(most));
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe("rules that observe", () => {
  test("never change the verdict that the others give, nor who gives it", () => {
    fc.assert(
      fc.property(policies, anyActions, moments, (p, action, moment) => {
        const others = each(p, (rules) => rules.filter((rule) => rule.mode === "enforce"));
        const { verdict, rule, message, enterSubject } = evaluate(p, action, moment);
        const without = evaluate(others, action, moment);
        expect({ verdict, rule, message, enterSubject }).toEqual({
          verdict: without.verdict,
          rule: without.rule,
          message: without.message,
          enterSubject: without.enterSubject,
        });
      }),
      { numRuns: 400 },
    );
  });

  test("show in a policy that observes what it would decide, and nothing else changes", () => {
    fc.assert(
      fc.property(policies, anyActions, moments, (p, action, moment) => {
        const would = evaluate(enforced(p), action, moment);
        const seen = evaluate({ ...p, mode: "observe" }, action, moment);
        const stays = permits(seen) === permits(would);
        if (seen.rule === "file/default") {
          expect(seen.verdict).toBe(Verdict.DENY);
        } else if (stays) {
          expect({ verdict: seen.verdict, rule: seen.rule }).toEqual({
            verdict: would.verdict,
            rule: would.rule,
          });
        } else {
          expect(permits(seen)).toBeGreaterThan(permits(would));
          expect(seen.observed).toEqual({ verdict: would.verdict, rule: would.rule });
          expect(seen.cacheScope).toBe(CacheScope.NONE);
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe("rules that cannot both match", () => {
  const shuffled = (count: number) =>
    fc.array(fc.nat(), { minLength: count, maxLength: count }).map((keys) =>
      keys
        .map((key, i) => ({ key, i }))
        .sort((a, b) => a.key - b.key || a.i - b.i)
        .map(({ i }) => i),
    );

  test("give the same verdicts in any order", () => {
    fc.assert(
      fc.property(
        policies,
        fc.array(ruleActions, { minLength: 5, maxLength: 5 }),
        shuffled(5),
        fc.nat(5),
        moments,
        (p, actions, order, asked, moment) => {
          const [e] = p.exec;
          const [n] = p.network;
          if (e === undefined || n === undefined) return;
          const exact = actions.map(
            (action, i): ExecRule => ({
              ...e,
              id: `exec/r${i}`,
              action,
              locked: false,
              rate: undefined,
              script: [],
              executable: [`/bin/p${i}`],
            }),
          );
          const named = actions.map(
            (action, i): NetworkRule => ({
              ...n,
              id: `network/r${i}`,
              action,
              locked: false,
              rate: undefined,
              host: [`h${i}.com`],
              cidr: [],
            }),
          );
          const one = { ...p, exec: exact, network: named };
          const other = {
            ...p,
            exec: order.map((i) => exact[i] as ExecRule),
            network: order.map((i) => named[i] as NetworkRule),
          };
          for (const action of [exec({ executable: `/bin/p${asked}` }), connect(`h${asked}.com`, 443)]) {
            const { trace: _, cacheScope: __, dependsOn: _a, ...a } = evaluate(one, action, moment);
            const { trace: ___, cacheScope: ____, dependsOn: _b, ...b } = evaluate(other, action, moment);
            expect(b).toEqual(a);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("why", () => {
  test("gives the evaluator's answer, and steps and near misses that agree with it", () => {
    fc.assert(
      fc.property(policies, anyActions, moments, (p, action, moment) => {
        const { evaluation, steps, nearMisses } = why(p, action, moment);
        expect(evaluation).toEqual(evaluate(p, action, moment));
        const matched = new Set(steps.filter((step) => step.matched).map((step) => step.rule));
        for (const step of evaluation.trace) expect(matched.has(step.rule)).toBe(step.matched);
        for (const miss of nearMisses) expect(matched.has(miss.rule)).toBe(false);
      }),
      { numRuns: 300 },
    );
  });
});

describe("an answer that is used again", () => {
  const facts = (action: Action): ExecAction => {
    if (action.action?.$case !== "exec") throw new Error("not an exec");
    return action.action.value;
  };
  /** The same files have the same paths, kind and content: the loader that was called by hand is one of them. */
  const withFileOf = (other: Action, one: Action): Action => {
    const { executable, executableSha256, kind, loader, loaderSha256 } = facts(one);
    const value = { ...facts(other), executable, executableSha256, kind, loader, loaderSha256 };
    return { ...other, subject: one.subject, action: { $case: "exec", value } };
  };
  const withArgumentsOf = (other: Action, one: Action): Action => {
    const { script, scriptSha256, nestedScripts, nestedSha256, argv, cwd } = facts(one);
    // What an interpreter runs is what its arguments say.
    const { code, scriptUnknown } = facts(one);
    const scripts = { script, scriptSha256, nestedScripts, nestedSha256, scriptUnknown };
    const value = { ...facts(other), ...scripts, code, argv, cwd };
    return { ...other, action: { $case: "exec", value } };
  };
  const later: (Moment | undefined)[] = [
    undefined,
    { timeMs: 0, used: () => 9 },
    { timeMs: 3e11, used: () => 0 },
  ];

  test("is the answer that the evaluator would give, at any time and to any caller", () => {
    let served = 0;
    fc.assert(
      fc.property(policies, execActions, execActions, moments, (p, one, second, moment) => {
        const first = evaluate(p, one, moment);
        if (first.cacheScope === CacheScope.NONE) return;
        const file = withFileOf(second, one);
        const other = first.cacheScope === CacheScope.FILE ? file : withArgumentsOf(file, one);
        served++;
        for (const time of [moment, ...later]) {
          const { verdict, rule, message, enterSubject, observed } = evaluate(p, other, time);
          expect({ verdict, rule, message, enterSubject, observed }).toEqual({
            verdict: first.verdict,
            rule: first.rule,
            message: first.message,
            enterSubject: first.enterSubject,
            observed: first.observed,
          });
        }
      }),
      { numRuns: 400 },
    );
    expect(served).toBeGreaterThan(50);
  });
});

describe("what an answer goes by", () => {
  test("is all that it goes by: another folder or environment that it does not name changes nothing", () => {
    let free = 0;
    fc.assert(
      fc.property(policies, execActions, execActions, moments, (p, one, second, moment) => {
        const first = evaluate(p, one, moment);
        if (one.action?.$case !== "exec" || second.action?.$case !== "exec") throw new Error("not an exec");
        const bound = new Set(first.dependsOn);
        const value = { ...one.action.value };
        if (!bound.has(ExecFact.CWD)) value.cwd = second.action.value.cwd;
        if (!bound.has(ExecFact.ENVIRONMENT)) value.environmentNames = second.action.value.environmentNames;
        if (bound.size < 2) free++;
        expect(evaluate(p, { ...one, action: { $case: "exec", value } }, moment)).toEqual(first);
      }),
      { numRuns: 400 },
    );
    expect(free).toBeGreaterThan(50);
  });
});
