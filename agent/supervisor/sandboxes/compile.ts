/** From a policy file on this host to what the loader applies. All meaning is policy/'s; here are only the effects. */
import { readFileSync, statSync } from "node:fs";
import { isAbsolute } from "node:path";
import { status } from "@grpc/grpc-js";
import {
  type Artefacts,
  type CompileResult,
  compile,
  type ExplainRow,
  type Policy,
  parsePolicy,
  renderDiagnostics,
  type SecretItem,
} from "../../../policy/index.js";
import { type Capability, CapabilityState } from "../../../proto/gen/clawsec/v1/loader.js";
import { Refusal, sentence } from "../../common/grpc.js";
import { hostView, maxOpenFiles } from "../../common/host.js";
import type { Paths } from "../../common/paths.js";
import type { SandboxRecord } from "./store.js";

/** A policy larger than this is not one. */
const MAX_POLICY_BYTES = 4 * 1024 * 1024;

/** A policy that every layer of this host can enforce. */
export interface Compiled {
  readonly policy: Policy;
  readonly artefacts: Artefacts;
  readonly secretFiles: readonly SecretItem[];
  readonly explain: readonly ExplainRow[];
  /** Warnings as text. */
  readonly warnings: string[];
}

/** Reads a policy file. Throws a sentence. */
export function readPolicy(path: string): string {
  if (!isAbsolute(path)) {
    throw new Refusal(
      status.INVALID_ARGUMENT,
      `The policy's path ${path} is not absolute. Give the whole path.`,
    );
  }
  try {
    const size = statSync(path).size;
    if (size > MAX_POLICY_BYTES) {
      throw new Error(`it is ${size} bytes long, and a policy may have ${MAX_POLICY_BYTES}`);
    }
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Refusal(status.INVALID_ARGUMENT, `The policy ${path} cannot be read: ${sentence(error)}.`);
  }
}

/** Parses a policy's text. Throws its diagnostics as INVALID_ARGUMENT. */
export function parse(text: string, path: string, variables: Readonly<Record<string, string>>): Policy {
  const { policy, diagnostics } = parsePolicy(text, path, { variables });
  if (policy === undefined) throw new Refusal(status.INVALID_ARGUMENT, renderDiagnostics(diagnostics));
  return policy;
}

/** Compiles a sandbox's policy for this host. Throws its diagnostics as INVALID_ARGUMENT. */
export function compileFor(
  record: SandboxRecord,
  capabilities: readonly Capability[],
  paths: Paths,
): Compiled {
  const { policy, diagnostics } = parsePolicy(record.policyText, record.policyPath, {
    variables: record.variables,
  });
  if (policy === undefined) throw new Refusal(status.INVALID_ARGUMENT, renderDiagnostics(diagnostics));
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
