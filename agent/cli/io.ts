/** What a command reads and writes, so that tests can give it their own. */
import { escapedJson } from "../common/escape.js";
import { sentence } from "../common/grpc.js";
import { type Paths, pathsOf } from "../common/paths.js";
import { readWithout } from "../common/without.js";
import { CliError, Exit } from "./exit-codes.js";

export interface Io {
  readonly stdout: {
    write(text: string | Uint8Array): unknown;
    readonly isTTY?: boolean;
    readonly columns?: number;
  };
  readonly stderr: { write(text: string | Uint8Array): unknown; readonly isTTY?: boolean };
  readonly environment: NodeJS.ProcessEnv;
  readonly paths: Paths;
  /** Aborted when the user wants to leave (for commands that follow). */
  readonly signal?: AbortSignal;
  /** The exit code of the command that ran last. */
  exit: number;
}

/** The real thing. */
export function processIo(): Io {
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    environment: process.env,
    paths: pathsOf(),
    exit: 0,
  };
}

/**
 * What a loader that is started here leaves unused: what an option names, or CLAWSEC_WITHOUT. Nothing where neither says
 * anything: a loader that runs is then taken as it is. Throws a sentence.
 */
export function withoutOf(io: Io, named: string[] | undefined): { without?: string[] } {
  const variable = io.environment.CLAWSEC_WITHOUT ?? "";
  if (named !== undefined) return { without: named };
  if (variable === "") return {};
  try {
    return { without: readWithout(variable) };
  } catch (error) {
    throw new CliError(Exit.usage, `CLAWSEC_WITHOUT: ${sentence(error)}`);
  }
}

/** One JSON document, or one line of a stream. Text from a sandbox in it is escaped for terminals, the value is the same. */
export function printJson(io: Io, value: unknown): void {
  io.stdout.write(`${escapedJson(value)}\n`);
}

export function print(io: Io, text: string): void {
  io.stdout.write(`${text}\n`);
}

/** For people, to standard error. */
export function say(io: Io, text: string): void {
  io.stderr.write(`clawsec: ${text}\n`);
}

export type Colour = "red" | "green" | "yellow" | "dim" | "bold";
const SGR: Record<Colour, [number, number]> = {
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  dim: [2, 22],
  bold: [1, 22],
};

/** Colours text on a terminal, unless NO_COLOR (no-color.org) is set. */
export function colour(io: Io, name: Colour, text: string): string {
  const wanted = io.stdout.isTTY === true && !io.environment.NO_COLOR && io.environment.TERM !== "dumb";
  const [on, off] = SGR[name];
  return wanted ? `\u001b[${on}m${text}\u001b[${off}m` : text;
}

/** Verdicts, states and outcomes in their colours. */
export function colourWord(io: Io, word: string): string {
  switch (word) {
    case "allow":
    case "allowed":
    case "running":
    case "healthy":
    case "present":
      return colour(io, "green", word);
    case "deny":
    case "denied":
    case "killed":
    case "unhealthy":
    case "missing":
    case "MISSING":
      return colour(io, "red", word);
    case "hold":
    case "open":
    case "expired":
    case "requester gone":
      return colour(io, "yellow", word);
    default:
      return word;
  }
}
