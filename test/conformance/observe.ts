// From what the driver said and what is there afterwards to whether the action happened.

import { readFileSync, statSync } from "node:fs";
import type { Attempt, DriverAnswer, MeantConnection, MeantExec, MeantFile } from "./attempt.js";
import { hashOf } from "./expected.js";
import { contentOf, hostPath, type Place } from "./world.js";

interface Effect {
  readonly happened: boolean;
  readonly wrong: string;
  readonly reads?: readonly string[];
}

const NOTHING: Effect = { happened: false, wrong: "" };

/** What there is of an attempt, once the driver has answered. */
export function effectOf(place: Place, { meant }: Attempt, answer: DriverAnswer): Effect {
  switch (meant.kind) {
    case "exec":
      return execEffect(meant, answer);
    case "file":
      return { happened: fileEffect(place, meant, answer), wrong: "" };
    case "connection":
      return connectionEffect(meant, answer);
    case "datagram":
      return { happened: answer.out.length > 0, wrong: "" };
    case "loopback":
      return { happened: answer.out.toString() === "loop\n", wrong: "" };
  }
}

/** Of all arguments with the zero that ends each, as token.c has it. */
export function hashOfArguments(argv: readonly Uint8Array[]): string {
  return hashOf(Buffer.concat(argv.flatMap((argument) => [argument, Buffer.alloc(1)])));
}

function execEffect(meant: MeantExec, answer: DriverAnswer): Effect {
  const said = /^RAN (\d+) ([0-9a-f]{8}) (.*)\n((?:READ (?:[0-9a-f]{8}|-)\n)*)$/.exec(answer.out.toString());
  if (said === null) {
    if (answer.out.length > 0) return { happened: true, wrong: `something else ran: ${answer.out}` };
    return answer.status === "exit" && answer.number === 0
      ? { happened: false, wrong: "a program ended well without a word" }
      : NOTHING;
  }
  const [, count, hash, image, read = ""] = said;
  const reads = read.split("\n").flatMap((line) => line.split(" ").slice(1));
  const asMeant = meant.argv;
  const wrong = (why: string) => ({ happened: true, wrong: why, reads });
  if (answer.status !== "exit" || answer.number !== 0)
    return wrong(`it ended with ${answer.status} ${answer.number}`);
  if (image !== meant.image) return wrong(`the image must be ${meant.image} and is ${image}`);
  if (asMeant !== undefined && (Number(count) !== asMeant.length || hash !== hashOfArguments(asMeant)))
    return wrong(`the image got other arguments (${count}) than were given (${asMeant.length})`);
  return { happened: true, wrong: "", reads };
}

function connectionEffect(meant: MeantConnection, answer: DriverAnswer): Effect {
  const text = answer.out.toString("latin1");
  const reached = /hello from ([0-9.]+):(\d+)/.exec(text);
  if (reached === null) return NOTHING;
  const [, address, port] = reached;
  const asMeant = address === meant.address && Number(port) === meant.facts.port;
  const wrong = asMeant
    ? ""
    : `it reached ${address}:${port}, and ${meant.address}:${meant.facts.port} was meant`;
  return { happened: true, wrong };
}

function content(place: Place, path: string): string | undefined {
  try {
    return readFileSync(hostPath(place, path), "utf8");
  } catch {
    return undefined;
  }
}

/** On the host, where no mount of the sandbox hides anything. */
function fileEffect(place: Place, meant: MeantFile, answer: DriverAnswer): boolean {
  const { intent, path, target, payload } = meant;
  const before = contentOf(path);
  switch (intent) {
    case "read":
      return answer.out.toString() === before;
    case "write":
    case "append":
    case "otrunc":
    case "truncate":
      return content(place, path) !== before;
    case "create":
      return content(place, path) === payload;
    case "delete":
      return content(place, path) === undefined;
    case "rename":
      return content(place, path) === undefined || content(place, target) !== undefined;
    case "link":
      return content(place, target) !== undefined;
    case "chmod":
      return (statSync(hostPath(place, path)).mode & 0o777) !== 0o640;
  }
}
