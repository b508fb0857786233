// The checked policy: what a policy file means once every variable is filled in and every value has been checked.
// Everything after the parser works on this; nothing here is written by hand but by `schema.ts`.

import type { Origin } from "./diagnostics.js";

/** What a rule says. `log` allows, and keeps an audit event that says so. */
export type RuleAction = "allow" | "deny" | "hold" | "log";

/** What happens to a held action that nobody answers in time. */
export interface HoldTerms {
  readonly timeoutMs: number;
  readonly onTimeout: "deny" | "allow";
}

/** What every rule has. */
export interface RuleBase {
  /** Qualified id, e.g. "exec/git-push": the name by which verdicts, audit and diagnostics speak of it. */
  readonly id: string;
  /** Subjects it holds for; empty: all. */
  readonly subjects: readonly string[];
  readonly action: RuleAction;
  /** What the caller is told on a denial; "" for a sentence made from the rule. */
  readonly message: string;
  /** Why the rule is there, for the person who answers a hold; "" when the policy does not say. */
  readonly because: string;
  /** Set for `hold` only. */
  readonly hold: HoldTerms | undefined;
  readonly origin: Origin;
}

/** Kinds of executable: `anonymous` is a memfd, `deleted` a file that has lost its name. */
export type ExecKind = "file" | "anonymous" | "deleted";

export interface ExecRule extends RuleBase {
  /** Path globs for the file the kernel will load (a script's interpreter). Empty: any. */
  readonly executable: readonly string[];
  /** Path globs for the file with the `#!` line. Empty: any, and also none. */
  readonly script: readonly string[];
  /** Argument patterns, one list matched against the whole argv; undefined: any. */
  readonly argv: readonly string[] | undefined;
  /** Path globs for the working directory. Empty: any. */
  readonly cwd: readonly string[];
  readonly kinds: readonly ExecKind[];
}

/** `read` and `write` are decided statically; the others can be asked about. */
export type FileOperationName = "read" | "write" | "open" | "delete" | "rename" | "link" | "truncate";

export interface FileRule extends RuleBase {
  /** Path globs. A path without a pattern stands for itself and everything below it. */
  readonly path: readonly string[];
  readonly operations: readonly FileOperationName[];
  /** A missing path is no error: there is nothing to guard then. */
  readonly optional: boolean;
}

export interface Ports {
  readonly first: number;
  readonly last: number;
}

export interface NetworkRule extends RuleBase {
  /** Lower-case host patterns. Either these or `cidr`, never both. */
  readonly host: readonly string[];
  /** Canonical CIDRs for connections to literal addresses. */
  readonly cidr: readonly string[];
  /** Empty: all ports. */
  readonly ports: readonly Ports[];
  /** Canonical CIDRs in which the name's address may lie although they are not public. */
  readonly resolvesTo: readonly string[];
}

/** A way into a subject: an exec by one of `from` that matches. */
export interface Transition {
  readonly from: readonly string[];
  readonly executable: readonly string[];
  readonly script: readonly string[];
  readonly argv: readonly string[] | undefined;
  readonly origin: Origin;
}

/** Trees that a subject's entry leaves to it. Paths as the sandbox sees them, no patterns. */
export interface SubjectFiles {
  readonly read: readonly SubjectTree[];
  readonly write: readonly SubjectTree[];
  readonly exec: readonly SubjectTree[];
  readonly origin: Origin;
}

export interface SubjectTree {
  readonly path: string;
  readonly optional: boolean;
  readonly origin: Origin;
}

export interface SubjectModel {
  readonly name: string;
  readonly enters: readonly Transition[];
  /** Where the shim is mounted as this subject's entry, and the program that an entry runs. */
  readonly entry: { readonly path: string; readonly exec: string; readonly origin: Origin } | undefined;
  readonly files: SubjectFiles | undefined;
  readonly loopback: "any" | readonly number[];
  readonly origin: Origin;
}

export interface Mount {
  readonly kind: "bind" | "tmpfs";
  /** Host path; "" for tmpfs. */
  readonly source: string;
  readonly target: string;
  readonly mode: "ro" | "rw";
  /** False: nothing on it can be executed. */
  readonly exec: boolean;
  /** A missing source is skipped. */
  readonly optional: boolean;
  /** tmpfs only: bytes. */
  readonly sizeBytes: number;
  readonly origin: Origin;
}

export interface Publish {
  readonly hostIp: string;
  readonly hostPort: number;
  readonly sandboxPort: number;
  readonly origin: Origin;
}

export interface Limits {
  readonly memoryBytes: number;
  readonly pids: number;
  /** In thousandths of a cpu. */
  readonly milliCpus: number;
  readonly openFiles: number;
  /** Size of each of /tmp, /var/tmp, /run and /dev/shm. */
  readonly tmpfsBytes: number;
}

export interface SandboxModel {
  readonly backend: "runc";
  /** Empty: whoever runs it names the command. */
  readonly command: readonly string[];
  readonly user: { readonly uid: number; readonly gid: number; readonly name: string };
  readonly home: string;
  /** Working directory of the command. */
  readonly workspace: string;
  readonly hostname: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly mounts: readonly Mount[];
  readonly limits: Limits;
  readonly publish: readonly Publish[];
  /** How long a question waits for a supervisor that is away. */
  readonly supervisorGraceMs: number;
  readonly origin: Origin;
}

export interface SecretItem {
  readonly name: string;
  /** Host file that holds the value. */
  readonly file: string;
  readonly origin: Origin;
}

export interface SecretsModel {
  /** Folder inside the sandbox. */
  readonly mount: string;
  readonly items: readonly SecretItem[];
  readonly origin: Origin;
}

export interface Defaults {
  readonly exec: RuleAction;
  readonly network: RuleAction;
  /** What no mount grants does not exist, so there is nothing to choose yet. */
  readonly file: "deny";
}

/** A policy that passed every check that needs no host. */
export interface Policy {
  readonly apiVersion: "clawsec/v1";
  readonly name: string;
  readonly description: string;
  readonly sandbox: SandboxModel;
  /** Never empty. The first is the subject of the main command. */
  readonly subjects: readonly SubjectModel[];
  readonly defaults: Defaults;
  readonly exec: readonly ExecRule[];
  readonly file: readonly FileRule[];
  readonly network: readonly NetworkRule[];
  readonly secrets: SecretsModel | undefined;
  readonly approvals: HoldTerms;
  readonly resolverHosts: Readonly<Record<string, string>>;
  /** SHA-256 of everything above without positions, hex. */
  readonly hash: string;
  /** File it was read from, as given to the parser. */
  readonly sourceFile: string;
}
