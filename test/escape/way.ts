// A way out of a sandbox: what is tried, what would show that it worked, and what should stop it.

/** Who tries it, in a sandbox of the pack. */
export type Subject = "gateway" | "broker" | "tool";

/** A small program. `call` is a way of programs/*.c, `sh` a script of a tool's shell, `js` code in Node's own process. */
export type Program =
  | { readonly kind: "call"; readonly text: string }
  | { readonly kind: "sh"; readonly text: string }
  | { readonly kind: "js"; readonly text: string };

/** Files that must be neither read nor changed; each try has one of its own. */
export type Victim =
  /** On a mount that is read-only. */
  | "read-only"
  /** The agent's own file in a writable mount, denied to be written by a rule. */
  | "locked"
  /** In a folder that a rule takes out of view. */
  | "masked"
  /** Each open of it is asked about, and denied. */
  | "guarded";

/** What shows that a way worked. Never an error code: what is there afterwards, or what came out. */
export type Effect =
  /** A program that a rule denies has run: it wrote the try's token into a file. */
  | { readonly kind: "ran" }
  /** The words of something that is not to be read are in the output. */
  | {
      readonly kind: "read";
      readonly what: "victim" | "secret" | "outside" | "host environment" | "gateway environment";
    }
  /** The victim is not what it was. */
  | { readonly kind: "changed" }
  /** A packet with the try's token, or for its port, came to a test host. */
  | { readonly kind: "sent" }
  /** A listener of the host, or of the gateway, or the gateway's memory, got the token. */
  | { readonly kind: "heard"; readonly by: "host" | "gateway" }
  /** The program saw the effect itself, read it back, and said so. */
  | { readonly kind: "shown" }
  /** A file was written in a folder of the host that is not in the sandbox. */
  | { readonly kind: "written" };

/** In which container without clawsec the same program must have the effect. */
export type Control =
  /** As the sandbox's user; all files are there, and writable. */
  | "plain"
  /** As root with all capabilities; masks and read-only mounts are there as in the sandbox. */
  | "root";

export interface Way {
  readonly id: string;
  /** What is tried, in a few words. */
  readonly tries: string;
  /** What should stop it. */
  readonly layer: string;
  readonly program: Program;
  readonly subjects: readonly Subject[];
  readonly effect: Effect;
  readonly victim?: Victim;
  readonly control: Control;
  /** Added to the environment of the program. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Whose loopback port LOOPBACK is; the gateway's where nothing is said. */
  readonly loopback?: "host" | "gateway";
  /** SOCKET is this one of clawsec's own. */
  readonly service?: "control.sock" | "loader.sock";
  readonly timeoutMs?: number;
  /** A way of programs/probe.c: where this kernel does not have it, there is nothing to try. */
  readonly needs?: string;
}

export interface Family {
  readonly name: string;
  readonly ways: readonly Way[];
}

type Rest = Partial<
  Pick<
    Way,
    "subjects" | "victim" | "control" | "environment" | "loopback" | "timeoutMs" | "needs" | "service"
  >
>;

const TOOL: readonly Subject[] = ["tool"];
const BOTH: readonly Subject[] = ["tool", "gateway"];

/** A way of programs/*.c, tried by a tool and in the gateway's process. */
export function call(
  id: string,
  tries: string,
  layer: string,
  effect: Effect,
  rest: Rest & { readonly name?: string } = {},
): Way {
  const { name = id, ...others } = rest;
  return {
    id,
    tries,
    layer,
    effect,
    program: { kind: "call", text: name },
    subjects: BOTH,
    control: "plain",
    ...others,
  };
}

/** A script of a tool's shell. */
export function sh(
  id: string,
  tries: string,
  layer: string,
  effect: Effect,
  text: string,
  rest: Rest = {},
): Way {
  return {
    id,
    tries,
    layer,
    effect,
    program: { kind: "sh", text },
    subjects: TOOL,
    control: "plain",
    ...rest,
  };
}

/** Code in the process of the gateway, or of the broker. */
export function js(
  id: string,
  tries: string,
  layer: string,
  effect: Effect,
  text: string,
  rest: Rest = {},
): Way {
  return {
    id,
    tries,
    layer,
    effect,
    program: { kind: "js", text },
    subjects: ["gateway"],
    control: "plain",
    ...rest,
  };
}

export const ran: Effect = { kind: "ran" };
export const changed: Effect = { kind: "changed" };
export const sent: Effect = { kind: "sent" };
export const shown: Effect = { kind: "shown" };
export const written: Effect = { kind: "written" };
export const read = (
  what: "victim" | "secret" | "outside" | "host environment" | "gateway environment",
): Effect => ({
  kind: "read",
  what,
});
export const heard = (by: "host" | "gateway"): Effect => ({ kind: "heard", by });
