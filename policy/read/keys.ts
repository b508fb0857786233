// The keys of rules.

const COMMON = [
  "id",
  "subject",
  "action",
  "message",
  "because",
  "hold",
  "mode",
  "locked",
  "severity",
  "tags",
  "when",
  "rate",
  "match",
  "notMatch",
];
export const RULE_KEYS = {
  exec: [
    ...COMMON,
    "executable",
    "sha256",
    "script",
    "inWorkspace",
    "argv",
    "cwd",
    "environment",
    "parent",
    "ancestor",
    "category",
    "kind",
  ],
  file: [...COMMON, "path", "operations", "owner", "optional"],
  network: [...COMMON, "host", "cidr", "port", "ports", "protocol", "method", "path", "resolvesTo"],
};

export const POLICY_KEYS = [
  "apiVersion",
  "kind",
  "metadata",
  "extends",
  "mode",
  "waive",
  "variables",
  "sandbox",
  "subjects",
  "defaults",
  "exec",
  "file",
  "network",
  "secrets",
  "approvals",
  "resolver",
];

export const ACTION_KEYS = {
  exec: [
    "executable",
    "argv",
    "script",
    "cwd",
    "environment",
    "parent",
    "ancestors",
    "sha256",
    "kind",
    "subject",
  ],
  file: ["operation", "path", "target", "owner", "subject"],
  network: ["host", "address", "port", "protocol", "method", "path", "subject"],
};

export const TEST_KEYS = {
  test: ["apiVersion", "kind", "policy", "variables", "cases"],
  case: ["name", "exec", "file", "network", "subject", "at", "expect"],
  expect: ["verdict", "rule", "layer", "subject", "observed"],
};
