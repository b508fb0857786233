/** What `run` carries between its caller and the command. */
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { QueryAuditRequest, RunRequest } from "../../proto/gen/clawsec/v1/control.js";
import type { AttachInput } from "../../proto/gen/clawsec/v1/loader.js";
import { call } from "../common/grpc.js";
import { World } from "../testing/world.js";
import { type AttachOptions, attach, Interrupted, ReaderGone } from "./attach.js";
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

async function run(): Promise<void> {
  const request = RunRequest.fromPartial({
    policyPath: world.policy(['{ id: rest, executable: "/usr/bin/**", action: allow }']),
    detached: true,
  });
  await call(world.control, world.control.run, request, 10_000);
}

/** One more command: `answer` is the loader's side. */
function exec(answer: (call: Parameters<typeof world.loader.executed>[0]) => void, interactive = true) {
  world.loader.executed = (call) => {
    call.on("error", () => undefined);
    answer(call);
  };
  const told: string[] = [];
  const start = { args: ["/usr/bin/id"], subject: "", terminal: false, term: "" };
  const notice = (text: string) => void told.push(text);
  const { options, stdin } = streams();
  return {
    told,
    stdin,
    options: { ...options, exec: { start, interactive, started: () => notice("started"), notice } },
  };
}

test("one more command is asked for by name and written down with who asked, before and after", async () => {
  await run();
  const { options, told } = exec((call) => {
    call.on("data", (input: AttachInput) => inputs.push(input));
    call.write({ output: { $case: "started", value: { pid: 5, sandboxPid: 2 } } });
    call.write({ output: { $case: "exit", value: { code: 3, signal: 0 } } });
    call.end();
  }, false);
  expect(await attach(world.control, options)).toEqual({ code: 3, signal: 0 });
  expect(told).toEqual(["started"]);
  expect(inputs[0]).toMatchObject({ name: "box", stdinEof: true, exec: { args: ["/usr/bin/id"] } });
  const query = QueryAuditRequest.fromPartial({ kinds: ["sandbox"], text: "/usr/bin/id" });
  const { records } = await call(world.control, world.control.queryAudit, query);
  expect(records.map(({ summary }) => summary.replace(/uid \d+ \(\w+\)/, "WHO"))).toEqual([
    "command of WHO asked for with clawsec exec [/usr/bin/id]",
    "command of WHO ended with code 3 [/usr/bin/id]",
  ]);
});

test("a signal that cannot get past what the command does not read ends the command", async () => {
  await run();
  const { options, stdin } = exec((call) => {
    call.pause();
    call.write({ output: { $case: "started", value: { pid: 5, sandboxPid: 2 } } });
  });
  const ended = attach(world.control, options);
  // More than what is buffered on the way.
  for (let at = 0; at < 200; at++) stdin.write(Buffer.alloc(65_536));
  await world.loader.until(() => stdin.isPaused());
  process.emit("SIGINT");
  await expect(ended).rejects.toThrow(Interrupted);
});

test("a signal that cannot get past what the main command does not read ends the attachment", async () => {
  world.loader.attached = (call) => {
    call.on("error", () => undefined);
    call.pause();
    call.write({ output: { $case: "attached", value: true } });
  };
  const { stdin, options } = streams();
  const ended = attach(world.control, options);
  for (let at = 0; at < 200; at++) stdin.write(Buffer.alloc(65_536));
  await world.loader.until(() => stdin.isPaused());
  process.emit("SIGINT");
  await expect(ended).rejects.toThrow(Interrupted);
});
