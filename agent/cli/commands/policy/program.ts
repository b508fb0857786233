/** Which file an exec of a name would load in a sandbox, as far as this host's files tell. */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { Policy } from "../../../../policy/index.js";
import { Inside } from "../../../../policy/lint/inside.js";
import { hostView } from "../../../common/host.js";

/** As the sandbox's command has it, where the policy says nothing (policy/lower/oci.ts). */
const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Interpreters that are scripts themselves: as many as the kernel follows. */
const MAX_SCRIPTS = 5;

/** What the kernel would load. */
export interface Program {
  /** Links resolved; for a script its interpreter. */
  readonly executable: string;
  /** The file with the `#!` line; "" for none. */
  readonly script: string;
  /** What had to be taken on trust, for people; "" when nothing had. */
  readonly note: string;
}

/** Finds a program, by name in PATH or by absolute path; a sentence when it cannot be told. */
export function findProgram(policy: Policy, name: string): Program | { readonly error: string } {
  const inside = new Inside(policy, hostView());
  if (name.startsWith("/")) return load(inside, name);
  if (name.includes("/")) {
    return { error: `"${name}" is a relative path. Give the absolute path of the program in the sandbox.` };
  }
  const folders = (policy.sandbox.environment.PATH ?? DEFAULT_PATH)
    .split(":")
    .filter((f) => f.startsWith("/"));
  const unsure: string[] = [];
  for (const folder of folders) {
    const reached = inside.reach(`${folder === "/" ? "" : folder}/${name}`);
    if (reached.state === "found" && reached.kind === "file") {
      const program = load(inside, reached.path);
      if ("error" in program || unsure.length === 0) return program;
      const note = `the sandbox can write ${unsure.join(", ")}, where a program of that name would come first`;
      return { ...program, note: [note, program.note].filter((text) => text !== "").join("; ") };
    }
    if (reached.state === "unknown") unsure.push(folder);
  }
  return {
    error: `"${name}" is not in the sandbox's PATH on this host (${folders.join(":")}). Give the absolute path of the program in the sandbox.`,
  };
}

/** Follows links, and `#!` lines to the interpreter. */
function load(inside: Inside, path: string): Program | { readonly error: string } {
  let script = "";
  let next = path;
  for (let round = 0; round <= MAX_SCRIPTS; round++) {
    const reached = inside.reach(next);
    if (reached.state !== "found") {
      // A path that is written out is an answer by itself; an interpreter that is missing is none.
      if (script !== "") return { error: `The interpreter ${next} of ${script} is not in the sandbox.` };
      const where =
        reached.state === "missing" ? "is not in the sandbox on this host" : "may be made in the sandbox";
      return { executable: path, script: "", note: `${path} ${where}; taken as it is written` };
    }
    if (reached.kind !== "file") return { error: `${reached.path} is no file in the sandbox.` };
    const interpreter = reached.hostPath === "" ? undefined : interpreterOf(reached.hostPath);
    if (interpreter === undefined) return { executable: reached.path, script, note: "" };
    script ||= reached.path;
    next = interpreter;
  }
  return { error: `${script} leads through more than ${MAX_SCRIPTS} scripts.` };
}

/** The program in the `#!` line of a host file; undefined for a file without one, or one that cannot be read. */
function interpreterOf(hostPath: string): string | undefined {
  let handle: number | undefined;
  try {
    handle = openSync(hostPath, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    if (!fstatSync(handle).isFile()) return undefined;
    // As much as the kernel looks at (BINPRM_BUF_SIZE).
    const buffer = Buffer.alloc(256);
    const head = buffer.subarray(0, readSync(handle, buffer, 0, buffer.length, 0)).toString("latin1");
    return /^#![ \t]*(\/[^ \t\n\0]*)/.exec(head)?.[1];
  } catch {
    return undefined;
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
}
