/** What `run` carries between its caller and the command. */
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { AttachInput } from "../../proto/gen/clawsec/v1/loader.js";
import { World } from "../testing/world.js";
import { type AttachOptions, attach, ReaderGone } from "./attach.js";
import { ForwardedSignals } from "./signals.js";

let world: World;
let signals: ForwardedSignals;
let inputs: AttachInput[];
beforeEach(async () => {
  world = new World();
  await world.start();
  signals = new ForwardedSignals();
  inputs = [];
});
afterEach(async () => {
  signals.release();
  await world.end();
});

/** Streams in memory with what attach needs of a terminal's. */
function streams() {
  const stdin = Object.assign(new PassThrough(), { isTTY: false });
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const options = {
    name: "box",
    terminal: false,
    signals,
    stdin,
    stdout,
    stderr,
  } as unknown as AttachOptions;
  return { stdin, stdout, stderr, options };
}

/** The loader's side: says both, waits for `until`, ends with `code`. */
function command(code: number, until: (input: AttachInput) => boolean): void {
  world.loader.attached = (call) => {
    call.on("error", () => undefined);
    call.write({ output: { $case: "stdout", value: Buffer.from("out") } });
    call.write({ output: { $case: "stderr", value: Buffer.from("err") } });
    call.on("data", (input: AttachInput) => {
      inputs.push(input);
      if (!until(input)) return;
      call.write({ output: { $case: "exit", value: { code, signal: 0 } } });
      call.end();
    });
  };
}

test("stdout and stderr stay apart, stdin ends where the caller's ends, and the exit code is the command's", async () => {
  command(42, ({ stdinEof }) => stdinEof);
  const { stdin, stdout, stderr, options } = streams();
  stdin.end("in");
  expect(await attach(world.control, options)).toEqual({ code: 42, signal: 0 });
  expect(stdout.read()?.toString()).toBe("out");
  expect(stderr.read()?.toString()).toBe("err");
  expect(inputs[0]?.name).toBe("box");
  expect(Buffer.concat(inputs.map((input) => input.stdin)).toString()).toBe("in");
});

test("a signal goes to the command and not to us, also one that came before there was a command", async () => {
  process.emit("SIGHUP");
  expect(signals.end).toBe(1);
  command(130, ({ signal }) => signal === 2);
  const { options } = streams();
  const ended = attach(world.control, options);
  await world.loader.until(() => inputs.some(({ signal }) => signal === 1));
  process.emit("SIGINT");
  expect((await ended).code).toBe(130);
});

test("a reader of stdout that went away ends the attachment instead of hanging it", async () => {
  command(0, () => false);
  const { stdout, options } = streams();
  const ended = attach(world.control, options);
  stdout.destroy(new Error("EPIPE"));
  await expect(ended).rejects.toThrow(ReaderGone);
});

test("a loader that dies is an error, not an exit code", async () => {
  command(0, () => false);
  const { options } = streams();
  const ended = attach(world.control, options);
  await world.loader.until(() => inputs.length > 0);
  world.loader.stop();
  await expect(ended).rejects.toThrow();
});
