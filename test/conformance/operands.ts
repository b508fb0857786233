// Files that an interpreter is given by its arguments: what they are, and how their names are spelled.

import { basename, dirname, normalize, relative } from "node:path/posix";
import { ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import type { DriverCall } from "./attempt.js";
import { SCRIPTS, scriptText } from "./programs.js";
import type { Random } from "./random.js";

/** What a name that is given leads to. */
export type Leads =
  | {
      readonly to: "file";
      /** The one canonical path; of what has none, the name that the kernel shows. */
      readonly path: string;
      readonly text: string;
      readonly kind: ExecutableKind;
    }
  | { readonly to: "stream" }
  | { readonly to: "nothing" };

export interface Operand {
  readonly name: string;
  readonly leads: Leads;
  /** Where the name begins to be looked up. */
  readonly through: string;
  /** How it is made. */
  readonly call: Pick<DriverCall, "script" | "as" | "payload">;
  /** Only this attempt has the file, so that it can be changed. */
  readonly isOwn: boolean;
}

/** Where the driver puts the descriptor that it makes: GIVEN_FD of driver.h. */
const GIVEN = ["/dev/fd/40", "/proc/self/fd/40"] as const;
const OWN_FOLDERS = ["/work", "/work/sub", "/tmp"] as const;
/** Links, by what they lead to. */
const LINKS: Readonly<Record<string, readonly string[]>> = {
  "/opt/t/s/a.sh": ["/work/to-a"],
  "/work/b.sh": ["/opt/t/s/to-b"],
};

function down(from: string, to: string): string {
  const path = relative(from, to);
  // Node takes what begins otherwise for the name of a package.
  return path.startsWith("../") ? path : `./${path}`;
}

/** A name for a path. */
function spelled(random: Random, path: string, cwd: string): Pick<Operand, "name" | "through"> {
  const absolute = (name: string) => ({ name, through: path });
  const name = random.pick([path, ...(LINKS[path] ?? [])]);
  return random.weighted<Pick<Operand, "name" | "through">>([
    [40, () => ({ name, through: name })],
    [25, () => ({ name: down(cwd, name), through: cwd })],
    [8, () => ({ name: `/proc/self/root${path}`, through: "/proc" })],
    [4, () => ({ name: `/proc/self/cwd/${down(cwd, path)}`, through: "/proc" })],
    [10, () => absolute(`/${dirname(path)}/.//${basename(path)}`)],
    [6, () => absolute(`${dirname(path)}/../${basename(dirname(path))}/${basename(path)}`)],
  ]);
}

const PLAIN = ["/opt/t/s/a.sh", "/opt/t/s/m.mjs", "/work/b.sh", "/work/sub/c.js", "/work/run.sh"] as const;
const STANDING = Object.keys(SCRIPTS).filter((path) => (PLAIN as readonly string[]).includes(path));

function file(path: string, text: string, kind = ExecutableKind.FILE): Leads {
  return { to: "file", path, text, kind };
}

/** Node takes "a/.." away before it looks, whatever "a" is: whether such a name leads elsewhere then. */
export function isElsewhereForNode(name: string, path: string): boolean {
  const [through] = /^\/(?:proc\/self\/cwd|dev\/fd\/[^/]+)\//.exec(name) ?? [];
  const read = normalize(name);
  return through !== undefined && read !== path && !read.startsWith(through);
}

function asRead(grammar: string, operand: Operand): Operand {
  const { leads, name } = operand;
  if (grammar !== "node" || leads.to !== "file" || !isElsewhereForNode(name, leads.path)) return operand;
  return { ...operand, leads: { to: "nothing" }, isOwn: false };
}

/** One of the files that are always there. */
export function someStanding(random: Random, grammar: string, cwd: string): Operand {
  const path = random.pick(STANDING);
  const leads = file(path, scriptText(path));
  return asRead(grammar, { ...spelled(random, path, cwd), leads, call: {}, isOwn: false });
}

/** Some file for an interpreter to run. `id`: of the attempt. */
export function someOperand(random: Random, grammar: string, cwd: string, id: string): Operand {
  return asRead(grammar, someFile(random, grammar, cwd, id));
}

function someFile(random: Random, grammar: string, cwd: string, id: string): Operand {
  const text = random.pick([`own of ${id}\n`, `import '${id}'\n`, `#!/opt/t/i/dash\nown of ${id}\n`]);
  const payload = Buffer.from(text);
  const bare = { call: {}, isOwn: false };
  const own = (): string => `${random.pick(OWN_FOLDERS)}/s${id}`;
  const given = (through: string) => ({ name: random.pick(GIVEN), through });
  return random.weighted<Operand>([
    [45, () => someStanding(random, grammar, cwd)],
    [
      30,
      () => {
        const path = own();
        const call = { script: path, as: "made", payload };
        return { ...spelled(random, path, cwd), leads: file(path, text), call, isOwn: true };
      },
    ],
    [
      5,
      () => {
        const path = random.pick(STANDING);
        const call = { script: path, as: "fd" };
        return { ...given("/proc"), leads: file(path, scriptText(path)), call, isOwn: false };
      },
    ],
    [
      3,
      () => {
        const path = random.pick(STANDING);
        const name = random.pick(["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]);
        const call = { script: path, as: "stdin" };
        return { name, through: "/dev", leads: file(path, scriptText(path)), call, isOwn: false };
      },
    ],
    [
      3,
      () => {
        const path = own();
        const call = { script: path, as: "deleted", payload };
        return { ...given("/proc"), leads: file(path, text, ExecutableKind.DELETED), call, isOwn: false };
      },
    ],
    [
      3,
      () => {
        const call = { script: `m${id}`, as: "memory", payload };
        const leads = file(`/memfd:m${id}`, text, ExecutableKind.ANONYMOUS);
        return { ...given("/proc"), leads, call, isOwn: false };
      },
    ],
    [
      3,
      () => {
        const call = { script: "pipe", as: "pipe", payload };
        return { ...given("/proc"), leads: { to: "stream" }, call, isOwn: false };
      },
    ],
    [4, () => ({ ...spelled(random, `/work/none-${id}`, cwd), leads: { to: "nothing" }, ...bare })],
    [4, () => ofFolder(random, grammar, cwd)],
  ]);
}

/** Node runs a folder's index.js, and a name without the extension. Which code others take from a folder is not known. */
function ofFolder(random: Random, grammar: string, cwd: string): Operand {
  const [path, inside] = random.pick([
    ["/opt/t/s/pkg", "/opt/t/s/pkg/index.js"],
    ["/opt/t/s/bare", "/opt/t/s/bare.js"],
  ] as const);
  const leads: Leads = grammar === "node" ? file(inside, scriptText(inside)) : { to: "nothing" };
  return { ...spelled(random, path, cwd), leads, call: {}, isOwn: false };
}
