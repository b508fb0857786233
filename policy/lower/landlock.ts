// Landlock (7): the floor under the mount view. The base ruleset holds for everything in a sandbox, an entry's for
// one subject; the kernel intersects them. Numbers are those of linux/landlock.h.

import type { LandlockRuleset, LandlockRuleset_PathRule } from "../../proto/gen/clawsec/v1/loader.js";
import { isWithin } from "../match/path.js";
import type { Policy, SubjectModel } from "../model.js";
import type { View } from "./host.js";
import type { Capabilities, Report } from "./report.js";

const FS = {
  EXECUTE: 2 ** 0,
  WRITE_FILE: 2 ** 1,
  READ_FILE: 2 ** 2,
  READ_DIR: 2 ** 3,
  REMOVE_DIR: 2 ** 4,
  REMOVE_FILE: 2 ** 5,
  MAKE_CHAR: 2 ** 6,
  MAKE_DIR: 2 ** 7,
  MAKE_REG: 2 ** 8,
  MAKE_SOCK: 2 ** 9,
  MAKE_FIFO: 2 ** 10,
  MAKE_BLOCK: 2 ** 11,
  MAKE_SYM: 2 ** 12,
  REFER: 2 ** 13,
  TRUNCATE: 2 ** 14,
  IOCTL_DEV: 2 ** 15,
} as const;

const SCOPE = { ABSTRACT_UNIX_SOCKET: 1, SIGNAL: 2 } as const;

/** Handled rights, and the smallest ABI that has them all. */
interface Level {
  readonly abi: number;
  readonly handled: number;
  readonly scoped: number;
}

/** ABI with TRUNCATE: below it, a file that may not be written can be cut to nothing. */
const TRUNCATE_ABI = 3;
/** ABI with scopes for signals and abstract sockets. */
const SCOPE_ABI = 6;

/** The most that a kernel of this ABI can enforce. */
function levelFor(abi: number): Level {
  const upTo = (bit: number) => bit * 2 - 1;
  if (abi >= SCOPE_ABI)
    return { abi: SCOPE_ABI, handled: upTo(FS.IOCTL_DEV), scoped: SCOPE.ABSTRACT_UNIX_SOCKET | SCOPE.SIGNAL };
  if (abi >= 5) return { abi: 5, handled: upTo(FS.IOCTL_DEV), scoped: 0 };
  if (abi >= TRUNCATE_ABI) return { abi: TRUNCATE_ABI, handled: upTo(FS.TRUNCATE), scoped: 0 };
  if (abi >= 2) return { abi: 2, handled: upTo(FS.REFER), scoped: 0 };
  return { abi: 1, handled: upTo(FS.MAKE_SYM), scoped: 0 };
}

const READ = FS.READ_FILE | FS.READ_DIR;
/** Everything that writing means in a folder, devices excepted. */
const WRITE =
  FS.WRITE_FILE |
  FS.TRUNCATE |
  FS.REMOVE_DIR |
  FS.REMOVE_FILE |
  FS.MAKE_DIR |
  FS.MAKE_REG |
  FS.MAKE_SOCK |
  FS.MAKE_FIFO |
  FS.MAKE_SYM |
  FS.REFER;
const DEVICE = FS.READ_FILE | FS.READ_DIR | FS.WRITE_FILE | FS.TRUNCATE | FS.IOCTL_DEV;

/** Rights by path, merged, in the order of paths. */
class Rules {
  readonly #paths = new Map<string, { access: number; optional: boolean }>();

  add(path: string, access: number, optional = false): void {
    const before = this.#paths.get(path);
    this.#paths.set(path, {
      access: (before?.access ?? 0) | access,
      optional: (before?.optional ?? true) && optional,
    });
  }

  ruleset(level: Level): LandlockRuleset {
    const paths: LandlockRuleset_PathRule[] = [...this.#paths.entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, { access, optional }]) => ({ path, allowedAccess: access & level.handled, optional }))
      .filter((rule) => rule.allowedAccess !== 0);
    return {
      abi: level.abi,
      handledAccessFs: level.handled,
      handledAccessNet: 0,
      scoped: level.scoped,
      paths,
    };
  }
}

/** What any program needs of the parts that clawsec makes itself. */
function addCommon(rules: Rules): void {
  rules.add("/dev", DEVICE);
  rules.add("/dev/shm", READ | WRITE, true);
  // No write: /proc/PID/mem writes past every other check.
  rules.add("/proc", READ);
  rules.add("/etc", READ);
  rules.add("/.clawsec", READ | FS.EXECUTE);
}

