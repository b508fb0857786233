/** What the policy commands share: reading a policy, knowing the host, compiling for it. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Diagnostic, Policy, PolicySource } from "../../../../policy/index.js";
import { type Capability, CapabilityState } from "../../../../proto/gen/clawsec/v1/loader.js";
import { escapeText } from "../../../common/escape.js";
import { call, sentence } from "../../../common/grpc.js";
import { packageVersion } from "../../../common/paths.js";
import { fileBase, readSource } from "../../../common/sources.js";
import { withLoader } from "../../connect.js";
import { CliError, Exit } from "../../exit-codes.js";
import type { Io } from "../../io.js";

/** Options that most of the commands have. */
export interface PolicyOptions {
  readonly var: Record<string, string>;
  readonly json?: boolean;
}

/** A policy file as far as it could be read. */
export interface Read {
  readonly path: string;
  readonly policy: Policy | undefined;
  readonly diagnostics: readonly Diagnostic[];
  readonly sources: readonly PolicySource[];
}

/** A policy file without errors. */
export type Loaded = Read & { readonly policy: Policy };

/** Reads a policy, "builtin:NAME" or a file, and what it extends. Throws only when the file itself cannot be read. */
export async function readPolicy(name: string, variables: Readonly<Record<string, string>>): Promise<Read> {
  const source = name.startsWith("builtin:") ? fileBase(name, resolve("policy")) : readSource(resolve(name));
  if ("error" in source) {
    const sentence = source.error.startsWith("there ")
      ? `T${source.error.slice(1)}`
      : `The policy ${source.error}`;
    throw new CliError(Exit.failed, `${sentence}.`);
  }
  const { parsePolicy } = await import("../../../../policy/index.js");
  return { path: source.file, ...parsePolicy(source.text, source.file, { variables, base: fileBase }) };
}

/** The same; errors of the policy are thrown, with exit code 3. */
export async function loadPolicy(name: string, variables: Readonly<Record<string, string>>): Promise<Loaded> {
  const read = await readPolicy(name, variables);
  const { policy } = read;
  if (policy === undefined) {
    const { renderDiagnostics } = await import("../../../../policy/index.js");
    throw new CliError(Exit.policy, renderDiagnostics(read.diagnostics));
  }
  return { ...read, policy };
}

/** Option of commands that want to know what the host can enforce. */
export const CAPABILITIES = [
  "--capabilities <file>",
  "what a host can enforce, as clawsec doctor --json prints it; without it a running loader is asked",
] as const;

/** What the host can enforce: from the file, or from a loader that may be asked; undefined when nobody says. */
export async function hostCapabilities(
  io: Io,
  file: string | undefined,
): Promise<readonly Capability[] | undefined> {
  if (file !== undefined) return capabilitiesOf(file);
  try {
    const request = { supervisorVersion: packageVersion() };
    return (await withLoader(io, (client) => call(client, client.hello, request, 5000)))?.capabilities;
  } catch {
    return undefined;
  }
}

/** Reads what `clawsec doctor --json` printed. What is not in it is missing. */
function capabilitiesOf(file: string): Capability[] {
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new CliError(Exit.failed, `The capabilities in ${file} cannot be read: ${sentence(error)}.`);
  }
  const list = (document as { capabilities?: unknown } | null)?.capabilities;
  if (!Array.isArray(list))
    throw new CliError(Exit.failed, `${file} has no "capabilities". Write it with clawsec doctor --json.`);
  return list.map((item: Partial<Record<keyof Capability, unknown>>) => ({
    name: String(item?.name ?? ""),
    state: item?.state === "present" ? CapabilityState.PRESENT : CapabilityState.MISSING,
    detail: String(item?.detail ?? ""),
    remedy: String(item?.remedy ?? ""),
    level: String(item?.level ?? ""),
    required: item?.required === true,
  }));
}

/** Compiles for this host, with any command where the policy has none: layers do not depend on it. */
export async function compileLocally(
  io: Io,
  policy: Policy,
  capabilities: readonly Capability[],
  name?: string,
) {
  const { compileHere } = await import("../../../supervisor/sandboxes/compile.js");
  const command = policy.sandbox.command.length === 0 ? { command: ["/bin/sh"] } : {};
  return compileHere(policy, capabilities, io.paths, { ...command, ...(name === undefined ? {} : { name }) });
}

/** A finding as JSON: without the text of its line. */
export function diagnosticJson({ origin: { sourceLine: _, ...origin }, ...rest }: Diagnostic): unknown {
  return { ...rest, origin };
}

/** Lines of which nothing moves a terminal; backslashes stay as they are. */
export function safe(text: string): string {
  const line = (part: string) => part.split("\\").map(escapeText).join("\\");
  return text.split("\n").map(line).join("\n");
}

/** "3 errors", "1 error". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
