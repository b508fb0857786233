/** Reaching the loader: found, started, missing, and one that this host cannot run. What comes from it. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { EventBatch } from "../../../proto/gen/clawsec/v1/loader.js";
import { makeLog } from "../../common/log.js";
import { type Paths, pathsOf } from "../../common/paths.js";
import { denied, question } from "../../testing/questions.js";
import { ScriptedLoader } from "../../testing/scripted-loader.js";
import { LoaderLink, NoLoader } from "./link.js";
import { endLoader, runningLoader, startTimeOf } from "./process.js";

let folder: string;
let paths: Paths;
let link: LoaderLink;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-link-"));
  paths = pathsOf({ CLAWSEC_RUNTIME_DIR: join(folder, "run"), CLAWSEC_STATE_DIR: join(folder, "state") });
  link = new LoaderLink({
    paths,
    log: makeLog({ kind: "none" }),
    spawn: true,
    ingest: () => Promise.resolve(0),
  });
  vi.stubEnv("CLAWSEC_INIT", "/bin/true");
});
afterEach(async () => {
  link.close();
  await endLoader(paths);
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

/** A program in the loader's place. */
function program(script: string): void {
  const path = join(folder, "loader.sh");
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  vi.stubEnv("CLAWSEC_LOADER", path);
}

async function failure(): Promise<NoLoader> {
  try {
    await link.start(1500);
  } catch (error) {
    if (error instanceof NoLoader) return error;
    throw error;
  }
  throw new Error("It started.");
}

test("a loader that says that the host lacks something is told from any other failure, with its words", async () => {
  program("echo no cgroup v2 here >&2; exit 69");
  const error = await failure();
  expect(error.hostCannot).toBe(true);
  expect(error.message).toContain("no cgroup v2 here");
  expect(error.message).toContain("exit code 69");
});

test("a loader that fails otherwise does not blame the host", async () => {
  program("exit 70");
  expect((await failure()).hostCannot).toBe(false);
});

test("a loader that is not built is a sentence with the path and the remedy", async () => {
  vi.stubEnv("CLAWSEC_LOADER", join(folder, "nothing"));
  const { message } = await failure();
  expect(message).toContain(join(folder, "nothing"));
  expect(message).toContain("Set CLAWSEC_LOADER");
});

test("a loader gets its folders and the shim, and its pid is where others find it", async () => {
  program('echo "$CLAWSEC_RUNTIME_DIR $CLAWSEC_SHIM" > "$CLAWSEC_STATE_DIR/seen"; exec sleep 30');
  await failure();
  expect(readFileSync(join(paths.state, "seen"), "utf8")).toMatch(`${paths.runtime} /`);
  const loader = runningLoader(paths);
  expect(loader?.pid).toBe(Number(readFileSync(paths.loaderPid, "utf8")));
  expect(await endLoader(paths)).toBe(true);
  expect(startTimeOf(loader?.pid ?? 0)).toBe(undefined);
});

test("a later process with the loader's pid is not taken for it, and not ended", async () => {
  program("exit 70");
  await failure();
  writeFileSync(paths.loaderPid, `${process.pid}\n`);
  expect(runningLoader(paths)).toBe(undefined);
  expect(await endLoader(paths)).toBe(true);
  expect(startTimeOf(process.pid)).not.toBe(undefined);
});

function linkWithout(without: string[] | undefined): void {
  link.close();
  link = new LoaderLink({
    paths,
    log: makeLog({ kind: "none" }),
    spawn: true,
    without,
    ingest: () => Promise.resolve(0),
  });
}

test("what is to be left unused reaches the loader, and is all that it is told", async () => {
  vi.stubEnv("CLAWSEC_WITHOUT", "raw_tp");
  program('echo "without: ${CLAWSEC_WITHOUT-}" > "$CLAWSEC_STATE_DIR/seen"; exit 70');
  const seen = async (without: string[] | undefined) => {
    linkWithout(without);
    await failure();
    return readFileSync(join(paths.state, "seen"), "utf8");
  };
  expect(await seen(["tp_btf", "wait-killable"])).toBe("without: tp_btf,wait-killable\n");
  expect(await seen([])).toBe("without: \n");
  expect(await seen(undefined)).toBe("without: raw_tp\n");
});

