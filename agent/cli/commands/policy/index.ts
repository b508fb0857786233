/** The commands that work on policies. */
import type { Command } from "commander";
import type { Io } from "../../io.js";
import { addCheck } from "./check.js";
import { addCompile } from "./compile.js";
import { addDiff } from "./diff.js";
import { addExplain, addSupervisorExplain } from "./explain.js";
import { addFmt } from "./fmt.js";
import { addSchema } from "./schema.js";
import { addShow } from "./show.js";
import { addTest } from "./test.js";
import { addWhy } from "./why.js";

/** Adds "policy" with its commands, and "explain", which asks the supervisor. */
export function addPolicyCommands(program: Command, io: Io): void {
  const policy = program
    .command("policy")
    .description("read, test, compare and lay out policies; no daemon needed");
  for (const add of [addCheck, addShow, addTest, addExplain, addWhy, addDiff, addCompile, addFmt, addSchema])
    add(policy, io);
  addSupervisorExplain(program, io);
}
