import { describe, expect, test } from "vitest";
import type { Event } from "../../proto/gen/clawsec/v1/loader.js";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { factsOf, recordOf } from "../supervisor/audit/record.js";
import { denied, ended, executed } from "../testing/questions.js";
import { draw } from "./commands/audit-tree.js";
import { execTree, isInit, nodeLine } from "./exec-tree.js";

const records = (events: readonly Event[]) =>
  events.map((event, index) => ({ ...recordOf(event), facts: factsOf(event), id: index + 1 }));
const lines = (events: readonly Event[]) =>
  draw(execTree(records(events)), (node) => nodeLine(node, (word) => word));
const ran = (sequence: number, execId: string, parent: string, pid: number, argv: string[] = [execId]) => {
  const event = executed(sequence, { execId, argv }, { pid, ancestors: parent === "" ? [] : [parent] });
  const decision = denied(sequence).kind;
  if (event.kind?.$case === "exec" && decision?.$case === "decision" && parent !== "")
    event.kind.value.decision = {
      ...decision.value,
      verdict: Verdict.ALLOW,
      rule: "exec/rest",
      action: undefined,
    };
  return event;
};

describe("the tree of a session", () => {
  test("has each exec below the one that called it, with verdict, rule and end", () => {
    const events = [
      ran(1, "init", "", 1),
      ran(2, "sh", "init", 2),
      ran(3, "ls", "sh", 3),
      ended(4, { execId: "ls", exit: { code: 2, signal: 0 } }),
      ran(5, "env", "sh", 4),
      // The same process executes another program.
      ran(6, "git", "env", 4),
      ended(7, { execId: "git", exit: { code: 137, signal: 9 } }),
      ended(8, { execId: "sh", forked: true }),
      ended(9, { execId: "sh" }),
    ];
    expect(lines(events)).toEqual([
      "1 /usr/bin/git [init] (main) no end on record",
      "└─ 2 /usr/bin/git [sh] (main) allow exec/rest exit 0, and 1 forks of it",
      "   ├─ 3 /usr/bin/git [ls] (main) allow exec/rest exit 2",
      "   └─ 4 /usr/bin/git [env] (main) allow exec/rest executed the next",
      "      └─ 4 /usr/bin/git [git] (main) allow exec/rest signal 9",
    ]);
  });

  test("shows what was refused, killed or has an unknown parent, and no control character", () => {
    const refused = denied(2, { argv: ["git", "\u001b[2J\n"], execId: "no" });
    const killed = executed(
      3,
      { execId: "k", verified: false, why: "nothing was approved" },
      { ancestors: [] },
    );
    const drawn = lines([ran(1, "exec-0", "", 1), refused, killed]);
    expect(drawn).toEqual([
      "1 /usr/bin/git [exec-0] (main) no end on record",
      "└─ 4242 /usr/bin/git [git '\\x1b[2J\\n'] (main) deny exec/no-git",
      "4242 /usr/bin/git [git push] (main) deny killed before its first instruction: nothing was approved",
    ]);
    expect(drawn.join("")).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });

  test("knows the init of a session from a program that was decided about", () => {
    const [init, shell] = records([ran(1, "init", "", 1), ran(2, "sh", "init", 2)]);
    expect([init, shell].map((record) => record !== undefined && isInit(record))).toEqual([true, false]);
  });

  test("a chain of ten thousand execs and a parent of its own are drawn", () => {
    const chain = Array.from({ length: 10_000 }, (_, index) =>
      ran(index + 1, `x${index}`, index === 0 ? "" : `x${index - 1}`, 1),
    );
    const drawn = lines(chain);
    expect(drawn).toHaveLength(10_000);
    expect(drawn.at(-1)?.startsWith("(9958 levels) ")).toBe(true);
    expect(lines([ran(1, "me", "me", 1)])).toHaveLength(1);
  });
});