test("a loader that runs already and uses what is to be left unused is refused, and one that does not is taken", async () => {
  program("exit 70");
  const { mkdirSync } = await import("node:fs");
  mkdirSync(paths.runtime);
  const loader = new ScriptedLoader(paths.loaderSocket);
  loader.without = ["tp_btf"];
  await loader.start();
  const start = async (without: string[] | undefined) => {
    linkWithout(without);
    return await link.start(1500);
  };
  for (const without of [["tp_btf"], undefined]) expect((await start(without)).loaderBootId).toBe("boot-1");
  await expect(start(["wait-killable"])).rejects.toThrow(
    "leaves tp_btf unused, and not wait-killable. End it with clawsec down first.",
  );
  await expect(start([])).rejects.toThrow("leaves tp_btf unused, and not nothing");
  link.close();
  loader.stop();
});

test("a loader that runs is used, and none is started beside it", async () => {
  program("exit 70");
  mkdirSync(paths.runtime);
  const loader = new ScriptedLoader(paths.loaderSocket);
  await loader.start();
  expect((await link.start()).loaderBootId).toBe("boot-1");
  expect(link.spawned).toBe(false);
  link.close();
  loader.stop();
});

describe("events", () => {
  let loader: ScriptedLoader;
  let pending: { batch: Uint8Array; done: (sequence: number) => void; fail: (error: Error) => void }[];

  beforeEach(async () => {
    mkdirSync(paths.runtime);
    loader = new ScriptedLoader(paths.loaderSocket);
    await loader.start();
    pending = [];
    const ingest = (_boot: string, batch: Uint8Array) =>
      new Promise<number>((done, fail) => pending.push({ batch, done, fail }));
    link = new LoaderLink({ paths, log: makeLog({ kind: "none" }), spawn: false, ingest });
    await link.start();
  });
  afterEach(() => {
    link.close();
    loader.stop();
  });
  const given = () =>
    pending.map(({ batch }) => EventBatch.decode(batch).events.map(({ sequence }) => sequence));

  test("are handed over one batch at a time, in order, and acknowledged when they are durable, not before", async () => {
    for (const first of [1, 3, 5]) await loader.emit(denied(first), denied(first + 1));
    await loader.until(() => pending.length === 1);
    // A question comes through meanwhile: the stream of events stands still, the connection does not.
    await loader.ask({ $case: "question", value: question(1) });
    await new Promise((resolve) => link.once("message", resolve));
    expect([given(), loader.acks]).toEqual([[[1, 2]], []]);
    for (const upTo of [2, 4, 6]) {
      pending.at(-1)?.done(upTo);
      await loader.until(() => loader.acks.includes(upTo));
      if (upTo < 6) await loader.until(() => pending.length === upTo / 2 + 1);
    }
    expect(given()).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(loader.acks).toEqual([2, 4, 6]);
  });

  test("that cannot be written end the connection with the reason, and nothing is acknowledged", async () => {
    const lost = new Promise((resolve) => link.once("disconnected", resolve));
    await loader.emit(denied(1));
    await loader.until(() => pending.length === 1);
    pending[0]?.fail(new Error("database or disk is full"));
    expect(await lost).toBe("the audit could not be written: database or disk is full");
    expect(loader.acks).toEqual([]);
    await loader.until(() => link.state.kind === "connected");
    await loader.emit(denied(1));
    await loader.until(() => pending.length === 2);
    pending[1]?.done(1);
    await loader.until(() => loader.acks.includes(1));
  });

  test("of a new connection wait for the batch of the one before", async () => {
    await loader.emit(denied(1));
    await loader.until(() => pending.length === 1);
    loader.stop();
    await loader.until(() => link.state.kind === "disconnected");
    loader = new ScriptedLoader(paths.loaderSocket);
    await loader.start();
    await loader.until(() => link.state.kind === "connected");
    await loader.emit(denied(1), denied(2));
    await loader.ask({ $case: "question", value: question(1) });
    await new Promise((resolve) => link.once("message", resolve));
    expect(given()).toEqual([[1]]);
    pending[0]?.done(1);
    await loader.until(() => pending.length === 2);
    pending[1]?.done(2);
    await loader.until(() => loader.acks.length > 0);
    // What the earlier connection brought is not acknowledged on this one.
    expect(loader.acks).toEqual([2]);
  });
});
