/** Actions as the command line writes them: "exec -- git push", "open /path", "connect host:443". */
import type { Action, Diagnostic, Policy } from "../../../../policy/index.js";
import { isHostName, normalizeHost } from "../../../../policy/match/host.js";
import { isCanonical } from "../../../../policy/match/path.js";
import type { ProtocolName } from "../../../../policy/model.js";
import { parseYaml } from "../../../../policy/parse.js";
import { actionDefaults, readAction } from "../../../../policy/read/action.js";
import { OBSERVED } from "../../../../policy/read/connection.js";
import { Context } from "../../../../policy/read/context.js";
import { Variables } from "../../../../policy/variables.js";
import {
  type NetworkAction,
  NetworkProtocol,
  ObservedProtocol,
} from "../../../../proto/gen/clawsec/v1/loader.js";
import { CliError, Exit } from "../../exit-codes.js";
import { findProgram } from "./program.js";

/** Facts that are not part of the action itself. */
export interface AskedOptions {
  readonly subject?: string;
  readonly cwd?: string;
  readonly parent?: string;
  readonly ancestor: readonly string[];
  readonly env: readonly string[];
  readonly script?: string;
  readonly code?: string;
  readonly protocol?: ProtocolName;
}

export const FILE_WORDS = ["open", "create", "delete", "rename", "link", "truncate", "chmod"] as const;
const USAGE =
  'Write "exec -- PROGRAM ARGUMENTS", "open PATH" (or create, delete, rename, link, truncate, chmod), "connect HOST:PORT", "lookup HOST" or "http METHOD URL".';

/** The action, and what had to be taken on trust. Throws a sentence, with exit code 2 for what is not an action. */
export function askedOf(
  policy: Policy,
  words: readonly string[],
  options: AskedOptions,
): { readonly action: Action; readonly note: string } {
  const [kind = "", ...rest] = words;
  const subject = options.subject ?? policy.subjects[0]?.name ?? "";
  const known = policy.subjects.map(({ name }) => name);
  if (!known.includes(subject))
    throw new CliError(Exit.usage, `The policy has no subject "${subject}"; it has ${known.join(", ")}.`);
  if (options.protocol !== undefined && kind !== "connect")
    throw new CliError(Exit.usage, "--protocol is about the first bytes of a connection: connect HOST:PORT.");
  if (kind === "exec") return askedExec(policy, subject, rest, options);
  const extra = ["cwd", "parent", "script", "code"].filter((key) => options[key as "cwd"] !== undefined);
  if (extra.length > 0 || options.ancestor.length + options.env.length > 0)
    throw new CliError(Exit.usage, `Only an exec has ${extra[0] ?? "ancestors and environment"}.`);
  if ((FILE_WORDS as readonly string[]).includes(kind)) {
    const [path, target, more] = rest;
    for (const p of [path, target])
      if (p !== undefined && !isCanonical(p))
        throw new CliError(Exit.usage, `"${p}" is not an absolute path without ".", ".." and "//".`);
    if (path === undefined || more !== undefined) throw new CliError(Exit.usage, USAGE);
    const value = { operation: kind, path, ...(target === undefined ? {} : { target }), subject };
    return { action: read(policy, "file", value), note: "" };
  }
  if (kind === "lookup") return { action: lookup(subject, rest), note: "" };
  if (kind === "connect" && rest.length === 1)
    return { action: connection(policy, subject, rest[0], options.protocol), note: "" };
  if (kind === "http" && rest.length === 2)
    return { action: { ...read(policy, "network", rest.join(" ")), subject }, note: "" };
  throw new CliError(Exit.usage, USAGE);
}

/** What is seen of a connection to a host when its first bytes are of this protocol. */
export function firstBytes(
  protocol: ProtocolName,
  host: string,
): Pick<NetworkAction, "observedProtocol" | "observedHost"> {
  return { observedProtocol: OBSERVED[protocol], observedHost: protocol === "other" ? "" : host };
}

function connection(
  policy: Policy,
  subject: string,
  peer: string | undefined,
  protocol: ProtocolName | undefined,
): Action {
  const asked = { ...read(policy, "network", peer), subject };
  const { action } = asked;
  if (action?.$case !== "network" || protocol === undefined) return asked;
  const value = { ...action.value, ...firstBytes(protocol, action.value.host) };
  return { ...asked, action: { $case: "network", value } };
}

function askedExec(
  policy: Policy,
  subject: string,
  argv: readonly string[],
  options: AskedOptions,
): { action: Action; note: string } {
  const [name] = argv;
  if (name === undefined) throw new CliError(Exit.usage, USAGE);
  const program =
    options.script === undefined
      ? findProgram(policy, name)
      : { ...given(policy, name), script: options.script };
  if ("error" in program) throw new CliError(Exit.failed, program.error);
  const { executable, script, note } = program;
  const value = {
    executable,
    ...(script === "" ? {} : { script }),
    ...(options.code === undefined ? {} : { code: options.code }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    // Besides those that the sandbox's command starts with.
    environment: [...actionDefaults(policy).environment, ...options.env],
    ...(options.parent === undefined ? {} : { parent: options.parent }),
    ...(options.ancestor.length === 0 ? {} : { ancestors: options.ancestor }),
    subject,
  };
  const { action, ...asked } = read(policy, "exec", value);
  if (action?.$case !== "exec") throw new CliError(Exit.usage, USAGE);
  // Arguments can be anything, also what no policy would write.
  return { action: { ...asked, action: { ...action, value: { ...action.value, argv: [...argv] } } }, note };
}

/** With --script the first word is the interpreter itself, whatever its own first line is. */
function given(policy: Policy, name: string): { executable: string; note: string } {
  if (name.startsWith("/")) return { executable: name, note: "" };
  const found = findProgram(policy, name);
  if ("error" in found) throw new CliError(Exit.failed, found.error);
  return found;
}

function lookup(subject: string, words: readonly string[]): Action {
  const host = normalizeHost(words[0] ?? "");
  if (words.length !== 1 || !isHostName(host)) throw new CliError(Exit.usage, USAGE);
  const value = {
    protocol: NetworkProtocol.DNS,
    host,
    address: "",
    port: 53,
    observedHost: "",
    observedProtocol: ObservedProtocol.NONE,
    rule: "",
    httpMethod: "",
    httpPath: "",
  };
  return { subject, process: undefined, action: { $case: "network", value } };
}

/** Through the reader of examples and tests, so that all three mean the same. JSON is YAML. */
function read(policy: Policy, section: "exec" | "file" | "network", value: unknown): Action {
  const { root, diagnostics } = parseYaml(JSON.stringify(escaped(value)), "the command line");
  const context = new Context(new Variables());
  const whole = diagnostics.length === 0 ? root : undefined;
  const action = whole && readAction(context, whole, section, actionDefaults(policy));
  if (action === undefined)
    throw new CliError(Exit.usage, sentences([...diagnostics, ...context.diagnostics]));
  return action;
}

function sentences(diagnostics: readonly Diagnostic[]): string {
  return diagnostics.map(({ message, remedy }) => `${message}. ${remedy}`.trim()).join(" ") || USAGE;
}

/** "$" as policies write it. */
function escaped(value: unknown): unknown {
  if (typeof value === "string") return value.replaceAll("$", "$$$$");
  if (Array.isArray(value)) return value.map(escaped);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, escaped(member)]));
}
