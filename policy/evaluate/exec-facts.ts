// The facts of an exec, and what rules want of them.

import { type ExecAction, ExecCode, type Process } from "../../proto/gen/clawsec/v1/loader.js";
import { categoriesOf } from "../categories.js";
import { type ArgvMatcher, compileArgvPattern } from "../match/argv.js";
import { compileText, type Matcher } from "../match/glob.js";
import { compilePath, isCanonical, isWithin } from "../match/path.js";
import type { ArgvPattern, ExecCodeName, ExecKind, ExecRule, FlagNames, Transition } from "../model.js";
import { type Fact, picker, type Ready, ready, restricts, subjectFact, type Unknown } from "./facts.js";
import { once } from "./rules.js";

/** One exec, and which of its facts a decision has looked at. */
export interface AskedExec {
  readonly subject: string;
  readonly exec: ExecAction;
  readonly kind: ExecKind;
  readonly process: Process | undefined;
  readonly workspace: string;
  readonly looked: {
    /** At what the same file can have otherwise next time: arguments, script, working directory. */
    beyondFile: boolean;
    /** At what no cache knows: environment, callers. */
    beyondCache: boolean;
    /** At what the caller can still change before the exec. */
    cwd: boolean;
    environment: boolean;
    script: boolean;
  };
}

export interface ReadyExec extends Ready<ExecRule, ReadyExec, AskedExec> {
  readonly executable: readonly Matcher[];
  readonly script: readonly Matcher[];
  readonly cwd: readonly Matcher[];
  readonly parent: readonly Matcher[];
  readonly ancestor: readonly Matcher[];
  readonly environment: readonly Matcher[];
  readonly sha256: ReadonlySet<string>;
  readonly argv: ArgvMatcher | undefined;
}

// Shared, since most rules say something about one fact only, and there may be many rules.
const NO_PATTERNS: readonly Matcher[] = [];
const NO_HASHES: ReadonlySet<string> = new Set();

const paths = (patterns: readonly string[]) =>
  patterns.length === 0 ? NO_PATTERNS : patterns.map((p) => compilePath(p, { subtree: false }));
const argvOf = (pattern: ArgvPattern | undefined, restricting: boolean) =>
  pattern === undefined ? undefined : compileArgvPattern(pattern, restricting);

export function readyExec(rule: ExecRule): ReadyExec {
  return {
    ...ready<ExecRule, ReadyExec, AskedExec>(rule, execFacts(rule)),
    executable: paths(rule.executable),
    script: paths(rule.script),
    cwd: paths(rule.cwd),
    parent: paths(rule.parent),
    ancestor: paths(rule.ancestor),
    environment: rule.environment.length === 0 ? NO_PATTERNS : rule.environment.map(compileText),
    sha256: rule.sha256.length === 0 ? NO_HASHES : new Set(rule.sha256),
    argv: argvOf(rule.argv, restricts(rule)),
  };
}

const some = (matchers: readonly Matcher[], text: string) => matchers.some((m) => m(text));

/** Whether a rule's `executable` also speaks of the script: then a restriction cannot be dodged by a "#!" line. */
export function coversScripts(rule: ExecRule): boolean {
  return restricts(rule) && rule.executable.length > 0 && rule.script.length === 0;
}

function isExecutable({ rule, restricts, executable }: ReadyExec, asked: AskedExec): boolean | Unknown {
  const { loader, scriptUnknown } = asked.exec;
  // A loader that runs a program: a restriction of either holds, and a permission is one of both.
  const images = loader === "" ? [asked.exec.executable] : [asked.exec.executable, loader];
  const fits = (image: string) => some(executable, image);
  if (restricts ? images.some(fits) : images.every(fits)) return true;
  if (!coversScripts(rule)) return false;
  asked.looked.beyondFile = true;
  const byScript = scriptsOf(asked.exec).some((script) => some(executable, script));
  // Only what it restricts: a script that it does not name could as well be given to its interpreter by hand.
  if (byScript) asked.looked.script = true;
  return byScript || unknownScript(scriptUnknown);
}

/** What is to be said of a script when none of those that are known is meant. */
function unknownScript(sentence: string): false | Unknown {
  return sentence !== "" && { unknown: sentence };
}

function lookAtScript({ exec, looked }: AskedExec): void {
  looked.beyondFile = true;
  looked.script ||= exec.script !== "";
}

/** The script that was named and those that interpret it; none for a program. */
export function scriptsOf({ script, nestedScripts }: ExecAction): readonly string[] {
  return script === "" ? [] : [script, ...nestedScripts];
}

