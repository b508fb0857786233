/** One run of a health check: a command in the sandbox, as `clawsec exec` runs one, so through the same exec gate. */
import { status } from "@grpc/grpc-js";
import type { HealthCheck } from "../../../policy/index.js";
import {
  AttachInput,
  type AttachOutput,
  type ExitStatus,
  type LoaderClient,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeTo } from "../../common/escape.js";
import { isServiceError, sentence } from "../../common/grpc.js";

/** A rule that denied an exec, and what it says. */
export interface Denial {
  readonly rule: string;
  readonly message: string;
}

/** What came of a check. `why`: a sentence without its dot, escaped. `void`: nothing was checked. */
export type Outcome =
  | { readonly kind: "passed" }
  | { readonly kind: "void" }
  | { readonly kind: "failed"; readonly why: string }
  | { readonly kind: "denied"; readonly rule: string; readonly why: string };

/** What the run of a check asks of the supervisor. Processes by their pid on the host. */
export interface Surroundings {
  /** The denial of an exec of this process, when one was told since the check began. */
  denied(pid: number): Denial | undefined;
  /** The rule that holds an exec of this process now. */
  heldBy(pid: number): string | undefined;
}

/** End of the output that is kept for the sentence about a failure, in bytes. */
const OUTPUT_BYTES = 4096;
/** What the kernel may take to end a killed command. */
const KILL_MS = 5000;
/** The loader tells of an exec in order with others, some milliseconds later than its end. */
const TOLD_MS = 2000;
/** Longest delay of a timer of Node's. */
export const LONGEST_MS = 2 ** 31 - 1;

/** How commands end whose exec was denied (the shim's word for it), and those that were killed when a hold was denied. */
const REFUSED: readonly number[] = [126, 137];

const SIGKILL = 9;
/** Runs a check to its end. Aborting `signal` ends the command, and the outcome is void. Never rejects. */
export async function runCheck(
  loader: LoaderClient,
  sandbox: string,
  check: HealthCheck,
  around: Surroundings,
  signal: AbortSignal,
): Promise<Outcome> {
  let pid = 0;
  let output = Buffer.alloc(0);
  let late: string | undefined;
  let exit: ExitStatus;
  try {
    exit = await new Promise<ExitStatus>((resolve, reject) => {
      const stream = loader.exec();
      const { command, subject } = check;
      const start = { args: [...command], subject, terminal: false, term: "" };
      let killed: NodeJS.Timeout | undefined;
      const timer = setTimeout(
        () => {
          late = lateness(check, around.heldBy(pid));
          stream.write(AttachInput.fromPartial({ signal: SIGKILL }));
          killed = setTimeout(() => stream.cancel(), KILL_MS);
        },
        Math.min(check.timeoutMs, LONGEST_MS),
      );
      const stop = () => stream.cancel();
      const end = () => {
        clearTimeout(timer);
        clearTimeout(killed);
        signal.removeEventListener("abort", stop);
      };
      stream.on("data", ({ output: piece }: AttachOutput) => {
        switch (piece?.$case) {
          case "started":
            pid = piece.value.pid;
            break;
          case "stdout":
          case "stderr":
            output = Buffer.concat([output, piece.value]).subarray(-OUTPUT_BYTES);
            break;
          case "exit":
            end();
            resolve(piece.value);
            stream.end();
            break;
          default:
        }
      });
      stream.on("error", (error) => {
        end();
        reject(error);
      });
      stream.on("end", () => {
        end();
        reject(new Error("the loader ended the command without a word"));
      });
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop);
      stream.write(AttachInput.fromPartial({ name: sandbox, stdinEof: true, exec: start }));
    });
  } catch (error) {
    if (signal.aborted || saysNothing(error, late)) return { kind: "void" };
    return { kind: "failed", why: late ?? `was not run: ${escapeTo(sentence(error), 300)}` };
  }
  if (late !== undefined) return { kind: "failed", why: late };
  if (exit.code === 0) return { kind: "passed" };
  const denial = REFUSED.includes(exit.code) ? await told(() => around.denied(pid), signal) : undefined;
  if (signal.aborted) return { kind: "void" };
  if (denial !== undefined) {
    const { rule, message } = denial;
    const words = message === "" ? "" : `: ${escapeTo(message, 300)}`;
    return { kind: "denied", rule, why: `denied by rule ${escapeTo(rule, 100)}${words}` };
  }
  return { kind: "failed", why: failure(exit, output) };
}

function lateness({ timeoutMs }: HealthCheck, heldBy: string | undefined): string {
  const held = heldBy === undefined ? "" : `, held by rule ${escapeTo(heldBy, 100)} all the time`;
  return `killed after ${timeoutMs / 1000} s${held}`;
}

/** The sandbox or the loader ended meanwhile: that is no fault of what is checked. */
function saysNothing(error: unknown, late: string | undefined): boolean {
  if (!isServiceError(error)) return false;
  const gone = [status.ABORTED, status.FAILED_PRECONDITION, status.NOT_FOUND, status.UNAVAILABLE];
  return gone.includes(error.code) || (error.code === status.CANCELLED && late === undefined);
}

function failure({ code, signal }: ExitStatus, output: Buffer): string {
  const how = signal === 0 ? `ended with code ${code}` : `ended by signal ${signal}`;
  const line = output.toString("utf8").trimEnd().split("\n").at(-1) ?? "";
  return line === "" ? how : `${how}: ${escapeTo(line, 200)}`;
}

/** What `find` finds within the time that an event may take. */
async function told<T>(find: () => T | undefined, signal: AbortSignal): Promise<T | undefined> {
  const until = performance.now() + TOLD_MS;
  for (;;) {
    const found = find();
    if (found !== undefined || signal.aborted || performance.now() > until) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
