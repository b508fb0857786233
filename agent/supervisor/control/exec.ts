/** Exec: one more command in a running sandbox. Written down before it is asked for, and when it is over. */
import { status } from "@grpc/grpc-js";
import { type Hold, HoldChangeKind, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";
import type {
  AttachInput,
  ExecStart,
  ExecStarted,
  ExitStatus,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeArgv, escapeTo } from "../../common/escape.js";
import { Refusal, sentence, statusOf } from "../../common/grpc.js";
import { nowUs } from "../../common/time.js";
import { ownRecord } from "../audit/record.js";
import { finalMessage } from "../holds/outcome.js";
import type { Parts } from "../parts.js";
import { connectedLoader } from "./loader.js";
import { type Caller, relay } from "./relay.js";

export function exec(parts: Parts, call: Caller): void {
  call.once("data", (first: AttachInput) => {
    // What comes behind it waits until the record is made.
    call.pause();
    begin(parts, call, first).catch((error: unknown) => call.emit("error", statusOf(error)));
  });
}

async function begin(parts: Parts, call: Caller, first: AttachInput): Promise<void> {
  const { name, exec: start } = first;
  if (start === undefined) {
    throw new Refusal(status.INVALID_ARGUMENT, "The first message of a command says what to run.");
  }
  const by = await parts.socket.caller(call);
  if (parts.sandboxes.get(name) === undefined) {
    throw new Refusal(status.NOT_FOUND, `There is no sandbox ${escapeTo(name, 60)}. See clawsec ps.`);
  }
  const loader = connectedLoader(parts);
  const note = recorder(parts, name, start, by);
  // A command that cannot be recorded is not run.
  await note("asked for with clawsec exec", {});
  const inner = loader.exec();
  let watching = () => {};
  let over = false;
  const finish = (how: string, facts: object) => {
    watching();
    if (over) return;
    over = true;
    note(how, facts).catch((error: unknown) => {
      parts.log.error(
        { sandbox: name, error: sentence(error) },
        "the end of a command could not be recorded",
      );
    });
  };
  let started: ExecStarted | undefined;
  relay(call, inner, {
    output: ({ output }) => {
      if (output?.$case === "started") {
        started = output.value;
        watching = watchHolds(parts, call, name, output.value.pid);
      }
      if (output?.$case === "exit") finish(endOf(output.value), { ...started, exit: output.value });
    },
    failed: (error) => {
      const what = started === undefined ? "not started" : "ended";
      finish(`${what}: ${sentence(error)}`, { ...started });
    },
    gone: () => finish("ended: its caller is gone", { ...started }),
  });
  inner.write(first);
  call.resume();
}

/** Writes down what happens to a command; durable when what it returns resolves. */
function recorder(parts: Parts, sandbox: string, start: ExecStart, by: string) {
  return (what: string, facts: object) =>
    parts.audit.append(
      ownRecord(
        {
          kind: "sandbox",
          timeUs: nowUs(),
          sandbox,
          subject: start.subject,
          summary: escapeTo(`command of ${by} ${what} [${escapeArgv(start.args)}]`, 500),
        },
        { by, command: start.args, subject: start.subject, terminal: start.terminal, ...facts },
      ),
    );
}

function endOf({ code, signal }: ExitStatus): string {
  return signal === 0 ? `ended with code ${code}` : `ended by signal ${signal}`;
}

/** Tells the caller of the holds of its command's own process, which else would stand still without a word. */
function watchHolds(parts: Parts, call: Caller, sandbox: string, pid: number): () => void {
  const told = new Set<string>();
  const tell = (value: string) => call.write({ output: { $case: "notice", value } });
  const look = (kind: HoldChangeKind, hold: Hold) => {
    if (kind === HoldChangeKind.ENDED) {
      if (hold.outcome !== HoldOutcome.ALLOWED && told.has(hold.id)) {
        tell(`the hold ${hold.id} is over: ${escapeTo(finalMessage(hold), 300)}`);
      }
    } else if (!told.has(hold.id) && hold.sandbox === sandbox && parts.holds.holds(hold.id, pid)) {
      told.add(hold.id);
      const because = hold.because === "" ? "" : ` (${escapeTo(hold.because, 200)})`;
      const answers = `clawsec approve ${hold.id} or clawsec deny ${hold.id}`;
      tell(`the command is held by rule ${escapeTo(hold.rule, 100)}${because}; answer with ${answers}`);
    }
  };
  // The question and the word that it has started come on two streams.
  for (const hold of parts.holds.list(sandbox)) look(HoldChangeKind.OPENED, hold);
  parts.holds.on("change", look);
  return () => parts.holds.off("change", look);
}
