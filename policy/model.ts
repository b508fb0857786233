// The checked policy: what a policy file means once every variable is filled in and every value has been checked.
// Everything after the parser works on this; nothing here is written by hand but by `schema.ts`.

import type { Question } from "../proto/gen/clawsec/v1/loader.js";
import type { Origin } from "./diagnostics.js";

/** What is asked: a loader's Question is one. */
export type Action = Pick<Question, "subject" | "process" | "action">;

/** What a rule says. `log` allows, and keeps an audit event that says so. */
export type RuleAction = "allow" | "deny" | "hold" | "log";

/** What happens to a held action that nobody answers in time. */
export interface HoldTerms {
  readonly timeoutMs: number;
  readonly onTimeout: "deny" | "allow";
}

/** `observe`: what the rule would have done is recorded, and the rules after it decide. */
export type RuleMode = "enforce" | "observe";

/** How much a match matters, for whoever reads the audit. It decides nothing. */
export type RuleSeverity = "info" | "low" | "medium" | "high" | "critical";

/** A time of the week. A window that ends before it begins goes on past midnight and belongs to the day it begins on. */
export interface TimeWindow {
  /** 0 is Sunday, ascending, each once; never empty. */
  readonly days: readonly number[];
  /** Minutes after midnight, 0 to 1439; included. */
  readonly fromMinute: number;
  /** Minutes after midnight, 1 to 1440; not included. */
  readonly toMinute: number;
  /** IANA name. */
  readonly timeZone: string;
}

/** The rule matches at most `max` times within any `perMs`; what is beyond goes on to the next rule. */
export interface RateLimit {
  readonly max: number;
  readonly perMs: number;
}

/** An action that a rule must (or must not) match, as written beside the rule. */
export interface Example {
  readonly action: Action;
  /** As written, for messages. */
  readonly text: string;
  readonly origin: Origin;
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
  readonly mode: RuleMode;
  /**
   * A floor (deny and hold only): whatever the other rules say, what it matches is at least that strict. The policies
   * that extend the one it is written in can neither replace, observe nor waive it.
   */
  readonly locked: boolean;
  readonly severity: RuleSeverity;
  readonly tags: readonly string[];
  /** Empty: always. */
  readonly when: readonly TimeWindow[];
  /** Never on a denial. */
  readonly rate: RateLimit | undefined;
  readonly match: readonly Example[];
  readonly notMatch: readonly Example[];
  readonly origin: Origin;
}

/** Kinds of executable: `anonymous` is a memfd, `deleted` a file that has lost its name. */
export type ExecKind = "file" | "anonymous" | "deleted";

/** The names of one flag: "-r", "--recursive". */
export type FlagNames = readonly string[];

/** What the arguments must be. All that is there must hold. "Arguments" are those after argv[0], which the caller chooses. */
export interface ArgvPattern {
  /** Argument patterns matched against the whole argv, argv[0] included; undefined: any. */
  readonly glob: readonly string[] | undefined;
  /** All arguments, literally. */
  readonly exact: readonly string[] | undefined;
  /** The first arguments, literally. */
  readonly prefix: readonly string[] | undefined;
  /** RE2 expressions, each found in some single argument (unanchored). */
  readonly regex: readonly string[];
  /** Flags of which each must be there, in any of its spellings. */
  readonly flags: readonly FlagNames[];
  /** Flags of which none may be there. */
  readonly without: readonly FlagNames[];
  /** Flags that take a value in the same or the next argument, so that the value is not taken for a flag. */
  readonly valued: FlagNames;
}

/**
 * What an interpreter runs: files, code in an argument, a module or what it finds by itself, what it reads from standard
 * input or a pipe.
 */
export type ExecCodeName = "file" | "inline" | "module" | "stream";

