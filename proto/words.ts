/** Words for the enums of the contract: the same in audit, output, JSON and the terminal screen. */
import { HealthState, HoldOutcome } from "./gen/clawsec/v1/control.js";
import { FileOperation, SandboxState, Verdict } from "./gen/clawsec/v1/loader.js";

/** "allow", "deny", "hold", "log", "ask"; "" for none. */
export function verdictWord(verdict: Verdict): string {
  switch (verdict) {
    case Verdict.ALLOW:
      return "allow";
    case Verdict.DENY:
      return "deny";
    case Verdict.HOLD:
      return "hold";
    case Verdict.LOG:
      return "log";
    case Verdict.ASK:
      return "ask";
    default:
      return "";
  }
}

/** The verdict of a word; undefined for another word. */
export function verdictOf(word: string): Verdict | undefined {
  const verdicts = [Verdict.ALLOW, Verdict.DENY, Verdict.HOLD, Verdict.LOG, Verdict.ASK];
  return verdicts.find((verdict) => verdictWord(verdict) === word);
}

/** "open", "allowed", "denied", "expired", "requester gone". */
export function outcomeWord(outcome: HoldOutcome): string {
  switch (outcome) {
    case HoldOutcome.OPEN:
      return "open";
    case HoldOutcome.ALLOWED:
      return "allowed";
    case HoldOutcome.DENIED:
      return "denied";
    case HoldOutcome.EXPIRED:
      return "expired";
    case HoldOutcome.REQUESTER_GONE:
      return "requester gone";
    default:
      return "unknown";
  }
}

/** "created", "running", "exited", "killed". */
export function stateWord(state: SandboxState): string {
  switch (state) {
    case SandboxState.CREATED:
      return "created";
    case SandboxState.RUNNING:
      return "running";
    case SandboxState.EXITED:
      return "exited";
    case SandboxState.KILLED:
      return "killed";
    default:
      return "unknown";
  }
}

/** "starting", "healthy", "unhealthy". */
export function healthWord(state: HealthState): string {
  switch (state) {
    case HealthState.STARTING:
      return "starting";
    case HealthState.HEALTHY:
      return "healthy";
    case HealthState.UNHEALTHY:
      return "unhealthy";
    default:
      return "unknown";
  }
}

/** "open", "delete", "rename", "link", "truncate", "create", "chmod". */
export function operationWord(operation: FileOperation): string {
  switch (operation) {
    case FileOperation.OPEN:
      return "open";
    case FileOperation.DELETE:
      return "delete";
    case FileOperation.RENAME:
      return "rename";
    case FileOperation.LINK:
      return "link";
    case FileOperation.TRUNCATE:
      return "truncate";
    case FileOperation.CREATE:
      return "create";
    case FileOperation.CHMOD:
      return "chmod";
    default:
      return "unknown operation";
  }
}

/** True while its processes live. */
export function isLive(state: SandboxState): boolean {
  return state === SandboxState.CREATED || state === SandboxState.RUNNING;
}
