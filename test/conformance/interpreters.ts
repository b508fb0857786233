// Arguments for interpreters, with what they mean, from the interpreters' manuals: dash(1), bash(1), python(1), node(1),
// perlrun(1). What is not in a manual at all stands for an option that nobody knows.

import { ExecCode } from "../../proto/gen/clawsec/v1/loader.js";
import type { Interpreter } from "./programs.js";
import type { Random } from "./random.js";

/** An argument: a text, or a file (0 the script, 1 another), with a text before its name. */
export type Word = string | { readonly file: 0 | 1; readonly after?: string };

/** What an interpreter is told to do. */
export interface Told {
  /** All but its own name. */
  readonly words: readonly Word[];
  readonly code: ExecCode;
  /** The files that it runs or loads by these words, the script first. */
  readonly files: readonly (0 | 1)[];
  /** That is not certain, or not all that runs. */
  readonly isUnknown: boolean;
}

const F: Word = { file: 0 };
const G: Word = { file: 1 };
const after = (text: string, file: 0 | 1 = 0): Word => ({ file, after: text });

interface Grammar {
  /** Options that leave open what runs. */
  readonly plain: readonly (readonly string[])[];
  /** What ends the options. */
  readonly ends: readonly string[];
  readonly inline: readonly (readonly Word[])[];
  readonly module: readonly (readonly Word[])[];
  readonly stream: readonly (readonly Word[])[];
  /** Another file before the script. */
  readonly both: readonly (readonly Word[])[];
  /** Not certain which file is the script, or that it is all that runs. */
  readonly unknown: readonly (readonly Word[])[];
}

const CODE = "say 1";
/** Options of nobody. */
const STRANGE: readonly (readonly Word[])[] = [
  ["--frobnicate", F],
  ["--frobnicate", "x", F],
];

const SHELL: Grammar = {
  plain: [["-e"], ["-eu"], ["-o", "nounset"], ["+x"], ["-ao", "nounset"], ["+o", "noglob"], ["-x", "-f"]],
  ends: ["--", "-"],
  inline: [
    ["-c", CODE],
    ["-ec", CODE],
    ["-c", "-e", CODE],
    ["-o", "nounset", "-c", CODE, F],
    ["-c", "--", CODE],
    ["-c", CODE, F, "-s"],
  ],
  module: [],
  stream: [[], ["-s"], ["-s", F], ["-e"], ["-es", "--", F], ["-i"], ["-"], ["/dev/null"]],
  both: [],
  // dash goes on with standard input behind the code.
  unknown: [...STRANGE, ["-Z", F], ["-sc", CODE], ["-c", "-s", CODE]],
};

const BASH: Grammar = {
  ...SHELL,
  // Long options only stand before the others.
  plain: [
    ["--norc"],
    ["--noprofile", "--norc"],
    ["-norc"],
    ["--rcfile", "/dev/null"],
    ["--posix", "-x"],
    ...SHELL.plain,
    ["-O", "extglob"],
    ["+O", "nullglob"],
    ["-euo", "pipefail"],
    ["-l"],
    ["-xO", "extglob"],
  ],
  inline: [...SHELL.inline, ["-co", "errexit", CODE], ["--norc", "-xc", CODE], ["-sc", CODE]],
  both: [
    ["--rcfile", G, F],
    ["--norc", "--init-file", G, F],
    ["--rcfile", G, "-x", "--", F],
  ],
  // With what it reads before, there is standard input, or code.
  unknown: [
    ...STRANGE,
    ["-Z", F],
    ["-x", "--norc", F],
    ["--rcfile", F],
    ["--rcfile", F, "-i"],
    ["--rcfile", F, "-s"],
    ["--rcfile", F, "-ic", CODE],
  ],
};

const PYTHON: Grammar = {
  plain: [
    ["-u"],
    ["-W", "ignore"],
    ["-Wignore"],
    ["-X", "dev"],
    ["-Xutf8"],
    ["-bB"],
    ["-O", "-OO"],
    ["-Is"],
    ["-uW", "ignore"],
    ["--check-hash-based-pycs", "always"],
  ],
  ends: ["--"],
  inline: [["-c", CODE], ["-cpass"], ["-uc", CODE, F], ["-Ic", CODE, "-m"], ["-W", "ignore", "-c", CODE]],
  module: [["-m", "mod"], ["-Im", "mod", F], ["-mmod"], ["-X", "dev", "-m", "mod", "-c", CODE]],
  stream: [[], ["-"], ["-u"], ["-", F], ["-i"], ["-i", "-"], ["-u", "-", F], ["/dev/null"]],
  both: [],
  unknown: [...STRANGE, ["-Z", F], ["-i", F], ["-ui", F], ["-ic", CODE], ["-i", "-m", "mod"]],
};