export interface ExecRule extends RuleBase {
  /** Path globs for the file the kernel will load (a script's interpreter). Empty: any. */
  readonly executable: readonly string[];
  /** SHA-256 of the content, hex, lower case: of the executable or of the script. Empty: any. */
  readonly sha256: readonly string[];
  /** Path globs for the file with the `#!` line, or that an interpreter is given. Empty: any, and also none. */
  readonly script: readonly string[];
  /** Whether the executable or the script lies in sandbox.workspace; undefined: either. */
  readonly inWorkspace: boolean | undefined;
  /** What an interpreter runs. Empty: anything, and also programs that are no interpreters. */
  readonly code: readonly ExecCodeName[];
  readonly argv: ArgvPattern | undefined;
  /** Path globs for the working directory. Empty: any. */
  readonly cwd: readonly string[];
  /** Patterns for names of environment variables, of which one must be set. Empty: any. */
  readonly environment: readonly string[];
  /** Path globs for the image of the caller. Empty: any. */
  readonly parent: readonly string[];
  /** Path globs, of which one image that led to the caller, or the caller's own, must match. Empty: any. */
  readonly ancestor: readonly string[];
  /** Categories of the catalogue (categories.ts), of which the command must have one. Empty: any. */
  readonly category: readonly string[];
  readonly kinds: readonly ExecKind[];
}

/** What the kernel can be asked about or forbid. `read`, `write`, `create`, `chmod` and `exec` are decided statically. */
export type FileOperationName =
  | "read"
  | "write"
  | "open"
  | "create"
  | "delete"
  | "rename"
  | "link"
  | "truncate"
  | "chmod"
  | "exec";

export interface FileRule extends RuleBase {
  /** Path globs. A path without a pattern stands for itself and everything below it. */
  readonly path: readonly string[];
  readonly operations: readonly FileOperationName[];
  /** Uids of the object's owner. Empty: any. */
  readonly owner: readonly number[];
  /** A missing path is no error: there is nothing to guard then. */
  readonly optional: boolean;
}

export interface Ports {
  readonly first: number;
  readonly last: number;
}

/** What the first bytes of a connection are; `other` is neither, or nothing in the time given. */
export type ProtocolName = "tls" | "http" | "other";

export interface NetworkRule extends RuleBase {
  /** Lower-case host patterns. Either these or `cidr`, never both. */
  readonly host: readonly string[];
  /** Canonical CIDRs for connections to literal addresses. */
  readonly cidr: readonly string[];
  /** Empty: all ports. */
  readonly ports: readonly Ports[];
  /** Empty: any. */
  readonly protocols: readonly ProtocolName[];
  /** Upper-case HTTP methods; empty: any. With these or `paths`, `protocols` is ["http"]. */
  readonly methods: readonly string[];
  /** Path globs for the path of an HTTP request, without its query; empty: any. */
  readonly paths: readonly string[];
  /** Canonical CIDRs in which the name's address may lie although they are not public. */
  readonly resolvesTo: readonly string[];
}

/** What this host may lack, by name: a rule's id, or a mechanism such as "nftables". */
export interface Waiver {
  readonly name: string;
  readonly reason: string;
  readonly origin: Origin;
}

/** One file of those that make up a policy. */
export interface PolicyLayer {
  /** As it was asked for: "builtin:openclaw", "./team.yaml"; the file itself as given to the parser. */
  readonly reference: string;
  /** What `Origin.file` says for it. */
  readonly file: string;
  /** Index of the furthest file that it extends, all between being extended by it as well; its own when there is none. */
  readonly first: number;
}

/** A way into a subject: an exec by one of `from` that matches. */
export interface Transition {
  readonly from: readonly string[];
  readonly executable: readonly string[];
  readonly script: readonly string[];
  readonly argv: ArgvPattern | undefined;
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

/** A command that says whether the sandbox's main command does what it should, run again and again. */
export interface HealthCheck {
  /** Never empty. */
  readonly command: readonly string[];
  /** A subject of the policy. */
  readonly subject: string;
  /** From the start to the first check, and from the end of each to the next. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Failed checks in a row after which the sandbox is unhealthy. */
  readonly retries: number;
  /** How long after the start failed checks do not count, until one has succeeded; 0: all count. */
  readonly startPeriodMs: number;
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
  /** Undefined: nothing is checked. */
  readonly healthCheck: HealthCheck | undefined;
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
  /** `observe`: every rule but the locked ones, and the defaults, only record what they would have done. */
  readonly mode: RuleMode;
  readonly waive: readonly Waiver[];
  /** The file itself last, before it what it extends, furthest first. */
  readonly layers: readonly PolicyLayer[];
  readonly sandbox: SandboxModel;
  /** Never empty. The first is the subject of the main command. */
  readonly subjects: readonly SubjectModel[];
  readonly defaults: Defaults;
  /** Each list: locked rules first, then the file's own, then those of what it extends, nearest first. */
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
