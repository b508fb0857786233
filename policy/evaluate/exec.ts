// Verdicts on execs, the subjects they lead into, and how far an answer may be used again.

import { CacheScope, type ExecAction, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import type { Finding, TraceStep } from "../evaluate.js";
import { type ArgvMatcher, compileArgv } from "../match/argv.js";
import type { Matcher } from "../match/glob.js";
import { compilePath, isCanonical } from "../match/path.js";
import type { ExecKind, ExecRule, Policy, Transition } from "../model.js";
import { firstMatch, once } from "./rules.js";

/** Which facts a decision has looked at. */
class Looked {
  /** Anything that the same file can have otherwise next time: arguments, script, working directory. */
  beyondFile = false;

  scope(kind: ExecKind | undefined): CacheScope {
    // A file without a name is not known again by one.
    if (kind !== "file") return CacheScope.NONE;
    return this.beyondFile ? CacheScope.FILE_ARGV : CacheScope.FILE;
  }
}

interface Patterns {
  readonly executable: readonly Matcher[];
  readonly script: readonly Matcher[];
  readonly cwd: readonly Matcher[];
  readonly argv: ArgvMatcher | undefined;
}

const NONE: readonly string[] = [];

const patternsOf = once((rule: ExecRule | Transition): Patterns => {
  const paths = (patterns: readonly string[]) => patterns.map((p) => compilePath(p, { subtree: false }));
  return {
    executable: paths(rule.executable),
    script: paths(rule.script),
    cwd: paths("cwd" in rule ? rule.cwd : NONE),
    argv: rule.argv?.glob === undefined ? undefined : compileArgv(rule.argv.glob),
  };
});

/**
 * The first fact of the exec that the patterns do not match, or "".
 *
 * `executable` speaks of the image that the kernel loads, which for a script is its interpreter. A rule that
 * restricts also matches by the script's own path, so that "deny /tmp/**" means scripts in /tmp too; a rule that
 * permits never does, since that would permit whatever interpreter the script names.
 */
function mismatch(patterns: Patterns, restricts: boolean, exec: ExecAction, looked: Looked): string {
  if (patterns.executable.length > 0) {
    const byImage = patterns.executable.some((m) => m(exec.executable));
    let byScript = false;
    if (!byImage && restricts && patterns.script.length === 0) {
      looked.beyondFile = true;
      byScript = patterns.executable.some((m) => m(exec.script));
    }
    if (!byImage && !byScript) return "executable";
  }
  if (patterns.script.length > 0) {
    looked.beyondFile = true;
    if (!patterns.script.some((m) => m(exec.script))) return "script";
  }
  if (patterns.cwd.length > 0) {
    looked.beyondFile = true;
    if (!patterns.cwd.some((m) => m(exec.cwd))) return "cwd";
  }
  if (patterns.argv !== undefined) {
    looked.beyondFile = true;
    if (!patterns.argv(exec.argv)) return "argv";
  }
  return "";
}

function kindOf(exec: ExecAction): ExecKind | undefined {
  switch (exec.kind) {
    case ExecutableKind.FILE:
      return "file";
    case ExecutableKind.ANONYMOUS:
      return "anonymous";
    case ExecutableKind.DELETED:
      return "deleted";
    default:
      return undefined;
  }
}

/** A denial that no rule could lift. */
function refused(rule: string, message: string, trace: readonly TraceStep[] = []): Finding {
  return {
    rule: undefined,
    action: "deny",
    fallbackRule: rule,
    fallbackMessage: message,
    cacheScope: CacheScope.NONE,
    enterSubject: "",
    trace,
  };
}

export function evaluateExec(policy: Policy, subject: string, exec: ExecAction): Finding {
  if (exec.argvTruncated)
    return refused("exec/argv-too-long", "its arguments are longer than can be checked");
  const kind = kindOf(exec);
  if (kind === undefined) return refused("exec/unknown-file", "it is not known what kind of file it is");
  if (kind === "file" && !isCanonical(exec.executable))
    return refused("exec/unknown-file", "its path is not known");
  if (!policy.subjects.some((s) => s.name === subject)) {
    return refused("exec/unknown-subject", "the policy does not know the subject of the caller");
  }

  const looked = new Looked();
  const { rule, trace } = firstMatch(policy.exec, subject, (candidate) => {
    if (!candidate.kinds.includes(kind)) return "kind";
    const restricts = candidate.action === "deny" || candidate.action === "hold";
    return mismatch(patternsOf(candidate), restricts, exec, looked);
  });
  if (rule === undefined && kind !== "file") {
    return refused("exec/default", "it has no name in any file system, and no rule allows such files", trace);
  }
  const enterSubject = transition(policy, subject, exec, kind, looked);
  return {
    rule,
    action: rule?.action ?? policy.defaults.exec,
    fallbackRule: "exec/default",
    cacheScope: looked.scope(kind),
    enterSubject,
    trace,
  };
}

/** The subject that an exec leads into: the first, in the order of the policy, with a matching way in. */
function transition(
  policy: Policy,
  subject: string,
  exec: ExecAction,
  kind: ExecKind,
  looked: Looked,
): string {
  if (kind !== "file") return "";
  for (const candidate of policy.subjects) {
    for (const way of candidate.enters) {
      // A way in is neither a permission nor a restriction: it is exact, image by image.
      if (way.from.includes(subject) && mismatch(patternsOf(way), false, exec, looked) === "")
        return candidate.name;
    }
  }
  return "";
}
