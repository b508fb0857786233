// Permissions that are wider than anybody means.

import type { Diagnostic, Origin } from "../diagnostics.js";
import type { ExecRule, FileRule, NetworkRule, Policy } from "../model.js";
import { restricts } from "./cover.js";
import { includesPaths } from "./inclusion.js";

const EVERY_FILE = ["/**"];

/** True when one pattern or several together match every path; only those that begin with a wildcard can. */
function isEverything(patterns: readonly string[], options: { subtree: boolean }): boolean {
  if (!patterns.some((pattern) => pattern === "/" || /^\/?[*?{]/.test(pattern))) return false;
  return includesPaths(patterns, EVERY_FILE, options) === "yes";
}

export function lintWidth(policy: Policy): Diagnostic[] {
  return [
    ...policy.exec
      .filter(anyProgram)
      .map((rule) =>
        wide(
          rule.id,
          rule.origin,
          `${rule.id} permits every program that the sandbox can reach or write`,
          "Name folders of programs that the sandbox cannot write, or ask for more than the file.",
        ),
      ),
    ...policy.network.filter(anyPeer).map((rule) => {
      const what = rule.host.includes("*") ? "every host, on every port" : "every address";
      return wide(
        rule.id,
        rule.origin,
        `${rule.id} permits connections to ${what}`,
        "Name the hosts, or at least the ports.",
      );
    }),
    ...policy.file
      .filter(anyWrite)
      .map((rule) =>
        wide(
          rule.id,
          rule.origin,
          `${rule.id} permits writing everywhere, whatever the rules after it say`,
          "Name the folders.",
        ),
      ),
    ...policy.sandbox.mounts
      .filter((mount) => mount.kind === "bind" && mount.mode === "rw" && mount.source === "/")
      .map((mount) =>
        wide("", mount.origin, "the whole host is mounted writable", "Mount the folders that are needed."),
      ),
    ...policy.subjects.flatMap((subject) =>
      (subject.files?.write ?? [])
        .filter(({ path }) => path === "/")
        .map(({ origin }) =>
          wide(
            "",
            origin,
            `the subject "${subject.name}" may write everything that is mounted writable`,
            "List the trees that it needs.",
          ),
        ),
    ),
  ];
}

function anyProgram(rule: ExecRule): boolean {
  if (restricts(rule) || !rule.kinds.includes("file")) return false;
  const facts = [
    rule.script,
    rule.cwd,
    rule.environment,
    rule.parent,
    rule.ancestor,
    rule.category,
    rule.sha256,
    rule.code,
  ];
  if (rule.argv !== undefined || rule.inWorkspace === false || facts.some((list) => list.length > 0))
    return false;
  if (rule.inWorkspace === true) return false;
  return rule.executable.length === 0 || isEverything(rule.executable, { subtree: false });
}

function anyPeer(rule: NetworkRule): boolean {
  if (restricts(rule)) return false;
  if (rule.cidr.some((cidr) => cidr.endsWith("/0")) && rule.ports.length === 0) return true;
  const facts = rule.ports.length + rule.protocols.length + rule.methods.length + rule.paths.length;
  return rule.host.includes("*") && facts === 0;
}

function anyWrite(rule: FileRule): boolean {
  if (restricts(rule) || rule.owner.length > 0) return false;
  const writes = rule.operations.some((operation) => operation !== "read" && operation !== "open");
  return writes && isEverything(rule.path, { subtree: true });
}

function wide(rule: string, origin: Origin, message: string, remedy: string): Diagnostic {
  return { severity: "warning", code: "over-wide-allow", message, remedy, rule, layer: "", origin };
}
