/** Facts for tests: questions and events as a loader sends them. */
import {
  type Event,
  EventBatch,
  type ExecAction,
  ExecCode,
  ExecEvent,
  ExecutableKind,
  ExitEvent,
  type Process,
  type Question,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";

/** An exec with what is not named filled in. */
export function exec(fields: Partial<ExecAction> = {}): ExecAction {
  return {
    requestedPath: "git",
    executable: "/usr/bin/git",
    script: "",
    argv: ["git", "push"],
    argvTruncated: false,
    cwd: "/workspace",
    environmentNames: ["HOME", "PATH"],
    fileId: "1:2",
    scriptFileId: "",
    kind: ExecutableKind.FILE,
    execId: "exec-1",
    argvHash: "",
    contextHash: "",
    executableSha256: "",
    scriptSha256: "",
    nestedScripts: [],
    nestedSha256: [],
    loader: "",
    loaderSha256: "",
    code: ExecCode.UNSPECIFIED,
    scriptUnknown: "",
    check: false,
    ...fields,
  };
}

/** A process with what is not named filled in. */
export function processOf(fields: Partial<Process> = {}): Process {
  return {
    pid: 4242,
    sandboxPid: 7,
    uid: 1000,
    gid: 1000,
    execId: "exec-0",
    ancestors: ["exec-init"],
    executable: "/usr/bin/sh",
    comm: "sh",
    ancestorExecutables: [],
    ancestorsTruncated: false,
    ...fields,
  };
}

/** A question about an exec. */
export function question(
  id: number,
  fields: Partial<Question> = {},
  action: Partial<ExecAction> = {},
): Question {
  return {
    id,
    sandbox: "box",
    subject: "main",
    askedUs: 1,
    resent: false,
    holdId: "",
    epoch: 1,
    process: processOf(),
    action: { $case: "exec", value: exec({ execId: `exec-${id}`, ...action }) },
    ...fields,
  };
}

/** An encoded EventBatch, as the loader sends it. */
export function batchOf(...events: readonly Event[]): Uint8Array {
  return EventBatch.encode({ events: [...events] }).finish();
}

/** An event of a denied exec. */
export function denied(sequence: number, fields: Partial<ExecAction> = {}, rule = "exec/no-git"): Event {
  return {
    sequence,
    timeUs: 1_000_000 + sequence,
    sandbox: "box",
    subject: "main",
    policyHash: "abc",
    process: processOf(),
    kind: {
      $case: "decision",
      value: {
        action: { $case: "exec", value: exec(fields) },
        verdict: Verdict.DENY,
        rule,
        layer: "supervisor",
        message: "git may not push",
        latencyUs: 120,
        holdId: "",
        observed: Verdict.UNSPECIFIED,
        observedRule: "",
        questionId: sequence,
        execUnseen: false,
        enterSubject: "",
        cut: false,
      },
    },
  };
}

/** An event of an exec that was let happen, or killed, or started by the loader. */
export function executed(
  sequence: number,
  fields: Partial<ExecEvent> = {},
  process: Partial<Process> = {},
): Event {
  const value = ExecEvent.fromPartial({
    execId: `exec-${sequence}`,
    fileId: "1:2",
    verified: true,
    executable: "/usr/bin/git",
    argv: ["git", "push"],
    argc: 2,
    cwd: "/workspace",
    ...fields,
  });
  const own = { execId: value.execId, executable: value.executable, ancestors: [], ...process };
  return { ...denied(sequence), process: processOf(own), kind: { $case: "exec", value } };
}

/** An event of the end of a process. */
export function ended(
  sequence: number,
  fields: Partial<ExitEvent> = {},
  process: Partial<Process> = {},
): Event {
  const value = ExitEvent.fromPartial({
    execId: "exec-1",
    exit: { code: 0, signal: 0 },
    startedUs: 1_000_000,
    endedUs: 1_000_000 + sequence,
    ...fields,
  });
  return {
    ...denied(sequence),
    process: processOf({ execId: value.execId, ...process }),
    kind: { $case: "exit", value },
  };
}
