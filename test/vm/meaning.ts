// What a policy's file rules mean for an operation of the probe, from the rules alone: nothing of the lowering is
// used, so that a test can hold the kernel's verdict against it.

import { expandBraces, hasPattern } from "../../policy/match/glob.ts";
import { compilePath, isWithin } from "../../policy/match/path.ts";
import type { Operation } from "./operations.ts";

/** A rule that denies. */
export interface DenyRule {
  readonly path: readonly string[];
  readonly operations: readonly ("read" | "write" | "exec")[];
}

/**
 * "denied": it must fail. "allowed": it must succeed, also across the profile's other rules. "mount": it must give
 * EXDEV or EBUSY, or be denied.
 */
export type Meaning = "denied" | "allowed" | "mount";

/** What is denied of a name. */
interface Denied {
  readonly read: boolean;
  readonly write: boolean;
  readonly exec: boolean;
}

export class Meanings {
  readonly #rules: readonly { readonly rule: DenyRule; readonly matches: (path: string) => boolean }[];
  readonly #held: readonly ((path: string) => boolean)[];

  /** `mounts`: the mount points of the view. */
  constructor(
    rules: readonly DenyRule[],
    readonly mounts: readonly string[],
  ) {
    this.#rules = rules.map((rule) => {
      const matchers = rule.path.map((pattern) => compilePath(pattern, { subtree: true }));
      return { rule, matches: (path) => matchers.some((m) => m(path)) };
    });
    const namesCount = (rule: DenyRule) => rule.operations.some((operation) => operation !== "exec");
    this.#held = rules
      .filter(namesCount)
      .flatMap((rule) => rule.path.flatMap(expandBraces).flatMap(folders))
      .map((pattern) => compilePath(pattern, { subtree: false }));
  }

  /** What the rules deny of a name. */
  of(path: string): Denied {
    const has = (operation: "read" | "write" | "exec") =>
      this.#rules.some(({ rule, matches }) => rule.operations.includes(operation) && matches(path));
    return { read: has("read"), write: has("write"), exec: has("exec") };
  }

  /** What must come of an operation. Files below a folder that is renamed are those of `given`. */
  operation({ op, path, to = "", given = [] }: Operation): Meaning {
    const { read, write, exec } = this.of(path);
    const target = this.of(to);
    const say = (denied: boolean): Meaning => (denied ? "denied" : "allowed");
    switch (op) {
      case "read":
      case "list":
      case "lock":
      case "reopen-read":
        return say(read);
      case "exec":
      case "map-exec":
        return say(read || exec);
      case "mkdir":
      case "rmdir":
        return say(write || this.#isHeld(path));
      case "link": {
        if (read || write || target.read || target.write) return "denied";
        if (!this.#sameMount(path, to)) return "mount";
        // AppArmor's own rule: a link may not permit more than what it links to.
        return say(exec && !target.exec);
      }
      case "exchange":
      case "rename": {
        const isFolder = given.some(
          (one) => one.path.startsWith(`${path}/`) || (one.path === path && one.kind === "folder"),
        );
        const back = op === "exchange" && (target.read || read);
        if (read || write || target.write || back) return "denied";
        if (isFolder && (this.#isHeld(path) || this.#isHeld(to))) return "denied";
        if (!this.#sameMount(path, to) || this.mounts.includes(path)) return "mount";
        if (
          this.#frees(
            path,
            to,
            given.map((one) => one.path),
          )
        )
          return "denied";
        return "allowed";
      }
      default:
        return say(
          write ||
            (op === "chmod" &&
              given.some((one) => one.kind === "folder" && one.path === path) &&
              this.#isHeld(path)),
        );
    }
  }

  /** Whether something below `path` would be denied less under its new name. */
  #frees(path: string, to: string, files: readonly string[]): boolean {
    return files.some((file) => {
      if (!file.startsWith(`${path}/`)) return false;
      const [before, after] = [this.of(file), this.of(to + file.slice(path.length))];
      return (before.read && !after.read) || (before.write && !after.write);
    });
  }

  #isHeld(path: string): boolean {
    return this.#held.some((matches) => matches(path));
  }

  #sameMount(a: string, b: string): boolean {
    const mountOf = (path: string) =>
      this.mounts.reduce((best, m) => (isWithin(path, m) && m.length > best.length ? m : best), "");
    return mountOf(a) === mountOf(b);
  }
}

/** Folders that a pattern names: its beginnings from the first wildcard on, but for a "**" there. */
function folders(pattern: string): string[] {
  const parts = pattern
    .replace(/^\//, "")
    .split("/")
    .filter((part, i, all) => part !== "**" || all[i + 1] !== "**");
  const first = parts.findIndex(hasPattern);
  return parts
    .map((_, i) => ({ i, text: `/${parts.slice(0, i + 1).join("/")}` }))
    .filter(({ i }) => i >= first && i < parts.length - 1 && !(i === first && parts[i] === "**"))
    .map(({ text }) => text);
}
