// In which order the keys of a mapping are laid out: what it is, what it is about, what it says, and notes.

/** Order of keys by place. A key that is not named keeps its place among its like, after those that are. */
export const TOP = [
  "apiVersion",
  "kind",
  "metadata",
  "policy",
  "extends",
  "mode",
  "waive",
  "variables",
  "sandbox",
  "subjects",
  "defaults",
  "approvals",
  "exec",
  "file",
  "network",
  "secrets",
  "resolver",
  "cases",
];
export const SANDBOX = [
  "backend",
  "command",
  "user",
  "home",
  "workspace",
  "hostname",
  "environment",
  "mounts",
  "limits",
  "publish",
  "healthCheck",
  "supervisorGrace",
];
export const RULE = [
  "id",
  "locked",
  "mode",
  "subject",
  "executable",
  "sha256",
  "script",
  "inWorkspace",
  "code",
  "argv",
  "cwd",
  "environment",
  "parent",
  "ancestor",
  "category",
  "kind",
  "path",
  "operations",
  "owner",
  "optional",
  "host",
  "cidr",
  "port",
  "ports",
  "protocol",
  "method",
  "resolvesTo",
  "when",
  "rate",
  "action",
  "hold",
  "message",
  "because",
  "severity",
  "tags",
  "match",
  "notMatch",
];
/** In rules of network, `path` is the request's and comes after `method`. */
export const NETWORK_RULE = [
  ...RULE.filter((key) => key !== "path" && RULE.indexOf(key) <= RULE.indexOf("method")),
  "path",
  ...RULE.slice(RULE.indexOf("method") + 1),
];
export const MOUNT = ["type", "source", "target", "mode", "exec", "optional", "size"];
export const HEALTH_CHECK = ["command", "subject", "interval", "timeout", "retries", "startPeriod"];
export const SUBJECT = ["name", "enters", "entry", "files", "loopback"];
export const WAY = ["from", "executable", "script", "argv"];
export const CASE = ["name", "subject", "at", "exec", "file", "network", "expect"];