const NODE: Grammar = {
  plain: [
    ["--no-warnings"],
    ["--max-old-space-size=100"],
    ["--title", "x"],
    ["--title=x"],
    ["--conditions", "y"],
    ["-C", "z"],
    ["--enable-source-maps"],
    ["--expose_gc"],
    ["--require", "pkg"],
    ["-r", "pkg"],
    ["--trace-warnings"],
    // Without a value, the result of the script is what it would print.
    ["-p", "--no-warnings"],
    ["--print", "--no-deprecation"],
  ],
  ends: ["--"],
  inline: [
    ["-e", CODE],
    ["--eval", CODE],
    ["--eval=1"],
    ["-p", CODE],
    ["-pe", CODE],
    ["--print", CODE, F],
    ["--no-warnings", "-e", CODE],
    ["-e", CODE, "--title", "x", F],
    ["-p", F],
  ],
  module: [["--run", "x"], ["--test"], ["--test", "--no-warnings"]],
  stream: [[], ["-"], ["--no-warnings"], ["-i"], ["-", F], ["--no-warnings", "-", F], ["/dev/null"], ["-p"]],
  both: [
    ["--require", G, F],
    ["-r", G, F],
    [after("--require=", 1), F],
    [after("--import=", 1), "--no-warnings", F],
    ["--title", "x", "-r", G, "--", F],
    ["--test", F, G],
  ],
  unknown: [
    ...STRANGE,
    ["--env-file=E", F],
    ["--openssl-config=E", F],
    ["--snapshot-blob", "E", F],
    ["--import", "data:text/javascript,1", F],
    ["-r", F],
    ["-r", F, "-"],
    ["-r", F, "-e", CODE],
    ["-e", CODE, "-r", F],
    ["-i", "-e", CODE],
    ["-e", CODE, "-i", F],
  ],
};

const PERL: Grammar = {
  plain: [
    ["-w"],
    ["-T"],
    ["-I", "lib"],
    ["-Ilib"],
    ["-Mstrict"],
    ["-0777"],
    ["-lw"],
    ["-an", "-F:"],
    ["-i.bak", "-p"],
    ["-s"],
    ["-CS"],
    ["-x"],
  ],
  ends: ["--"],
  inline: [
    ["-e", CODE],
    ["-E", CODE],
    ["-ne", CODE, F],
    ["-we", CODE],
    ["-lne", CODE],
    ["-e", CODE, "-e", CODE],
    ["-efoo", F],
    ["-Mstrict", "-e", CODE],
    ["-Mstrict;print 1", "-e", CODE],
    ["-0777ne", CODE],
  ],
  module: [],
  stream: [[], ["-"], ["-w"], ["-", F], ["--", "-"], ["-wT"], ["/dev/null"]],
  both: [],
  // Behind code in the name of a module perl reads its script as well.
  unknown: [
    ...STRANGE,
    ["-d", F],
    ["-wd", F],
    ["-d:Foo", F],
    ["-S", F],
    ["-Z", F],
    ["-i -e", F],
    ["-Mstrict;print 1", F],
    ["-Ve", CODE],
  ],
};

const GRAMMARS = {
  shell: SHELL,
  bash: BASH,
  python: PYTHON,
  node: NODE,
  perl: PERL,
  busybox: SHELL,
} as const;

/** Random arguments for an interpreter. */
export function someWords(random: Random, grammar: Interpreter["grammar"]): Told {
  const { plain, ends, inline, module, stream, both, unknown } = GRAMMARS[grammar];
  const before = random.chance(60) ? random.some(plain, 2).flat() : [];
  const more = random.chance(40) ? random.some(["push", "-x", "-c", "--force", "origin", "-"], 3) : [];
  const told = (
    words: readonly Word[],
    code: ExecCode,
    files: Told["files"] = [],
    isUnknown = false,
  ): Told => ({
    words,
    code,
    files,
    isUnknown,
  });
  const one = (list: readonly (readonly Word[])[], code: ExecCode) =>
    list.length === 0 ? told(stream[0] ?? [], ExecCode.STREAM) : told(random.pick(list), code);
  // To `node --test`, what comes behind would be files, too.
  const withAnother = (words: readonly Word[]) =>
    told([...words, ...(words[0] === "--test" ? [] : more)], ExecCode.FILE, [0, 1]);
  return random.weighted<Told>([
    [
      50,
      () => {
        const end = random.chance(25) ? [random.pick(ends)] : [];
        return told([...before, ...end, F, ...more], ExecCode.FILE, [0]);
      },
    ],
    [14, () => one(inline, ExecCode.INLINE)],
    [8, () => one(module, ExecCode.MODULE)],
    [12, () => one(stream, ExecCode.STREAM)],
    [
      10,
      () => (both.length === 0 ? told([...before, F], ExecCode.FILE, [0]) : withAnother(random.pick(both))),
    ],
    [12, () => told(random.pick(unknown), ExecCode.UNKNOWN, [], true)],
  ]);
}
