// What runs in the place of a script: of one that a person approved, and of one that a rule allows.

import { chownSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AGENT } from "../place.js";
import { inBox, makeBox, onHost, textOf, until } from "./box.js";
import type { Solo } from "./way.js";

const PYTHON_EVIL = "open('mark', 'w').write('EVIL')";
const NODE_EVIL = "require('fs').writeFileSync('mark', 'EVIL')";

interface Swap {
  readonly id: string;
  readonly tries: string;
  /** The script that is held, and what it contains. */
  readonly script: string;
  readonly content: string;
  /** Shell text before its interpreter is started, the start, and what happens while a person looks at it. */
  readonly before?: string;
  readonly start: string;
  readonly swap: string;
  /** The interpreter is killed or fails, so that neither the one nor the other runs. */
  readonly ends?: true;
}

const SHELL = "echo GOOD > mark\n";
const PYTHON = "open('mark', 'w').write('GOOD')\n";

const SWAPS: readonly Swap[] = [
  {
    id: "pipe",
    tries: "a pipe under the name of a held script",
    script: "held.sh",
    content: SHELL,
    start: "bash held.sh",
    swap: "mv held.sh was; mkfifo held.sh; (echo 'echo EVIL > mark' > held.sh) & sleep 0.1",
  },
  {
    id: "folder",
    tries: "a folder with a program under the name of a held script",
    script: "held.py",
    content: PYTHON,
    start: "python3 held.py",
    swap: `mv held.py was; mkdir held.py; echo "${PYTHON_EVIL}" > held.py/__main__.py`,
  },
  {
    id: "path",
    tries: "nothing under the name of a held script, and another one of that name in PATH",
    script: "held",
    content: SHELL,
    before: "mkdir elsewhere; echo 'echo EVIL > mark' > elsewhere/held",
    start: "PATH=$PWD/elsewhere:$PATH bash held",
    swap: "mv held was",
  },
  {
    id: "second-name",
    tries: "a second name of a held script, which its interpreter opens first",
    script: "held.py",
    content: PYTHON,
    before: "mkdir -p venv/bin; ln -s /usr/bin/python3 venv/bin/python; ln held.py venv/pyvenv.cfg",
    start: "venv/bin/python held.py",
    swap: `echo "${PYTHON_EVIL}" > evil; mv evil held.py`,
  },
  {
    id: "compiled",
    tries: "other byte code under the name of a held script, which Python reads twice",
    script: "held.pyc",
    content: "",
    before: `echo "${PYTHON.trim()}" > good.py; echo "${PYTHON_EVIL}" > evil.py
      for word in good evil; do python3 -c "import py_compile; py_compile.compile('$word.py', '$word.pyc')"; done; mv good.pyc held.pyc`,
    start: "python3 held.pyc",
    swap: "mv evil.pyc held.pyc",
  },
  {
    id: "link",
    tries: "a link to a file that is called like one of Node's own in the place of a held script",
    script: "held.js",
    content: "require('fs').writeFileSync('mark', 'GOOD')\n",
    start: "$E/bin/node held.js",
    swap: `echo "${NODE_EVIL}" > openssl.cnf; rm held.js; ln -s openssl.cnf held.js`,
    ends: true,
  },
];

const swaps: readonly Solo[] = SWAPS.map(
  ({ id, tries, script, content, before = ":", start, swap, ends }) => ({
    id: `held-script-${id}`,
    tries,
    layer: "exec gate: the interpreter reads the copy of what was decided about",
    who: "main",
    async control(stage, folder) {
      const { work } = makeBox(stage, folder);
      writeFileSync(join(work, script), content);
      await onHost(`${before}; ${swap}; ${start}`, work, { E: stage.programs });
      return textOf(join(work, "mark")).includes("EVIL");
    },
    async sandbox(stage, folder) {
      const box = makeBox(stage, folder, {
        exec: [
          '{ id: held, script: "/work/held*", action: hold }',
          '{ id: rest, executable: ["/usr/**", "/opt/escape/bin/**"], action: allow }',
        ],
      });
      const mark = () => textOf(join(box.work, "mark"));
      writeFileSync(join(box.work, script), content);
      chownSync(join(box.work, script), AGENT, AGENT);
      const waits = "while [ ! -e go ]; do sleep 0.1; done";
      const text = `E=/opt/escape; ${before}; { ${start}; } > said 2>&1 & ${waits}; ${swap}; : > tried; wait; sleep 2`;
      const held = stage.clawsec.nextHold(box.name, 15_000);
      await inBox(stage, box, text, ["--detach"]);
      const { id: hold } = await held;
      try {
        // Until its image stands.
        await sleep(500);
        writeFileSync(join(box.work, "go"), "");
        if (!(await until(() => existsSync(join(box.work, "tried")), 10_000)))
          throw new Error(`held-script-${id}: nothing was tried.`);
        await stage.clawsec.must("approve", hold);
        const ran = await until(() => mark() !== "", 5000);
        if (!ran && !ends) throw new Error(`held-script-${id}: neither the one nor the other script ran.`);
        return mark().includes("EVIL");
      } finally {
        await stage.clawsec.cli("kill", box.name);
      }
    },
  }),
);

