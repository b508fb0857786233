// The policy language. Pure: text and facts in, meaning out; nothing here touches the host.

import type {
  CacheScope,
  Capability,
  CreateSandboxRequest,
  Question,
  Verdict,
} from "../proto/gen/clawsec/v1/loader.js";
import type { Diagnostic, Origin } from "./diagnostics.js";
import type { HoldTerms, Policy, SecretItem } from "./model.js";

export type { Diagnostic, Origin, Severity } from "./diagnostics.js";
export { renderDiagnostic, renderDiagnostics } from "./diagnostics.js";
export type * from "./model.js";

export interface ParseOptions {
  /** Values for the policy's variables; they win over the file's. */
  readonly variables?: Readonly<Record<string, string>>;
}
export type ParseResult =
  | { readonly policy: Policy; readonly diagnostics: readonly Diagnostic[] }
  | { readonly policy: undefined; readonly diagnostics: readonly Diagnostic[] };
/** Reads a policy. All errors at once; without errors there is a policy (and perhaps warnings). */
export declare function parsePolicy(text: string, file: string, options?: ParseOptions): ParseResult;

/** What is asked: a loader's Question is one. */
export type Action = Pick<Question, "subject" | "process" | "action">;
export interface TraceStep {
  readonly rule: string;
  readonly matched: boolean;
  /** The fact that did not match, or "" when all did. */
  readonly why: string;
}
export interface Evaluation {
  /** ALLOW, DENY, HOLD or LOG. */
  readonly verdict: Verdict;
  readonly rule: string;
  readonly because: string;
  /** For the caller on a denial; for the person on a hold. */
  readonly message: string;
  /** With HOLD only. */
  readonly hold: HoldTerms | undefined;
  /** Subject that the process enters ("" for none). */
  readonly enterSubject: string;
  readonly cacheScope: CacheScope;
  readonly trace: readonly TraceStep[];
  readonly origin: Origin | undefined;
}
/** Decides one action. Total: never throws, whatever the facts hold. */
export declare function evaluate(policy: Policy, action: Action): Evaluation;

export type PathKind = "file" | "directory" | "symlink" | "other" | "missing";
/** Facts about the host's files, asked by the compiler. */
export interface HostView {
  /** As lstat(2) has it. */
  kind(path: string): PathKind;
  /** Target of a symbolic link, as written; undefined when it is none. */
  readlink(path: string): string | undefined;
  /** realpath(3); undefined when something is missing. */
  resolve(path: string): string | undefined;
}
export interface CompileInputs {
  readonly host: HostView;
  /** From the loader's Hello or Probe. */
  readonly capabilities: readonly Capability[];
  /** Host name inside the sandbox. */
  readonly name?: string;
  /** Replaces sandbox.command when not empty. */
  readonly command?: readonly string[];
  readonly terminal?: boolean;
  readonly detached?: boolean;
  /** TERM of the caller, for terminals. */
  readonly term?: string;
  readonly epoch?: number;
  /** Host paths that no mount may contain or lie in: clawsec's own runtime and state folders, sockets. */
  readonly protectedPaths?: readonly string[];
  /** Hard limit of open files on the host; limits.openFiles is cut to it. */
  readonly maxOpenFiles?: number;
  /** As Node's process.arch names it. */
  readonly arch?: "x64" | "arm64";
}
/** A CreateSandboxRequest without what the supervisor adds: the name and the values of secrets. */
export type Artefacts = Omit<CreateSandboxRequest, "name" | "secrets">;
export interface ExplainRow {
  readonly rule: string;
  readonly action: string;
  readonly layer: string;
  readonly why: string;
  /** file:line */
  readonly origin: string;
}
export type CompileResult =
  | {
      readonly artefacts: Artefacts;
      /** Host files whose content becomes `secrets` of the request. */
      readonly secretFiles: readonly SecretItem[];
      readonly explain: readonly ExplainRow[];
      readonly diagnostics: readonly Diagnostic[];
    }
  | {
      readonly artefacts: undefined;
      readonly secretFiles: readonly SecretItem[];
      readonly explain: readonly ExplainRow[];
      readonly diagnostics: readonly Diagnostic[];
    };
/** Lowers a policy to what the loader applies on this host, or says which rules cannot be enforced here. */
export declare function compile(policy: Policy, inputs: CompileInputs): CompileResult;
/** What of `after` cannot be applied to a sandbox that runs with `before`, one sentence each; empty: ApplyPolicy will do. */
export declare function needsRestart(before: Artefacts, after: Artefacts): string[];
/** Explain rows as an aligned table. */
export declare function renderExplain(rows: readonly ExplainRow[]): string;
