/** When two questions are the same question: by what would happen, never by a pid. */
import { createHash } from "node:crypto";
import type { Question } from "../../../proto/gen/clawsec/v1/loader.js";
import type { Action } from "../../common/action.js";

/** Questions with equal keys are answered together. The key covers everything that a person was shown. */
export function holdKey(question: Question, rule: string): string {
  const parts = [question.sandbox, question.subject, rule, facts(question.action)];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

function facts(action: Action | undefined): unknown {
  switch (action?.$case) {
    case "exec": {
      // Everything but the id of this one exec. Names of environment variables count: LD_PRELOAD changes what runs.
      // argvHash tells apart what is the same as lossy text.
      const { execId: _, ...rest } = action.value;
      return ["exec", Object.entries(rest).sort(byName)];
    }
    case "file":
      return ["file", Object.entries(action.value).sort(byName)];
    case "network":
      return ["network", Object.entries(action.value).sort(byName)];
    default:
      return [];
  }
}

function byName([left]: [string, unknown], [right]: [string, unknown]): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