/**
 * The kernel's ABI; 0 when no ruleset can be made. What it lacks and the policy needs is refused: read-only mounts
 * keep files from being truncated by themselves, but a subject's own trees are Landlock's alone.
 */
export function landlockAbi(policy: Policy, capabilities: Capabilities, report: Report): number {
  const { sandbox, subjects } = policy;
  if (!capabilities.need(report, ["landlock"], "sandbox", sandbox.origin)) return 0;
  const abi = Math.max(1, capabilities.level("landlock"));
  for (const subject of subjects) {
    const name = `subject ${subject.name}`;
    if (subject.files !== undefined && abi < TRUNCATE_ABI) {
      report.refuse(
        "missing-layer",
        name,
        "landlock",
        subject.files.origin,
        `${name} cannot be kept to its files: Landlock ABI ${TRUNCATE_ABI} is needed and this kernel has ${abi}, which cannot keep a file that is not to be written from being truncated`,
        'Use Linux 6.2 or newer, or take "files" from the subject.',
      );
    }
    if (subject.entry !== undefined && abi < SCOPE_ABI) {
      report.warning(
        "landlock-scope",
        name,
        subject.entry.origin,
        `Landlock ABI ${abi} of this kernel does not keep ${subject.name} from signalling the other subjects, or from reaching their abstract sockets`,
        "Use Linux 6.12 or newer (ABI 6).",
        "landlock",
      );
    }
  }
  return abi;
}

/** The ruleset for everything in the sandbox. */
export function baseLandlock(view: View, secretsMount: string | undefined, abi: number): LandlockRuleset {
  const rules = new Rules();
  addCommon(rules);
  // Listing "/" and the folders that lead to mounts. Landlock grants trees, so this lists every folder there is:
  // what must not be listed is not mounted.
  rules.add("/", FS.READ_DIR);
  for (const mount of view.mounts) {
    const write = mount.mode === "rw" ? WRITE : 0;
    rules.add(mount.target, READ | write | (mount.exec ? FS.EXECUTE : 0));
  }
  if (secretsMount !== undefined) rules.add(secretsMount, READ);
  return rules.ruleset(levelFor(abi));
}

/** The narrower ruleset of a subject's entry; undefined for a subject without one. */
export function entryLandlock(
  subject: SubjectModel,
  view: View,
  abi: number,
  report: Report,
): LandlockRuleset | undefined {
  const { entry, files } = subject;
  if (entry === undefined) return undefined;
  const rules = new Rules();
  addCommon(rules);
  const level = levelFor(abi);
  if (files === undefined) {
    // The layer still cuts signals, ptrace and abstract sockets between the subject and those it came from.
    rules.add("/", level.handled & ~(FS.MAKE_CHAR | FS.MAKE_BLOCK));
    return rules.ruleset(level);
  }
  const kinds = [
    ["read", READ],
    ["write", READ | WRITE],
    ["exec", READ | FS.EXECUTE],
  ] as const;
  for (const [kind, access] of kinds) {
    for (const tree of files[kind]) {
      const exists = isGenerated(tree.path) || treeExists(tree.path, view);
      if (!exists && !tree.optional) {
        report.error(
          "missing-path",
          `subject ${subject.name}`,
          "landlock",
          tree.origin,
          `${tree.path} does not exist in the sandbox, so it cannot be granted to ${subject.name}`,
          "Correct it, or write { path: ..., optional: true }.",
        );
      }
      rules.add(tree.path, access, tree.optional);
    }
  }
  return rules.ruleset(level);
}

function isGenerated(path: string): boolean {
  return ["/proc", "/dev", "/etc", "/.clawsec"].some((tree) => isWithin(path, tree)) || path === "/";
}

function treeExists(path: string, view: View): boolean {
  const located = view.locate(path);
  // Folders above mounts exist because the mounts do; a tmpfs has nothing but its root at the start.
  if (located === undefined) return view.mounts.some((m) => isWithin(m.target, path)) || isLink(path, view);
  return located.mount.kind === "tmpfs" ? located.mount.target === path : located.kind !== "missing";
}

/** /bin and its like, where they are links into /usr. */
function isLink(path: string, view: View): boolean {
  const top = `/${path.split("/")[1] ?? ""}`;
  const link = view.host.readlink(top);
  return link !== undefined && treeExists(`/${link.replace(/^\//, "")}${path.slice(top.length)}`, view);
}

/** Where an entry's program is in the sandbox. */
export function programExists(path: string, view: View): boolean {
  return treeExists(path, view);
}
