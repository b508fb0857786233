// Execs that tell policies apart: for each rule one that it matches, and ones that miss it by little.

import {
  type ExecAction,
  ExecCode,
  ExecutableKind,
  type Process,
} from "../../proto/gen/clawsec/v1/loader.js";
import { nearPaths, sampleArgv, samplePaths, sampleTexts } from "../lint/sample.js";
import type { Action, ArgvPattern, ExecCodeName, ExecKind, ExecRule, Policy, Transition } from "../model.js";

const PLAIN = { subtree: false };
const KINDS: Readonly<Record<ExecKind, ExecutableKind>> = {
  file: ExecutableKind.FILE,
  anonymous: ExecutableKind.ANONYMOUS,
  deleted: ExecutableKind.DELETED,
};

const CODES: Readonly<Record<ExecCodeName, ExecCode>> = {
  file: ExecCode.FILE,
  inline: ExecCode.INLINE,
  module: ExecCode.MODULE,
  stream: ExecCode.STREAM,
};

interface Facts {
  readonly executable: string;
  readonly script?: string;
  readonly code?: ExecCodeName;
  readonly argv?: readonly string[];
  readonly cwd?: string;
  readonly environment?: readonly string[];
  readonly parent?: string;
  readonly ancestors?: readonly string[];
  readonly sha256?: string;
  readonly kind?: ExecKind;
}

/** One exec by a caller that is known. */
export function execAction(policy: Policy, subject: string, facts: Facts): Action {
  const { executable, script = "", sha256 = "" } = facts;
  const value: ExecAction = {
    requestedPath: script || executable,
    executable,
    script,
    argv: [...(facts.argv ?? [script || executable])],
    argvTruncated: false,
    cwd: facts.cwd ?? policy.sandbox.workspace,
    environmentNames: [...(facts.environment ?? [])],
    fileId: "",
    scriptFileId: "",
    kind: KINDS[facts.kind ?? "file"],
    execId: "",
    argvHash: "",
    contextHash: "",
    executableSha256: sha256 || "0".repeat(64),
    scriptSha256: script === "" ? "" : "0".repeat(64),
    nestedScripts: [],
    nestedSha256: [],
    loader: "",
    loaderSha256: "",
    code: facts.code === undefined ? ExecCode.UNSPECIFIED : CODES[facts.code],
    scriptUnknown: "",
    check: false,
  };
  const process: Process = {
    pid: 0,
    sandboxPid: 0,
    uid: policy.sandbox.user.uid,
    gid: policy.sandbox.user.gid,
    execId: "",
    ancestors: [],
    executable: facts.parent ?? "/probe/caller",
    comm: "",
    ancestorExecutables: [...(facts.ancestors ?? [])],
    ancestorsTruncated: false,
  };
  return { subject, process, action: { $case: "exec", value } };
}

/** Probes for one rule by one subject, the most telling first. */
export function execProbes(policy: Policy, rule: ExecRule, subject: string): Action[] {
  const { workspace } = policy.sandbox;
  const executables = samples(rule.executable, "/probe/program");
  const scripts = rule.script.length === 0 ? [undefined] : samples(rule.script, "/probe/script");
  const names = rule.environment.flatMap((pattern) => sampleTexts(pattern, 1)).slice(0, 1);
  const [first = "/probe/program"] = executables;
  const whole: Facts = {
    executable: rule.inWorkspace === true && rule.executable.length === 0 ? `${workspace}/probe` : first,
    ...(scripts[0] === undefined ? {} : { script: scripts[0] }),
    ...(rule.code[0] === undefined ? {} : { code: rule.code[0] }),
    ...(rule.cwd.length === 0 ? {} : { cwd: samples(rule.cwd, workspace)[0] ?? workspace }),
    ...(names.length === 0 ? {} : { environment: names }),
    ...(rule.parent.length === 0 ? {} : { parent: samples(rule.parent, "/probe/parent")[0] ?? "" }),
    ...(rule.ancestor.length === 0 ? {} : { ancestors: samples(rule.ancestor, "/probe/parent").slice(0, 1) }),
    ...(rule.sha256[0] === undefined ? {} : { sha256: rule.sha256[0] }),
    kind: rule.kinds[0] ?? "file",
  };
  const argvs = argvProbes(rule.argv, first);
  const facts: Facts[] = [
    ...argvs.slice(0, 1).map((argv) => ({ ...whole, argv })),
    ...executables.slice(1).map((executable) => ({ ...whole, executable, argv: argvs[0] ?? [executable] })),
    ...argvs.slice(1).map((argv) => ({ ...whole, argv })),
    ...scripts.slice(1).flatMap((script) => (script === undefined ? [] : [{ ...whole, script }])),
    // The same file as a script of an interpreter that no rule names.
    { ...whole, executable: "/probe/interpreter", script: whole.script ?? first },
    ...rule.executable.flatMap((p) => nearPaths(p, PLAIN, 2)).map((executable) => ({ ...whole, executable })),
    { executable: first },
    { ...whole, cwd: "/probe" },
    { ...whole, parent: "/probe/other", ancestors: [] },
    { ...whole, environment: [] },
    { ...whole, sha256: "" },
    ...rule.code.slice(1).map((code) => ({ ...whole, code })),
    ...rule.kinds.slice(1).map((kind) => ({ ...whole, kind })),
  ];
  return facts.map((fact) => execAction(policy, subject, fact));
}

/** Probes for a way into a subject. */
export function wayProbes(policy: Policy, way: Transition): Action[] {
  const [executable = "/probe/program"] = samples(way.executable, "/probe/program");
  const [script] = way.script.length === 0 ? [] : samples(way.script, "/probe/script");
  const argvs = argvProbes(way.argv, executable);
  return way.from.flatMap((from) =>
    argvs.map((argv) =>
      execAction(policy, from, { executable, argv, ...(script === undefined ? {} : { script }) }),
    ),
  );
}

function samples(patterns: readonly string[], otherwise: string): string[] {
  const found = patterns.flatMap((pattern) => samplePaths(pattern, PLAIN, 3));
  return found.length === 0 ? [otherwise] : [...new Set(found)].slice(0, 64);
}

/** Argument lists, the first of which matches as far as can be told without the regular expressions. */
function argvProbes(argv: ArgvPattern | undefined, name: string): string[][] {
  if (argv === undefined) return [[name]];
  const globs = argv.glob === undefined ? [] : sampleArgv(argv.glob, 3);
  const flags = argv.flags.map((names) => names.at(-1) ?? "");
  const fixed = argv.exact ?? argv.prefix ?? [];
  const words = globs.length > 0 ? globs : [[name, ...fixed]];
  const found = words.map((list) => [...list, ...flags]);
  const [whole = [name]] = found;
  for (const names of [...argv.flags, ...argv.without])
    for (const spelling of names) found.push([name, ...fixed, ...flags, spelling]);
  found.push([...whole, "probe"], [name], whole.slice(0, -1));
  return found.slice(0, 16);
}