interface Command {
  readonly id: string;
  readonly tries: string;
  /** `programs`: where the run's own programs are. */
  argv(programs: string): readonly string[];
  /** In the folder where it is tried. */
  readonly prepare?: (work: string) => Promise<void>;
}

const DASH_CODE = "echo EVIL>mark;#";

// Byte code for a module of Python, with the time and size of the real one, where a prefix would have it.
const FORGE = `
import colorsys, importlib.util, marshal, os
found = os.stat(colorsys.__file__)
code = marshal.dumps(compile("${PYTHON_EVIL}", colorsys.__file__, "exec"))
words = [0, int(found.st_mtime), found.st_size]
head = importlib.util.MAGIC_NUMBER + b"".join(word.to_bytes(4, "little") for word in words)
place = importlib.util.cache_from_source(colorsys.__file__)
os.makedirs(os.path.dirname(place), exist_ok=True)
open(place, "wb").write(head + code)
`;

const COMMANDS: readonly Command[] = [
  {
    id: "plus",
    tries: "inline code by +c, under a path that leads to an allowed script",
    argv: (programs) => ["/usr/bin/dash", "+c", `${DASH_CODE}/../..${programs}/fine/ok.sh`],
    prepare: async (work) => void mkdirSync(join(work, DASH_CODE)),
  },
  {
    id: "negated",
    tries: "inline code by --no-print, under a path that leads to an allowed script",
    argv: (programs) => [`${programs}/bin/node`, "--no-print", `${NODE_EVIL}//../..${programs}/fine/ok.js`],
  },
  {
    id: "prefix",
    tries: "an allowed script with byte code of its modules from elsewhere",
    argv: (programs) => ["/usr/bin/python3", "-X", "pycache_prefix=p", `${programs}/fine/ok.py`],
    prepare: async (work) => {
      writeFileSync(join(work, "forge.py"), FORGE);
      await onHost("python3 -X pycache_prefix=p forge.py", work);
    },
  },
];

const commands: readonly Solo[] = COMMANDS.map(({ id, tries, argv, prepare }) => ({
  id: `script-by-${id}`,
  tries,
  layer: "exec gate: what an interpreter runs",
  who: "main",
  async control(stage, folder) {
    const { work } = makeBox(stage, folder);
    await prepare?.(work);
    const words = argv(stage.programs).map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    await onHost(words.join(" "), work);
    return textOf(join(work, "mark")).includes("EVIL");
  },
  async sandbox(stage, folder) {
    const interpreters = '["/usr/bin/dash", "/usr/bin/python3*", "/opt/escape/bin/node"]';
    const box = makeBox(stage, folder, {
      exec: [
        `{ id: fine, executable: ${interpreters}, script: "/opt/escape/fine/*", code: file, action: allow }`,
      ],
    });
    await prepare?.(box.work);
    const run = (words: readonly string[]) =>
      stage.clawsec.cli("run", "--name", box.name, "--policy", box.policy, "--", ...words);
    const fine = await run(["/usr/bin/dash", "/opt/escape/fine/ok.sh"]);
    if (!fine.stdout.includes("fine")) throw new Error(`script-by-${id}: no script runs: ${fine.stderr}`);
    await run(argv("/opt/escape"));
    return textOf(join(box.work, "mark")).includes("EVIL");
  },
}));

export const scriptSolo: readonly Solo[] = [...swaps, ...commands];
