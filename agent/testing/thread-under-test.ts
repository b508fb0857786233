/** A thread that does what a test says: it answers, fails, stands still, or ends. */
import { parentPort, workerData } from "node:worker_threads";
import { type Asked, answer, started } from "../common/thread.js";

export type TestRequest =
  | { readonly kind: "echo"; readonly text: string }
  | { readonly kind: "fail"; readonly why: string }
  | { readonly kind: "stand-still"; readonly until: SharedArrayBuffer }
  | { readonly kind: "end"; readonly code: number }
  | { readonly kind: "throw"; readonly why: string };

export interface TestData {
  readonly name: string;
  readonly refuse?: string;
}

const { name, refuse } = workerData as TestData;
if (refuse !== undefined) throw new Error(refuse);
const port = parentPort;
if (port === null) throw new Error("This is a thread.");
const told: string[] = [];

port.on("message", ({ id, request }: Asked<TestRequest>) => {
  // Neither is answered: the thread ends by it.
  if (request.kind === "end") process.exit(request.code);
  if (request.kind === "throw") throw new Error(request.why);
  answer(port, id, () => {
    switch (request.kind) {
      case "echo":
        told.push(request.text);
        return { value: told.join(" ") };
      case "fail":
        throw new Error(request.why);
      case "stand-still":
        Atomics.wait(new Int32Array(request.until), 0, 0);
        return { value: undefined };
    }
  });
});
started(port, `${name} has started`);