function hasContent({ rule, restricts, sha256 }: ReadyExec, asked: AskedExec): boolean | Unknown {
  const { script, executableSha256, scriptSha256, nestedScripts, nestedSha256 } = asked.exec;
  const { loader, loaderSha256, scriptUnknown } = asked.exec;
  const isOne = (hash: string) => sha256.has(hash);
  const images = loader === "" ? [executableSha256] : [executableSha256, loaderSha256];
  if (restricts ? images.some(isOne) : images.every(isOne)) return true;
  lookAtScript(asked);
  if (!restricts && (loader !== "" || scriptUnknown !== "")) return false;
  // A right by a script's content alone would be a right to whatever interpreter it names.
  const byScript = restricts || rule.executable.length > 0 || rule.script.length > 0;
  const scripts = [scriptSha256, ...nestedSha256];
  if (script !== "" && byScript && (restricts ? scripts.some(isOne) : scripts.every(isOne))) return true;
  const known = !images.includes("") && (script === "" || scripts.every((hash) => hash !== ""));
  if (known && nestedSha256.length === nestedScripts.length) return unknownScript(scriptUnknown);
  return { unknown: "the hash of the file is not known" };
}

/**
 * Of the image and the script. Where the two differ, the answer is the one that makes the rule stricter: a
 * restriction holds for what lies in the workspace (or outside it) if either does; a permission to run what lies in
 * the workspace holds by the script alone only if the rule names its interpreter.
 */
function isInWorkspace({ rule, restricts }: ReadyExec, asked: AskedExec): boolean | Unknown {
  lookAtScript(asked);
  const fits = (path: string) => isWithin(path, asked.workspace) === rule.inWorkspace;
  const image = fits(asked.exec.executable);
  const { loader, scriptUnknown } = asked.exec;
  const scripts = [...scriptsOf(asked.exec), ...(loader === "" ? [] : [loader])];
  if (restricts) return image || scripts.some(fits) || unknownScript(scriptUnknown);
  if (scriptUnknown !== "") return false;
  if (rule.inWorkspace)
    return image || (scripts.length > 0 && scripts.every(fits) && rule.executable.length > 0);
  return image && scripts.every(fits);
}

function callers(asked: AskedExec): readonly string[] {
  const { process } = asked;
  return process === undefined ? [] : [process.executable, ...process.ancestorExecutables];
}

function hasParent({ parent }: ReadyExec, asked: AskedExec): boolean | Unknown {
  asked.looked.beyondCache = true;
  const image = asked.process?.executable ?? "";
  if (!isCanonical(image)) return { unknown: "the program that calls is not known" };
  return some(parent, image);
}

function hasAncestor({ ancestor }: ReadyExec, asked: AskedExec): boolean | Unknown {
  asked.looked.beyondCache = true;
  const images = callers(asked);
  if (images.some((image) => some(ancestor, image))) return true;
  if (asked.process?.ancestorsTruncated === true) {
    return { unknown: "more programs led to it than can be checked" };
  }
  if (images.length === 0 || !images.every(isCanonical)) {
    return { unknown: "the programs that led to it are not known" };
  }
  return false;
}

/** As the policy calls it; "" for a program that is no known interpreter. */
function codeOf({ code }: ExecAction): ExecCodeName | "" | "unknown" {
  switch (code) {
    case ExecCode.UNSPECIFIED:
      return "";
    case ExecCode.FILE:
      return "file";
    case ExecCode.INLINE:
      return "inline";
    case ExecCode.MODULE:
      return "module";
    case ExecCode.STREAM:
      return "stream";
    default:
      return "unknown";
  }
}

const list = (texts: readonly string[]) => texts.join(", ");

