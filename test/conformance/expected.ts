// What is expected, what was seen, and whether they are the same.

import type { Evaluation } from "../../policy/index.js";
import type { ExecAction } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt, DriverAnswer } from "./attempt.js";

export interface Expected {
  /** `either`: a protection may refuse more than the rule says, as the documentation says. */
  readonly outcome: "happens" | "refused" | "either";
  /** The rule in the loader's event; undefined where the loader names none. */
  readonly rule: string | undefined;
  /** Whether a person was asked; undefined where that depends on who is faster. */
  readonly held: boolean | undefined;
  readonly why: string;
  /** Of an exec: what the loader must say of it, where it names the rule. */
  readonly facts?: ExecAction;
  /** Of an exec that happens: what the image reads; `undefined` among them: what cannot be read. */
  readonly reads?: readonly (string | undefined)[];
}

/** What was seen of one attempt. */
export interface Observed {
  readonly answer: DriverAnswer;
  /** Whether its effect is there. */
  readonly happened: boolean;
  /** Why what happened is not what was meant ("" when it is): another image, other arguments, another host. */
  readonly wrong: string;
  /** The action stood still and a person (or the deadline) decided. */
  readonly held: boolean;
  /** Rules that the loader's events name, in order. */
  readonly rules: readonly string[];
  /** Of an exec: its facts in the last of these events. */
  readonly facts?: ExecAction;
  /** Hashes of what the image has read; "-" for what it could not. */
  readonly reads?: readonly string[];
}

export function refused({ rule }: Pick<Evaluation, "rule">, why: string): Expected {
  return { outcome: "refused", rule, held: false, why };
}

/** Why the two differ, one sentence; "" when they do not. */
export function difference(expected: Expected, observed: Observed): string {
  const { answer, happened } = observed;
  const said = `the driver says ${answer.status} ${answer.number}`;
  // The folder on the way to what must not be reached may not be there either.
  const isWithout = answer.status === "prep" && expected.outcome === "refused" && expected.rule === undefined;
  if (!isWithout && ["prep", "cwd", "late"].includes(answer.status)) return `it could not be tried: ${said}`;
  if (observed.wrong !== "") return observed.wrong;
  if (expected.outcome === "happens" && !happened) return `it must happen and did not (${said})`;
  if (expected.outcome === "refused" && happened) return `it must not happen and did (${said})`;
  if (expected.held !== undefined && expected.held !== observed.held)
    return expected.held ? "it must be held and was not" : "it was held and must not be";
  const reads = expected.reads
    ?.map((text) => (text === undefined ? "-" : hashOf(Buffer.from(text))))
    .join(" ");
  if (happened && reads !== undefined && reads !== (observed.reads ?? []).join(" "))
    return `the image must read ${JSON.stringify(expected.reads)} (${reads}), and has read ${observed.reads?.join(" ") || "nothing"}`;
  const last = observed.rules.at(-1);
  if (expected.rule !== undefined && last !== expected.rule)
    return `the rule must be ${expected.rule}, and the loader says ${observed.rules.join(", ") || "nothing"}`;
  if (expected.rule !== undefined && expected.facts !== undefined && observed.facts !== undefined)
    return otherFact(expected.facts, observed.facts);
  return "";
}

/** The facts that are told with each decision: those that cost nothing more. */
const FACTS = ["executable", "script", "nestedScripts", "kind", "loader", "code"] as const;

function otherFact(expected: ExecAction, told: ExecAction): string {
  for (const fact of FACTS) {
    const [must, is] = [expected[fact], told[fact]].map((value) => JSON.stringify(value));
    // Which code it is, is open where it is not known what runs.
    if (must !== is && !(fact === "code" && expected.scriptUnknown !== ""))
      return `${fact} must be ${must}, and the loader says ${is}`;
  }
  if ((expected.scriptUnknown === "") !== (told.scriptUnknown === ""))
    return expected.scriptUnknown === ""
      ? `the script is known, and the loader says: ${told.scriptUnknown}`
      : "it is not known what its interpreter runs, and the loader says that it knows";
  return "";
}

/** FNV-1a as token.c has it. */
export function hashOf(bytes: Uint8Array): string {
  let hash = 2166136261;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 16777619) >>> 0;
  return hash.toString(16).padStart(8, "0");
}

/** One pair of a policy and an action that came out otherwise than the policy says. */
export interface Difference {
  readonly attempt: Attempt;
  readonly expected: Expected;
  readonly observed: Observed;
  readonly why: string;
}
