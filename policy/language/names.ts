// The words of the language: what the readers compare with, and what the JSON Schema lists.

import type {
  ExecCodeName,
  ExecKind,
  FileOperationName,
  ProtocolName,
  RuleAction,
  RuleMode,
  RuleSeverity,
} from "../model.js";

export const ACTIONS: readonly RuleAction[] = ["allow", "deny", "hold", "log"];
export const MODES: readonly RuleMode[] = ["enforce", "observe"];
export const SEVERITIES: readonly RuleSeverity[] = ["info", "low", "medium", "high", "critical"];
export const KINDS: readonly ExecKind[] = ["file", "anonymous", "deleted"];
export const CODES: readonly ExecCodeName[] = ["file", "inline", "module", "stream"];
export const OPERATIONS: readonly FileOperationName[] = [
  "read",
  "write",
  "open",
  "create",
  "delete",
  "rename",
  "link",
  "truncate",
  "chmod",
  "exec",
];
/** What the loader can ask about; reading, writing and executing are decided by what is mounted. */
export const ASKED_OPERATIONS = ["open", "create", "delete", "rename", "link", "truncate", "chmod"] as const;
export const PROTOCOLS: readonly ProtocolName[] = ["tls", "http", "other"];
/** In the order of `TimeWindow.days`: 0 is Sunday. */
export const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;
/** Of these a rule of exec has at least one, so that nobody rules every program by leaving a key out. */
export const SELECTORS = [
  "executable",
  "sha256",
  "script",
  "code",
  "kind",
  "inWorkspace",
  "category",
] as const;

export const RULE_ID = /^[a-z0-9][a-z0-9-]{0,63}$/;
export const POLICY_NAME = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/;
export const SUBJECT_NAME = /^[a-z][a-z0-9-]{0,31}$/;
export const USER_NAME = /^[a-z_][a-z0-9_-]{0,31}$/;
export const HOSTNAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
export const SECRET_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
export const WAIVER_NAME = /^(?:(?:exec|file|network)\/)?[a-z0-9][a-z0-9.-]{0,63}$/;
export const METHOD = /^[A-Za-z][A-Za-z-]{0,31}$/;
/** "-r" or "--recursive"; what is neither is no flag that can be told from a cluster of them. */
export const FLAG = /^(?:-[!-,.-<>-{}~]|--[A-Za-z0-9][A-Za-z0-9._-]*)$/;
export const SHA256 = /^[0-9a-fA-F]{64}$/;
export const DURATION = /^([0-9]{1,10})(ms|s|m|h)$/;
export const SIZE = /^([0-9]{1,15})(Ki|Mi|Gi|Ti)?$/;
export const CLOCK = /^([0-9]{2}):([0-5][0-9])$/;
/** RFC 3339, with its zone. */
export const TIME =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,3})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})$/;

export const MAX_RATE = 1_000_000;
export const MAX_RETRIES = 1000;
/** Longest regular expression, in UTF-16 units. */
export const MAX_REGEX = 1000;
export const LARGEST_ID = 2 ** 31 - 1;
export const MAX_ITEMS = 20_000;
