/** A command's stdin, stdout and stderr, carried between this process and its sandbox. */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { ControlClient } from "../../proto/gen/clawsec/v1/control.js";
import {
  AttachInput,
  type AttachOutput,
  type ExecStart,
  type ExitStatus,
} from "../../proto/gen/clawsec/v1/loader.js";
import type { ForwardedSignals } from "./signals.js";

/** Whoever read our output has closed it. */
export class ReaderGone extends Error {
  constructor() {
    super("Nobody reads the output any more.");
    this.name = "ReaderGone";
  }
}

/** A signal came that the command could not be told, because it does not read its input. It is ended instead. */
export class Interrupted extends Error {
  readonly signal: number;

  constructor(signal: number) {
    super("The command was ended: it did not read its input, behind which the signal waited.");
    this.name = "Interrupted";
    this.signal = signal;
  }
}

export interface AttachOptions {
  readonly name: string;
  readonly terminal: boolean;
  readonly signals: ForwardedSignals;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  /** Not the main command, but one more. */
  readonly exec?: {
    readonly start: ExecStart;
    /** Passes standard input on; else the command has none. */
    readonly interactive: boolean;
    /** It was forked; what becomes of it is its own from now on. */
    started(): void;
    /** A sentence of the supervisor's. */
    notice(text: string): void;
  };
}

/** Attaches until the command has ended; resolves with how it ended. */
export function attach(client: ControlClient, options: AttachOptions): Promise<ExitStatus> {
  const stream: ClientDuplexStream<AttachInput, AttachOutput> =
    options.exec === undefined ? client.attachSandbox() : client.exec();
  const send = (input: Partial<AttachInput>) => {
    return stream.write(AttachInput.fromPartial(input));
  };
  const { stdin, stdout, stderr, terminal, signals } = options;
  const interactive = options.exec?.interactive ?? true;
  const size = () => ({ rows: stdout.rows ?? 24, columns: stdout.columns ?? 80 });
  const resize = terminal ? size() : undefined;
  send({ name: options.name, resize, exec: options.exec?.start, stdinEof: !interactive });

  const onStdin = (chunk: Buffer) => {
    if (!send({ stdin: chunk })) {
      stdin.pause();
      stream.once("drain", () => stdin.resume());
    }
  };
  const onStdinEnd = () => send({ stdinEof: true });
  const onResize = () => send({ resize: size() });

  if (interactive) {
    stdin.on("data", onStdin);
    stdin.once("end", onStdinEnd);
  }
  const raw = terminal && interactive && stdin.isTTY;
  if (raw) stdin.setRawMode(true);
  if (terminal) stdout.on("resize", onResize);

  const restore = () => {
    stdin.off("data", onStdin);
    stdin.off("end", onStdinEnd);
    stdin.pause();
    if (raw) stdin.setRawMode(false);
    if (terminal) stdout.off("resize", onResize);
  };

  return new Promise<ExitStatus>((resolve, reject) => {
    let exit: ExitStatus | undefined;
    // A reader that closed its end (clawsec run -- cmd | head): the command is told by the end of the attachment.
    const onBroken = () => {
      stream.cancel();
      reject(new ReaderGone());
    };
    stdout.once("error", onBroken);
    stderr.once("error", onBroken);
    signals.to((signal) => {
      if (stream.writableNeedDrain) {
        reject(new Interrupted(signal));
        stream.cancel();
      } else {
        send({ signal });
      }
    });
    const write = (to: NodeJS.WriteStream, bytes: Buffer) => {
      if (to.write(bytes)) return;
      stream.pause();
      to.once("drain", () => stream.resume());
    };
    stream.on("data", ({ output }: AttachOutput) => {
      switch (output?.$case) {
        case "stdout":
          write(stdout, output.value);
          break;
        case "stderr":
          write(stderr, output.value);
          break;
        case "exit":
          exit = output.value;
          stream.end();
          break;
        case "started":
          options.exec?.started();
          break;
        case "notice":
          options.exec?.notice(output.value);
          break;
        default:
      }
    });
    stream.on("end", () => {
      if (exit === undefined) reject(new Error("The attachment ended before the command did."));
      else resolve(exit);
    });
    stream.on("error", (error) => {
      if (exit === undefined) reject(error);
      else resolve(exit);
    });
  }).finally(restore);
}
