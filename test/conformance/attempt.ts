// One action of a conformance run: what the driver is told to do, and what is meant by it.

import type { ExecAction, FileAction, NetworkAction } from "../../proto/gen/clawsec/v1/loader.js";

/** The fields of the driver's line; see driver/driver.h. */
export interface DriverCall {
  readonly operation: string;
  readonly how?: string;
  readonly via?: string;
  readonly path?: string;
  readonly target?: string;
  readonly dir?: string;
  readonly cwd?: string;
  readonly source?: string;
  readonly host?: string;
  readonly address?: string;
  readonly port?: number;
  readonly payload?: Uint8Array;
  readonly argv?: readonly Uint8Array[];
  /** A file that the arguments of an exec name, and how it is made or given (driver/script.c). */
  readonly script?: string;
  readonly as?: string;
  /** Variables of the environment of an exec, as they are ("NAME=value"); with `inherit` behind those of the driver. */
  readonly env?: readonly string[];
  readonly inherit?: boolean;
}

/** A program that is to run. */
export interface MeantExec {
  readonly kind: "exec";
  readonly facts: ExecAction;
  /** Files that the kernel opens to execute: the named one, interpreters. Only those with a name in the sandbox. */
  readonly opened: readonly string[];
  /** What /proc/self/exe is in the new image. */
  readonly image: string;
  /** Arguments as the new image sees them; undefined where an interpreter changes them. */
  readonly argv: readonly Uint8Array[] | undefined;
  /** What it is to read, if it is an interpreter, in this order; `undefined` among them: what cannot be read. */
  readonly reads: readonly (string | undefined)[];
  /** The first of them, where nothing keeps the image from reading what it has put in its place. */
  readonly swapped: string | undefined;
  /** Its scripts, and where their names begin to be looked up. */
  readonly through: readonly string[];
  /** It is refused before anybody is asked. */
  readonly isRefused: boolean;
}

export type FileIntent =
  | "read"
  | "write"
  | "append"
  | "otrunc"
  | "create"
  | "delete"
  | "rename"
  | "link"
  | "truncate"
  | "chmod";

/** Something that is to be done to a file that no other attempt uses. */
export interface MeantFile {
  readonly kind: "file";
  readonly intent: FileIntent;
  readonly facts: FileAction;
  readonly path: string;
  readonly target: string;
  readonly payload: string;
}

/** A connection that is to be made. */
export interface MeantConnection {
  readonly kind: "connection";
  readonly facts: NetworkAction;
  /** The look-up that comes first, where a name is dialled. */
  readonly lookup: NetworkAction | undefined;
  /** Where it leads, as the policy's resolver has it. */
  readonly address: string;
}

export interface MeantDatagram {
  readonly kind: "datagram";
  readonly facts: NetworkAction;
}

/** A connection to 127.0.0.1 inside the sandbox. */
export interface MeantLoopback {
  readonly kind: "loopback";
  readonly port: number;
}

export type Meant = MeantExec | MeantFile | MeantConnection | MeantDatagram | MeantLoopback;

export interface Attempt {
  /** Unique in a run, at most 14 characters: it is part of a thread's name. */
  readonly id: string;
  readonly subject: string;
  readonly call: DriverCall;
  readonly meant: Meant;
  /** What a person says when it is held. */
  readonly answer: "allow" | "deny";
}

function hex(value: string | Uint8Array): string {
  return Buffer.from(value).toString("hex");
}

/** The line that the driver reads. */
export function driverLine({ id, subject, call }: Attempt): string {
  const { operation, argv, port, env, inherit, ...texts } = call;
  const fields = Object.entries(texts).map(([key, value]) => `${key}=${hex(value)}`);
  if (port !== undefined) fields.push(`port=${hex(String(port))}`);
  if (argv !== undefined && argv.length > 0) fields.push(`argv=${argv.map(hex).join(",")}`);
  if (env !== undefined && env.length > 0) fields.push(`env=${env.map(hex).join(",")}`);
  if (inherit) fields.push(`inherit=${hex("1")}`);
  return [id, subject, operation, ...fields].join(" ");
}

/** What the driver says about one action. */
export interface DriverAnswer {
  readonly id: string;
  readonly status: string;
  readonly number: number;
  readonly out: Buffer;
  readonly err: string;
}

/** Reads a line of the driver. @throws when it is none. */
export function readAnswer(line: string): DriverAnswer {
  const [id, status, number, out, err, start, end] = line.split(" ");
  if (!id || !status || !out || !err || !start || !end) throw new Error(`The driver said: ${line}`);
  const bytes = (text: string) => (text === "-" ? Buffer.alloc(0) : Buffer.from(text, "hex"));
  return { id, status, number: Number(number), out: bytes(out), err: bytes(err).toString() };
}
