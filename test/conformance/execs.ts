// Programs to start, by every way that Linux has, with the facts as they are known from how the files were made.

import { basename } from "node:path/posix";
import { type ExecAction, ExecCode, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt, DriverCall, MeantExec } from "./attempt.js";
import { type Environment, someEnvironment } from "./environment.js";
import type { Feature } from "./features.js";
import { SWAPPED, SWAPS, someInterpreted } from "./interpreted.js";
import { isElsewhereForNode } from "./operands.js";
import { PROGRAMS, type Program, scriptText } from "./programs.js";
import type { Random } from "./random.js";
import { copyOf, type Facts, factsOf, VIAS, type Way, wayTo } from "./ways.js";
import type { World } from "./world.js";

const WORDS = [
  "push",
  "origin",
  "-x",
  "-rf",
  "-r",
  "-f",
  "--force",
  "--recursive",
  "--rec",
  "--to=y",
  "-C",
  "x",
  "--",
  "",
];
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const shown = (argument: Uint8Array): string => new TextDecoder().decode(argument);
/** All arguments together may be this long, each with its end (ExecAction.argv). */
const ARGV_MAX = 128 * 1024;

function argumentsFor(random: Random, program: Program): Uint8Array[] {
  if (program.loads !== undefined) {
    // The loader takes options of its own before the program's name.
    const more = random.chance(50) ? ["push", "-x"] : [];
    const options = random.chance(40) ? random.pick(LOADER_OPTIONS).words : [];
    return [random.pick(["ld.so", "alpha", ""]), ...options, program.loads, ...more].map(bytes);
  }
  const name = basename(program.path);
  return random.weighted<Uint8Array[]>([
    [50, () => [name, ...(random.chance(70) ? random.some(WORDS, 4) : [])].map(bytes)],
    [
      10,
      () => [random.pick(["beta", "push", "", "-x", "/opt/t/bin/beta"]), ...random.some(WORDS, 3)].map(bytes),
    ],
    [6, () => []],
    [
      6,
      () => [
        bytes(name),
        new Uint8Array([0x70, 0xff, 0xfe, 0xc3, 0x28]),
        ...random.some(WORDS, 2).map(bytes),
      ],
    ],
    [4, () => [name, ...Array.from({ length: 300 }, (_, i) => `w${i}`)].map(bytes)],
    [3, () => [bytes(name), bytes("long".repeat(8000)), bytes("push")]],
    [1, () => [bytes(name), ...Array.from({ length: 45 }, () => bytes("long".repeat(1000)))]],
  ]);
}

function programs(world: World): readonly Program[] {
  return [
    ...PROGRAMS,
    { path: world.dynamicLoader, interpreters: [], links: [], loads: "/opt/t/dyn" },
    { path: "/opt/t/dyn", interpreters: [], links: [] },
  ];
}

/** Options of the dynamic loader, the variables that they stand for, and whether clawsec must refuse them. */
const LOADER_OPTIONS = [
  { words: ["--library-path", "/nowhere"], stand: ["LD_LIBRARY_PATH"], isKnown: true },
  { words: ["--preload", "/nowhere.so"], stand: ["LD_PRELOAD"], isKnown: true },
  { words: ["--audit", "/nowhere.so"], stand: ["LD_AUDIT"], isKnown: true },
  { words: ["--inhibit-cache", "--argv0", "other"], stand: [], isKnown: true },
  { words: ["--frobnicate"], stand: [], isKnown: false },
] as const;

const NO_FACTS = {
  fileId: "",
  scriptFileId: "",
  execId: "",
  argvHash: "",
  contextHash: "",
  executableSha256: "",
  scriptSha256: "",
  nestedSha256: [] as string[],
  loaderSha256: "",
  check: false,
};
const UNKNOWN = "it is not known what its interpreter runs";

/** Some exec of a subject. `features`: what may be used. */
export function someExec(
  random: Random,
  { world, features }: { readonly world: World; readonly features: ReadonlySet<Feature> },
  id: string,
  subject: string,
): Attempt {
  const meant =
    features.has("interpreters") && random.chance(45)
      ? anInterpreted(random, world, features, id, subject)
      : aProgram(random, world, features, id, subject);
  const via = random.pick(VIAS);
  const answer = random.chance(50) ? "allow" : "deny";
  const { call, argv, meant: exec } = meant;
  return { id, subject, call: { operation: "exec", ...call, via, argv }, meant: exec, answer };
}

interface Made {
  readonly call: Omit<DriverCall, "operation" | "argv">;
  readonly argv: readonly Uint8Array[];
  readonly meant: MeantExec;
}

function withEnvironment(call: Made["call"], { env, inherit }: Environment): Made["call"] {
  return { ...call, ...(env.length > 0 ? { env } : {}), ...(inherit ? { inherit } : {}) };
}

function environmentOf(
  random: Random,
  features: ReadonlySet<Feature>,
  subject: string,
  more: readonly string[],
): Environment {
  if (features.has("environment")) return someEnvironment(random, subject, more);
  return { env: more, inherit: false, names: more.map((entry) => entry.split("=")[0] ?? "").sort() };
}

