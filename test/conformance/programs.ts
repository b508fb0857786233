// Programs and scripts of every sandbox, by their paths in it.

/** A file that can be executed, by its one canonical path in the sandbox. */
export interface Program {
  readonly path: string;
  /** Interpreters, the next one first; the last is the image. Empty for an ELF file. */
  readonly interpreters: readonly string[];
  /** Symbolic links to it. */
  readonly links: readonly string[];
  /** A program that the dynamic loader is told to run: it comes as an argument. */
  readonly loads?: string;
  /** A script whose interpreter is one that is known to run scripts. */
  readonly known?: KnownScript;
}

/** What comes of the first line of a script, as its known interpreter understands it. */
export interface KnownScript {
  /** What it runs; `unknown` where that is more than the script. */
  readonly code: "file" | "stream" | "unknown";
  /**
   * What it reads: places among the arguments that the kernel makes, the first being the interpreter's name; and the
   * path of what lies there, where it is not the script itself.
   */
  readonly reads: readonly (readonly [place: number, path?: string])[];
  /** Scripts that it reads beside. */
  readonly beside: readonly string[];
}

const AS_FILE: KnownScript = { code: "file", reads: [[1]], beside: [] };
const elf = (path: string, ...links: string[]): Program => ({ path, interpreters: [], links });

/** Programs of every sandbox. */
export const PROGRAMS: readonly Program[] = [
  elf("/opt/t/bin/alpha", "/opt/t/bin/to-alpha", "/opt/t/chain", "/work/to-alpha"),
  elf("/opt/t/bin/beta"),
  elf("/opt/t/lib/gamma", "/opt/t/bin/to-gamma"),
  elf("/work/bin/alpha"),
  elf("/work/bin/hard"),
  { path: "/opt/t/s/one.sh", interpreters: ["/opt/t/bin/alpha"], links: ["/work/to-script"] },
  { path: "/opt/t/s/linked.sh", interpreters: ["/opt/t/lib/gamma"], links: [] },
  { path: "/opt/t/s/nest.sh", interpreters: ["/opt/t/s/one.sh", "/opt/t/bin/alpha"], links: [] },
  { path: "/work/my.sh", interpreters: ["/opt/t/bin/beta"], links: [] },
  { path: "/work/nest.sh", interpreters: ["/work/my.sh", "/opt/t/bin/beta"], links: [] },
  { path: "/opt/t/s/run.sh", interpreters: ["/opt/t/i/dash"], links: ["/work/to-run"], known: AS_FILE },
  {
    path: "/opt/t/s/run.py",
    interpreters: ["/opt/t/i/python3.11"],
    links: [],
    known: { ...AS_FILE, reads: [[2]] },
  },
  {
    path: "/opt/t/s/run.js",
    interpreters: ["/opt/t/i/node"],
    links: [],
    known: { code: "file", reads: [[2], [1, "/opt/t/s/a.sh"]], beside: ["/opt/t/s/a.sh"] },
  },
  {
    path: "/opt/t/s/stdin.sh",
    interpreters: ["/opt/t/i/dash"],
    links: [],
    known: { code: "stream", reads: [], beside: [] },
  },
  {
    path: "/work/both.py",
    interpreters: ["/opt/t/i/python3.11"],
    links: [],
    known: { code: "unknown", reads: [], beside: [] },
  },
  { path: "/work/run.sh", interpreters: ["/opt/t/i/bash"], links: [], known: AS_FILE },
  {
    path: "/work/sub/run.pl",
    interpreters: ["/opt/t/i/perl5.36.0"],
    links: [],
    known: { ...AS_FILE, reads: [[2]] },
  },
  {
    path: "/work/deep.sh",
    interpreters: ["/opt/t/s/run.sh", "/opt/t/i/dash"],
    links: [],
    known: { ...AS_FILE, reads: [[1, "/opt/t/s/run.sh"]] },
  },
];

/** The same of every sandbox: scripts with a first line, and such as an interpreter is given. */
export const SCRIPTS: Readonly<Record<string, string>> = {
  "/opt/t/s/one.sh": "#!/opt/t/bin/alpha -x",
  "/opt/t/s/linked.sh": "#! /opt/t/bin/to-gamma",
  "/opt/t/s/nest.sh": "#!/opt/t/s/one.sh two words",
  "/opt/t/s/run.sh": "#!/opt/t/i/sh",
  "/opt/t/s/run.py": "#!/opt/t/i/python3 -u",
  "/opt/t/s/run.js": "#!/opt/t/i/node --require=/opt/t/s/a.sh",
  "/opt/t/s/stdin.sh": "#! /opt/t/i/dash -s",
  "/opt/t/s/a.sh": "# a",
  "/opt/t/s/m.mjs": "import 'm'",
  "/opt/t/s/pkg/__main__.py": "# of the folder",
  "/opt/t/s/pkg/index.js": "// of the folder",
  "/opt/t/s/bare.js": "// found without its extension",
  "/work/my.sh": "#!/opt/t/bin/beta",
  "/work/nest.sh": "#!/work/my.sh -n",
  // Standard input comes after it.
  "/work/both.py": "#!/opt/t/i/python3 -i",
  "/work/run.sh": "#!/opt/t/i/bash",
  "/work/sub/run.pl": "#!/opt/t/i/perl -w",
  "/work/deep.sh": "#!/opt/t/s/run.sh",
  "/work/b.sh": "# b",
  "/work/sub/c.js": "// export c",
};

/** What is in a script of the world. */
export function scriptText(path: string): string {
  const first = SCRIPTS[path];
  if (first === undefined) throw new Error(`${path} is no script of the world.`);
  return `${first}\nrest of ${path}\n`;
}

/** A program that is named like an interpreter, and the grammar of its arguments. */
export interface Interpreter {
  readonly path: string;
  readonly links: readonly string[];
  readonly grammar: "shell" | "bash" | "python" | "node" | "perl" | "busybox";
}

/** They stand for interpreters: driver/interpreter.c. */
export const INTERPRETERS: readonly Interpreter[] = [
  { path: "/opt/t/i/dash", links: ["/opt/t/i/sh", "/work/to-dash"], grammar: "shell" },
  { path: "/opt/t/i/bash", links: [], grammar: "bash" },
  { path: "/opt/t/i/python3.11", links: ["/opt/t/i/python3"], grammar: "python" },
  { path: "/opt/t/i/node", links: ["/opt/t/i/js"], grammar: "node" },
  { path: "/opt/t/i/perl5.36.0", links: ["/opt/t/i/perl"], grammar: "perl" },
  { path: "/opt/t/i/busybox", links: ["/opt/t/i/ash"], grammar: "busybox" },
  { path: "/work/bin/dash", links: [], grammar: "shell" },
  { path: "/work/bin/python3", links: [], grammar: "python" },
];
/** The same for the dynamic loader. */
export const LOADED_INTERPRETERS: readonly Interpreter[] = [
  { path: "/opt/t/y/bash", links: [], grammar: "bash" },
  { path: "/opt/t/y/perl", links: [], grammar: "perl" },
];
