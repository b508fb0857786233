import { describe, expect, test } from "vitest";
import { ExecutableKind, ObservedProtocol, Verdict } from "../proto/gen/clawsec/v1/loader.js";
import { evaluate } from "./evaluate.js";
import { connect, exec, policy } from "./testing/policy.js";
import { why } from "./why.js";

const p = policy(`exec:
  - { id: push, executable: /usr/bin/git, argv: { prefix: [push], flags: ["-f|--force"] }, action: deny }
  - { id: make, executable: /usr/bin/make, cwd: "/home/agent/**", action: allow }
  - { id: usr, executable: "/usr/**", action: allow }
  - { id: late, executable: "/usr/**", when: { days: [mon], from: "09:00", to: "10:00" }, action: log }
  - { id: few, executable: "/usr/**", rate: { max: 2, per: 1m }, action: hold }
network:
  - { id: web, host: x.com, port: 443, protocol: tls, action: allow }
`);
const git = exec({ executable: "/usr/bin/git", argv: ["git", "push"] });
const sunday = { timeMs: Date.parse("2026-11-22T12:00:00Z"), used: () => 2 };

describe("why", () => {
  test("gives the evaluator's answer and every rule, also those after it", () => {
    const { evaluation, steps } = why(p, git, sunday);
    expect(evaluation).toEqual(evaluate(p, git, sunday));
    expect(evaluation.rule).toBe("exec/usr");
    expect(steps).toEqual([
      { rule: "exec/push", matched: false, why: "argv" },
      { rule: "exec/make", matched: false, why: "executable" },
      { rule: "exec/usr", matched: true, why: "" },
      { rule: "exec/late", matched: false, why: "when" },
      { rule: "exec/few", matched: false, why: "rate" },
    ]);
  });

  test("names the rules that miss by one fact, what it is and what they want", () => {
    expect(why(p, git, sunday).nearMisses).toEqual([
      {
        rule: "exec/push",
        fact: "argv",
        is: '["git","push"]',
        wants: '{"prefix":["push"],"flags":["-f|--force"]}',
      },
      { rule: "exec/late", fact: "when", is: "2026-11-22T12:00:00.000Z", wants: "mon 09:00-10:00 UTC" },
      { rule: "exec/few", fact: "rate", is: "2 in 60000 ms", wants: "less than 2 in 60000 ms" },
    ]);
    const make = exec({ executable: "/usr/bin/make", cwd: "/srv" });
    expect(why(p, make).nearMisses[0]).toEqual({
      rule: "exec/make",
      fact: "cwd",
      is: "/srv",
      wants: "/home/agent/**",
    });
    // Two facts are no near miss.
    expect(why(p, exec({ executable: "/opt/make", cwd: "/srv" })).nearMisses.map(({ rule }) => rule)).toEqual(
      ["exec/usr", "exec/few"],
    );
    const plain = connect("x.com", 443, "main", { observedProtocol: ObservedProtocol.HTTP });
    expect(why(p, plain).nearMisses).toEqual([
      { rule: "network/web", fact: "protocol", is: "http", wants: "tls" },
    ]);
  });

  test("says what would decide without the deciding rule", () => {
    const { without } = why(p, git, { ...sunday, used: () => 0 });
    expect({ verdict: without?.verdict, rule: without?.rule }).toEqual({
      verdict: Verdict.HOLD,
      rule: "exec/few",
    });
    expect(why(p, git, sunday).without?.rule).toBe("exec/default");
    expect(why(p, exec({ executable: "/opt/x" })).without).toBeUndefined();
  });

  test("of an action that is not understood is the refusal alone", () => {
    const unknown = exec({ executable: "/usr/bin/x", kind: ExecutableKind.UNSPECIFIED });
    const { evaluation, ...rest } = why(p, unknown);
    expect(evaluation.rule).toBe("exec/unknown-file");
    expect(rest).toEqual({ steps: [], without: undefined, nearMisses: [] });
  });
});
