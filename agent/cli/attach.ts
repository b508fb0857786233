/** A command's stdin, stdout and stderr, carried between this process and its sandbox. */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { ControlClient } from "../../proto/gen/clawsec/v1/control.js";
import type { AttachInput, AttachOutput, ExitStatus } from "../../proto/gen/clawsec/v1/loader.js";
import type { ForwardedSignals } from "./signals.js";

/** Whoever read our output has closed it. */
export class ReaderGone extends Error {
  constructor() {
    super("Nobody reads the output any more.");
    this.name = "ReaderGone";
  }
}

export interface AttachOptions {
  readonly name: string;
  readonly terminal: boolean;
  readonly signals: ForwardedSignals;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

/** Attaches until the command has ended; resolves with how it ended. */
export function attach(client: ControlClient, options: AttachOptions): Promise<ExitStatus> {
  const stream: ClientDuplexStream<AttachInput, AttachOutput> = client.attachSandbox();
  const send = (input: Partial<AttachInput>) => {
    const empty = { name: "", stdin: Buffer.alloc(0), stdinEof: false, resize: undefined, signal: 0 };
    return stream.write({ ...empty, ...input });
  };
  const { stdin, stdout, stderr, terminal, signals } = options;
  const size = () => ({ rows: stdout.rows ?? 24, columns: stdout.columns ?? 80 });
  send({ name: options.name, resize: terminal ? size() : undefined });

  const onStdin = (chunk: Buffer) => {
    if (!send({ stdin: chunk })) {
      stdin.pause();
      stream.once("drain", () => stdin.resume());
    }
  };
  const onStdinEnd = () => send({ stdinEof: true });
  const onResize = () => send({ resize: size() });

  stdin.on("data", onStdin);
  stdin.once("end", onStdinEnd);
  signals.to((signal) => send({ signal }));
  const raw = terminal && stdin.isTTY;
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
