/** From a policy file on this host to what the loader applies. All meaning is policy/'s; here are only the effects. */
import { isAbsolute } from "node:path";
import { status } from "@grpc/grpc-js";
import {
  type Artefacts,
  type CompileResult,
  compile,
  type Diagnostic,
  type ExplainRow,
  type Policy,
  type PolicySource,
  parsePolicy,
  renderDiagnostics,
  type SecretItem,
} from "../../../policy/index.js";
import { type Capability, CapabilityState } from "../../../proto/gen/clawsec/v1/loader.js";
import { Refusal } from "../../common/grpc.js";
import { hostView, maxOpenFiles } from "../../common/host.js";
import type { Paths } from "../../common/paths.js";
import { bundleBase, fileBase, readSource } from "../../common/sources.js";
import type { SandboxRecord } from "./store.js";

/** A policy that every layer of this host can enforce. */
export interface Compiled {
  readonly policy: Policy;
  readonly artefacts: Artefacts;
  readonly secretFiles: readonly SecretItem[];
  readonly explain: readonly ExplainRow[];
  /** Warnings as text. */
  readonly warnings: string[];
}

/** A policy, and every text that it was read from. */
export interface Loaded {
  readonly policy: Policy;
  /** The file itself last, before it what it extends. */
  readonly sources: readonly PolicySource[];
  readonly diagnostics: readonly Diagnostic[];
}

/** Reads a policy file and what it extends. Throws a sentence, or its diagnostics, as INVALID_ARGUMENT. */
export function loadPolicy(path: string, variables: Readonly<Record<string, string>>): Loaded {
  if (!isAbsolute(path)) {
    throw new Refusal(
      status.INVALID_ARGUMENT,
      `The policy's path ${path} is not absolute. Give the whole path.`,
    );
  }
  const source = readSource(path);
  if ("error" in source) throw new Refusal(status.INVALID_ARGUMENT, `The policy ${source.error}.`);
  return parsed(source.text, path, variables, fileBase);
}

/** The policy of a record, from the texts that were applied, whatever the files are by now. Throws as loadPolicy. */
export function storedPolicy(record: SandboxRecord): Loaded {
  const main = record.sources.at(-1);
  if (main === undefined) throw new Refusal(status.DATA_LOSS, "No text of the policy is stored.");
  return parsed(main.text, main.file, record.variables, bundleBase(record.sources));
}

function parsed(
  text: string,
  path: string,
  variables: Readonly<Record<string, string>>,
  base: typeof fileBase,
): Loaded {
  const { policy, diagnostics, sources } = parsePolicy(text, path, { variables, base });
  if (policy === undefined) throw new Refusal(status.INVALID_ARGUMENT, renderDiagnostics(diagnostics));
  return { policy, sources, diagnostics };
}

/** Compiles a sandbox's policy for this host. Throws its diagnostics as INVALID_ARGUMENT. */
export function compileFor(
  record: SandboxRecord,
  capabilities: readonly Capability[],
  paths: Paths,
): Compiled {
  const { policy, diagnostics } = storedPolicy(record);
  const result = compileHere(policy, capabilities, paths, {
    name: record.name,
    command: record.command,
    terminal: record.terminal,
    detached: record.detached,
    term: record.term,
    epoch: record.epoch,
  });
  const findings = [...diagnostics, ...result.diagnostics];
  if (result.artefacts === undefined) throw new Refusal(status.INVALID_ARGUMENT, renderDiagnostics(findings));
  const warnings = findings.length === 0 ? [] : [renderDiagnostics(findings)];
  return {
    policy,
    artefacts: result.artefacts,
    secretFiles: result.secretFiles,
    explain: result.explain,
    warnings,
  };
}

/** Compiles with this host's files. */
export function compileHere(
  policy: Policy,
  capabilities: readonly Capability[],
  paths: Paths,
  inputs: Pick<
    Parameters<typeof compile>[1],
    "name" | "command" | "terminal" | "detached" | "term" | "epoch"
  > = {},
): CompileResult {
  return compile(policy, {
    ...inputs,
    host: hostView(),
    capabilities,
    protectedPaths: [paths.runtime, paths.state],
    maxOpenFiles: maxOpenFiles(),
    ...(process.arch === "x64" || process.arch === "arm64" ? { arch: process.arch } : {}),
  });
}

/** Refuses with the doctor's words when something is missing that no sandbox can do without. */
export function requireCapabilities(capabilities: readonly Capability[]): void {
  const missing = capabilities.filter(({ required, state }) => required && state !== CapabilityState.PRESENT);
  if (missing.length === 0) return;
  const words = missing.map(
    ({ name, detail, remedy }) => `${name}: ${detail}${remedy === "" ? "" : ` ${remedy}`}`,
  );
  throw new Refusal(
    status.FAILED_PRECONDITION,
    `This host cannot enforce a policy. Missing:\n${words.map((word) => `  ${word}`).join("\n")}\nSee clawsec doctor.`,
  );
}
