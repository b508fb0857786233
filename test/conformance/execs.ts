// Programs to start, by every way that Linux has, with the facts as they are known from how the files were made.

import { basename, dirname, relative } from "node:path/posix";
import { type ExecAction, ExecCode, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt, DriverCall, MeantExec } from "./attempt.js";
import type { Random } from "./random.js";
import { PROGRAMS, type Program, type World } from "./world.js";

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
const FOLDERS = ["/work", "/work/sub", "/opt/t", "/opt/t/bin", "/"] as const;
const VIAS = ["fork", "fork", "vfork", "spawn", "thread"] as const;

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const shown = (argument: Uint8Array): string => new TextDecoder().decode(argument);
/** All arguments together may be this long, each with its end (ExecAction.argv). */
const ARGV_MAX = 128 * 1024;

function argumentsFor(random: Random, program: Program): Uint8Array[] {
  if (program.loads !== undefined) {
    // The loader takes options of its own before the program's name.
    const more = random.chance(50) ? ["push", "-x"] : [];
    return [random.pick(["ld.so", "alpha", ""]), program.loads, ...more].map(bytes);
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

interface Way {
  readonly call: Omit<DriverCall, "operation" | "argv">;
  readonly cwd: string;
}

function down(from: string, to: string): string {
  return relative(from, to) || ".";
}

/** A path, or a descriptor, that leads to the file. */
function wayTo(random: Random, program: Program): Way {
  const { path } = program;
  const names = [path, ...program.links];
  const cwd = random.pick(FOLDERS);
  const name = random.pick(names);
  const plain = (spelled: string, how = "path"): Way => ({ call: { how, path: spelled, cwd }, cwd });
  return random.weighted<Way>([
    [20, () => plain(name)],
    [12, () => plain(name === path ? path : name)],
    [14, () => plain(cwd === "/" ? path.slice(1) : down(cwd, name))],
    [6, () => plain(`/proc/self/root${name}`)],
    [6, () => plain(`/proc/self/cwd/${down(cwd, name)}`)],
    [4, () => plain(`/proc/thread-self/root${name}`)],
    [6, () => plain(`/${dirname(name)}/.//${basename(name)}`)],
    [4, () => plain(`${dirname(path)}/../${basename(dirname(path))}/${basename(path)}`)],
    [
      8,
      () => {
        const dir = random.pick(FOLDERS);
        return { call: { how: "dirfd", dir, path: down(dir, name), cwd }, cwd };
      },
    ],
    [6, () => plain(name, "fd")],
    [6, () => plain(name, "opath")],
    [4, () => plain(name, "devfd")],
    [4, () => plain(name, "procfd")],
  ]);
}

interface Facts extends Pick<ExecAction, "executable" | "script" | "nestedScripts" | "kind"> {
  readonly opened: readonly string[];
  readonly image: string;
}

function factsOf(path: string, interpreters: readonly string[], kind: ExecutableKind, image: string): Facts {
  const last = interpreters.at(-1);
  const named = kind === ExecutableKind.FILE || kind === ExecutableKind.DELETED ? [path] : [];
  return {
    executable: last ?? path,
    script: last === undefined ? "" : path,
    nestedScripts: interpreters.slice(0, -1),
    kind,
    opened: [...named, ...interpreters],
    image: last ?? image,
  };
}

/** Copies of a program: under another name, without a name, in memory, where nothing can be executed. */
function copyOf(random: Random, program: Program, id: string): { call: Way["call"]; facts: Facts } {
  const { interpreters } = program;
  const source = program.path;
  const { FILE, DELETED, ANONYMOUS } = ExecutableKind;
  return random.weighted<{ call: Way["call"]; facts: Facts }>([
    [
      4,
      () => {
        const path = `${random.pick(["/work", "/work/bin"])}/c${id}`;
        return { call: { how: "copy", path, source }, facts: factsOf(path, interpreters, FILE, path) };
      },
    ],
    [
      3,
      () => {
        const path = `/work/d${id}`;
        return {
          call: { how: "deleted", path, source },
          facts: factsOf(path, interpreters, DELETED, `${path} (deleted)`),
        };
      },
    ],
    [
      4,
      () => {
        const path = `/memfd:m${id}`;
        return {
          call: { how: "memfd", target: `m${id}`, source },
          facts: factsOf(path, interpreters, ANONYMOUS, `${path} (deleted)`),
        };
      },
    ],
    [
      2,
      () => {
        const path = `/tmp/c${id}`;
        return { call: { how: "copy", path, source }, facts: factsOf(path, interpreters, FILE, path) };
      },
    ],
  ]);
}

function programs(world: World): readonly Program[] {
  return [
    ...PROGRAMS,
    { path: world.dynamicLoader, interpreters: [], links: [], loads: "/opt/t/dyn" },
    { path: "/opt/t/dyn", interpreters: [], links: [] },
  ];
}

/** Some exec of a subject. */
export function someExec(random: Random, world: World, id: string, subject: string): Attempt {
  const program = random.pick(programs(world));
  const argv = argumentsFor(random, program);
  const copied = program.loads === undefined && program.path !== "/opt/t/dyn" && random.chance(22);
  let call: Way["call"];
  let cwd = "/work";
  let facts: Facts;
  if (copied) ({ call, facts } = copyOf(random, program, id));
  else {
    ({ call, cwd } = wayTo(random, program));
    facts = factsOf(program.path, program.interpreters, ExecutableKind.FILE, program.path);
  }
  const { executable, script, nestedScripts, kind, opened, image } = facts;
  const size = argv.reduce((sum, argument) => sum + argument.length + 1, 0);
  const needsLoader = program.path === "/opt/t/dyn";
  const meant: MeantExec = {
    kind: "exec",
    facts: {
      requestedPath: call.path ?? "",
      executable: program.loads ?? executable,
      script,
      argv: argv.length === 0 ? [""] : argv.map(shown),
      argvTruncated: size > ARGV_MAX,
      cwd,
      environmentNames: [],
      fileId: "",
      scriptFileId: "",
      kind,
      execId: "",
      argvHash: "",
      executableSha256: "",
      scriptSha256: "",
      nestedScripts,
      nestedSha256: [],
      loader: program.loads === undefined ? "" : program.path,
      loaderSha256: "",
      code: ExecCode.UNSPECIFIED,
      scriptUnknown: "",
      check: false,
    },
    opened: needsLoader ? [...opened, world.dynamicLoader] : opened,
    image,
    // Without any argument the kernel adds an empty one.
    argv: script !== "" || program.loads !== undefined ? undefined : argv.length === 0 ? [bytes("")] : argv,
  };
  const via = random.pick(VIAS);
  const answer = random.chance(50) ? "allow" : "deny";
  return { id, subject, call: { operation: "exec", ...call, via, argv }, meant, answer };
}