function anInterpreted(
  random: Random,
  world: World,
  features: ReadonlySet<Feature>,
  id: string,
  subject: string,
): Made {
  const made = someInterpreted(random, world, id);
  const environment = environmentOf(random, features, subject, made.variables);
  const { call, cwd, executable, loader, kind, code, isUnknown, scripts, opened, image } = made;
  const facts: ExecAction = {
    ...NO_FACTS,
    requestedPath: call.path ?? "",
    executable,
    script: scripts[0] ?? "",
    argv: [...made.argv],
    argvTruncated: false,
    cwd,
    environmentNames: [...environment.names],
    kind,
    nestedScripts: scripts.slice(1),
    loader,
    code,
    scriptUnknown: isUnknown ? UNKNOWN : "",
  };
  const argv = made.argv.map(bytes);
  const { reads, swapped, through } = made;
  const seen = loader === "" ? argv : undefined;
  const meant: MeantExec = {
    kind: "exec",
    facts,
    opened,
    image,
    argv: seen,
    reads,
    swapped,
    through,
    isRefused: false,
  };
  return { call: withEnvironment(call, environment), argv, meant };
}

function aProgram(
  random: Random,
  world: World,
  features: ReadonlySet<Feature>,
  id: string,
  subject: string,
): Made {
  const choice = programs(world).filter(({ known }) => known === undefined || features.has("interpreters"));
  const program = random.pick(choice);
  const { known, loads } = program;
  const argv = argumentsFor(random, program);
  const copied = loads === undefined && program.path !== "/opt/t/dyn" && random.chance(22);
  let call: Way["call"];
  let cwd = "/work";
  let found: Facts;
  if (copied) ({ call, facts: found } = copyOf(random, program, id));
  else {
    ({ call, cwd } = wayTo(random, program));
    found = factsOf(program.path, program.interpreters, ExecutableKind.FILE, program.path);
  }
  const { executable, script, nestedScripts, kind, opened, image } = found;
  const size = argv.reduce((sum, argument) => sum + argument.length + 1, 0);
  const options = LOADER_OPTIONS.find(
    ({ words }) => loads !== undefined && words[0] === shown(argv[1] ?? bytes("")),
  );
  const places = known?.reads.map(([place]) => place) ?? [];
  // A copy belongs to this attempt alone. What a script's interpreter reads first may be another script.
  const swaps = call.how === "copy" && known?.reads[0]?.length === 1 && random.chance(60);
  const more = [
    ...(places.length > 0 ? [`READS=${places.join(",")}`] : []),
    ...(swaps ? [random.pick(SWAPS)] : []),
  ];
  const environment = environmentOf(random, features, subject, more);
  const names = new Set([...environment.names, ...(options?.stand ?? [])]);
  const isNode = basename(executable) === "node";
  const isNameless = isNode && kind !== ExecutableKind.FILE;
  const isElsewhere =
    isNode && isElsewhereForNode(nameGiven(call), copied ? (call.path ?? "") : program.path);
  const facts: ExecAction = {
    ...NO_FACTS,
    requestedPath: call.path ?? "",
    executable: loads ?? executable,
    script,
    argv: argv.length === 0 ? [""] : argv.map(shown),
    argvTruncated: size > ARGV_MAX,
    cwd,
    environmentNames: [...names].sort(),
    kind,
    nestedScripts: [...nestedScripts, ...(known?.beside ?? [])],
    loader: loads === undefined ? "" : program.path,
    code: known === undefined ? ExecCode.UNSPECIFIED : CODES[known.code],
    scriptUnknown: known?.code === "unknown" || isElsewhere ? UNKNOWN : "",
  };
  const meant: MeantExec = {
    kind: "exec",
    facts,
    opened: program.path === "/opt/t/dyn" ? [...opened, world.dynamicLoader] : opened,
    image,
    // Without any argument the kernel adds an empty one.
    argv: script !== "" || loads !== undefined ? undefined : argv.length === 0 ? [bytes("")] : argv,
    reads: (known?.reads ?? []).map(([, path]) =>
      path === undefined && (isNameless || isElsewhere) ? undefined : scriptText(path ?? program.path),
    ),
    swapped: swaps ? SWAPPED : undefined,
    through: [...opened.slice(0, -1), ...leadsThrough(call), ...(known?.beside ?? [])],
    isRefused: options?.isKnown === false,
  };
  return { call: withEnvironment(call, environment), argv, meant };
}

const CODES = { file: ExecCode.FILE, stream: ExecCode.STREAM, unknown: ExecCode.UNKNOWN } as const;

/** The name of the script as its interpreter is given it (execve(2), execveat(2)). */
function nameGiven({ how, path = "" }: Way["call"]): string {
  return how === "dirfd" && !path.startsWith("/") ? `/dev/fd/9/${path}` : path;
}

/** Where a call begins to look for the script. A descriptor of the script itself leads through nothing. */
function leadsThrough({ how, path = "", dir, cwd }: Way["call"]): readonly string[] {
  switch (how) {
    case "memfd":
      return ["memory"];
    case "devfd":
      return ["/dev"];
    case "procfd":
      return ["/proc"];
    case "fd":
    case "opath":
      return [];
    default:
      return [path.startsWith("/") ? path : (dir ?? cwd ?? "/")];
  }
}
