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