/** In the order in which they are compared: first those that the index knows. */
const EXEC_FACTS: readonly Fact<ExecRule, ReadyExec, AskedExec>[] = [
  subjectFact(),
  {
    name: "kind",
    isSaid: () => true,
    holds: ({ rule }, asked) => rule.kinds.includes(asked.kind),
    is: (asked) => asked.kind,
    wants: (rule) => list(rule.kinds),
  },
  {
    name: "executable",
    isSaid: (rule) => rule.executable.length > 0,
    holds: isExecutable,
    is: ({ exec }) => exec.executable,
    wants: (rule) => list(rule.executable),
  },
  {
    name: "script",
    isSaid: (rule) => rule.script.length > 0,
    holds: ({ script, restricts }, asked) => {
      lookAtScript(asked);
      const scripts = scriptsOf(asked.exec);
      const fits = (path: string) => some(script, path);
      const { scriptUnknown } = asked.exec;
      if (restricts) return scripts.some(fits) || unknownScript(scriptUnknown);
      return scriptUnknown === "" && scripts.length > 0 && scripts.every(fits);
    },
    is: ({ exec }) => list(scriptsOf(exec)),
    wants: (rule) => list(rule.script),
  },
  {
    name: "sha256",
    isSaid: (rule) => rule.sha256.length > 0,
    holds: hasContent,
    is: ({ exec }) =>
      list([exec.executableSha256, exec.scriptSha256, ...exec.nestedSha256].filter((hash) => hash !== "")),
    wants: (rule) => list(rule.sha256),
  },
  {
    name: "inWorkspace",
    isSaid: (rule) => rule.inWorkspace !== undefined,
    holds: isInWorkspace,
    is: ({ exec }) => list([exec.executable, ...scriptsOf(exec)]),
    wants: (rule) => String(rule.inWorkspace),
  },
  {
    name: "code",
    isSaid: (rule) => rule.code.length > 0,
    holds: ({ rule }, asked) => {
      asked.looked.beyondFile = true;
      const code = codeOf(asked.exec);
      if (code === "unknown")
        return unknownScript(asked.exec.scriptUnknown || "it is not known what its interpreter runs");
      return code !== "" && rule.code.includes(code);
    },
    is: ({ exec }) => codeOf(exec),
    wants: (rule) => list(rule.code),
  },
  {
    name: "cwd",
    isSaid: (rule) => rule.cwd.length > 0,
    holds: ({ cwd }, asked) => {
      asked.looked.beyondFile = true;
      asked.looked.cwd = true;
      return some(cwd, asked.exec.cwd);
    },
    is: ({ exec }) => exec.cwd,
    wants: (rule) => list(rule.cwd),
  },
  {
    name: "argv",
    isSaid: (rule) => rule.argv !== undefined,
    holds: ({ argv }, asked) => {
      asked.looked.beyondFile = true;
      return argv === undefined || argv(asked.exec.argv);
    },
    is: ({ exec }) => JSON.stringify(exec.argv),
    wants: (rule) => wantedArgv(rule.argv),
  },
  {
    name: "environment",
    isSaid: (rule) => rule.environment.length > 0,
    holds: ({ environment }, asked) => {
      asked.looked.beyondCache = true;
      asked.looked.environment = true;
      return environment.some((m) => asked.exec.environmentNames.some(m));
    },
    is: ({ exec }) => list(exec.environmentNames),
    wants: (rule) => list(rule.environment),
  },
  {
    name: "parent",
    isSaid: (rule) => rule.parent.length > 0,
    holds: hasParent,
    is: ({ process }) => process?.executable ?? "",
    wants: (rule) => list(rule.parent),
  },
  {
    name: "ancestor",
    isSaid: (rule) => rule.ancestor.length > 0,
    holds: hasAncestor,
    is: (asked) => list(callers(asked)),
    wants: (rule) => list(rule.ancestor),
  },
  {
    name: "category",
    isSaid: (rule) => rule.category.length > 0,
    holds: ({ rule }, asked) => {
      lookAtScript(asked);
      asked.looked.cwd = true;
      const has = categoriesOf(asked.exec);
      return rule.category.some((category) => has.includes(category));
    },
    is: ({ exec }) => list(categoriesOf(exec)),
    wants: (rule) => list(rule.category),
  },
];

const execFacts = picker(EXEC_FACTS);

/** The conditions that there are, as the policy writes them. */
function wantedArgv(argv: ArgvPattern | undefined): string {
  const said = Object.entries(argv ?? {}).filter(([, value]) => value !== undefined && value.length > 0);
  const written = said.map(([key, value]) =>
    key === "flags" || key === "without"
      ? [key, value.map((names: FlagNames) => names.join("|"))]
      : [key, value],
  );
  return JSON.stringify(Object.fromEntries(written));
}

const wayOf = once((way: Transition) => ({
  executable: paths(way.executable),
  script: paths(way.script),
  argv: argvOf(way.argv, false),
}));

/** Whether an exec takes a way into a subject. It is neither a permission nor a restriction: exact, image by image. */
export function takesWay(way: Transition, asked: AskedExec): boolean {
  const { executable, script, argv } = wayOf(way);
  const { exec, looked } = asked;
  if (!way.from.includes(asked.subject)) return false;
  // Who enters by the loader could bring another loader.
  if (exec.loader !== "") return false;
  if (executable.length > 0 && !some(executable, exec.executable)) return false;
  if (script.length > 0) lookAtScript(asked);
  if (argv !== undefined) looked.beyondFile = true;
  return (script.length === 0 || some(script, exec.script)) && (argv === undefined || argv(exec.argv));
}
