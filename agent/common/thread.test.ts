/** Requests to a thread are answered once each, whatever becomes of the thread. */
import { afterEach, expect, test } from "vitest";
import type { TestData, TestRequest } from "../testing/thread-under-test.js";
import { Thread } from "./thread.js";

const file = new URL("../testing/thread-under-test.js", import.meta.url);
const END: TestRequest = { kind: "echo", text: "the end" };
let threads: Thread<TestRequest>[] = [];
afterEach(async () => {
  await Promise.all(threads.map((thread) => thread.close(END)));
  threads = [];
});

function make(fields: { data?: () => TestData; patienceMs?: number; died?: (error: Error) => void } = {}) {
  const thread = new Thread<TestRequest>({ name: "it", file, data: () => ({ name: "it" }), ...fields });
  threads.push(thread);
  return thread;
}
const echo = (text: string): TestRequest => ({ kind: "echo", text });

test("answers in order, and an error with its words", async () => {
  const thread = make();
  expect(await thread.start()).toBe("it has started");
  const answers = [thread.ask(echo("a")), thread.ask({ kind: "fail", why: "no" }), thread.ask(echo("b"))];
  thread.tell(echo("told"));
  expect(await Promise.allSettled(answers)).toMatchObject([
    { value: "a" },
    { reason: { message: "no" } },
    { value: "a b" },
  ]);
  expect(await thread.ask(echo("c"))).toBe("a b told c");
});

test.each<[string, TestRequest, string]>([
  ["ends", { kind: "end", code: 3 }, "it has ended: exit code 3"],
  ["throws", { kind: "throw", why: "out of wits" }, "it has ended: out of wits"],
])(
  "a thread that %s fails all that waits, says so, and is started again by the next request",
  async (_, request, why) => {
    const died: string[] = [];
    const thread = make({ died: ({ message }) => died.push(message) });
    const waiting = [thread.ask(echo("a")), thread.ask(request), thread.ask(echo("b"))];
    expect(await Promise.allSettled(waiting)).toMatchObject([
      { value: "a" },
      { reason: { message: why } },
      { reason: { message: why } },
    ]);
    expect(died).toEqual([why]);
    expect(await thread.ask(echo("c"))).toBe("c");
  },
);

test("a thread that cannot start says why, and is tried again with the data of then", async () => {
  let refuse: string | undefined = "no database here";
  const thread = make({ data: () => (refuse === undefined ? { name: "it" } : { name: "it", refuse }) });
  await expect(thread.start()).rejects.toThrow(/^no database here$/);
  await expect(thread.ask(echo("a"))).rejects.toThrow("it has ended: no database here");
  refuse = undefined;
  expect(await thread.ask(echo("b"))).toBe("b");
});

test("one that stands still fails what waits and what comes, and is asked again when it goes on", async () => {
  const thread = make({ patienceMs: 300 });
  await thread.start();
  const until = new SharedArrayBuffer(4);
  const waiting = [thread.ask({ kind: "stand-still", until }), thread.ask(echo("a"))];
  for (const each of await Promise.allSettled(waiting)) {
    expect(each).toMatchObject({ reason: { message: "it has not answered for 300 ms" } });
  }
  await expect(thread.ask(echo("b"))).rejects.toThrow("has not answered");
  Atomics.store(new Int32Array(until), 0, 1);
  Atomics.notify(new Int32Array(until), 0);
  let answer: unknown;
  while (answer === undefined) {
    answer = await thread.ask(echo("c")).catch(() => new Promise((resolve) => setTimeout(resolve, 10)));
  }
  // What failed was done all the same, in its turn.
  expect(answer).toBe("a c");
});

test("closes after what was asked before, and takes nothing more", async () => {
  const thread = make();
  const answers = Array.from({ length: 100 }, (_, index) => thread.ask<string>(echo(`${index}`)));
  const closed = thread.close(END);
  await expect(thread.ask(echo("late"))).rejects.toThrow("it is closed");
  await closed;
  expect((await Promise.all(answers)).at(-1)?.split(" ")).toHaveLength(100);
});

test("one that stands still is ended by closing it", async () => {
  const thread = make({ patienceMs: 100 });
  await thread.start();
  const waiting = thread.ask({ kind: "stand-still", until: new SharedArrayBuffer(4) });
  await Promise.all([expect(waiting).rejects.toThrow("has not answered"), thread.close(END)]);
});
