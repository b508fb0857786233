// What the file rules become: binds over themselves, masks, guards and AppArmor's denials. Each rule is drafted first
// and taken as a whole, so that a rule that is refused and waived leaves nothing behind.

import type { FileGuard } from "../../proto/gen/clawsec/v1/loader.js";
import { below, between, isWithin, join, parent } from "../match/path.js";
import type { Mount } from "../model.js";
import type { Denial } from "./apparmor.js";
import type { Share } from "./apparmor-pattern.js";
import type { Located, View } from "./host.js";

/** A bind of a path over itself. */
export interface SelfBind {
  readonly target: string;
  readonly hostPath: string;
  readonly mode: "ro" | "rw";
  readonly exec: boolean;
  /** What a rule takes from the path, against the mount it is on: holds for all that is mounted below, too. */
  readonly takes: { readonly write: boolean; readonly exec: boolean };
}

export interface LoweredFiles {
  /** Shorter targets first. */
  readonly binds: readonly SelfBind[];
  readonly masked: readonly string[];
  readonly guards: readonly FileGuard[];
  readonly notifyNames: boolean;
  readonly denials: readonly Denial[];
}

/** What one rule needs. */
export class Draft {
  readonly binds: SelfBind[] = [];
  readonly masked: string[] = [];
  readonly guards: FileGuard[] = [];
  readonly denials: Denial[] = [];
  /** What AppArmor's automaton has to bear of it. */
  readonly shares: Share[] = [];

  constructor(readonly view: View) {}

  /** Binds a path over itself, and the folders above it, which could otherwise be renamed along with it. */
  bind(target: string, located: Located, mode: "ro" | "rw", exec = located.mount.exec): void {
    this.pinAncestors(target, located.mount);
    if (target === located.mount.target && mode === located.mount.mode && exec === located.mount.exec) return;
    const takes = {
      write: mode === "ro" && located.mount.mode === "rw",
      exec: !exec && located.mount.exec,
    };
    this.binds.push({ target, hostPath: located.hostPath, mode, exec, takes });
  }

  /** Makes mount points, which cannot be renamed, of the folders between a mount and a path in it. */
  pinAncestors(target: string, mount: Mount): void {
    if (mount.mode === "ro" || !isWithin(target, mount.target)) return;
    const source = this.view.source(mount);
    for (const folder of between(mount.target, target)) {
      const hostPath = join(source, below(folder, mount.target));
      this.binds.push({
        target: folder,
        hostPath,
        mode: "rw",
        exec: mount.exec,
        takes: { write: false, exec: false },
      });
    }
  }
}

/** All rules together. */
export class Plan {
  readonly #binds = new Map<string, SelfBind>();
  readonly #masked = new Set<string>();
  readonly #guards = new Map<string, FileGuard>();
  readonly #denials: Denial[] = [];
  /** Of all rules so far. */
  readonly shares: Share[] = [];

  constructor(readonly view: View) {}

  take(draft: Draft): void {
    for (const bind of draft.binds) {
      const before = this.#binds.get(bind.target);
      // The same pin for each of many paths in a folder.
      if (before !== undefined && bind.mode === "rw" && bind.exec && !bind.takes.write) continue;
      // What takes away wins over a bind that is only there to be a mount point.
      const mode = before?.mode === "ro" ? "ro" : bind.mode;
      const takes = {
        write: bind.takes.write || (before?.takes.write ?? false),
        exec: bind.takes.exec || (before?.takes.exec ?? false),
      };
      this.#binds.set(bind.target, { ...bind, mode, exec: bind.exec && (before?.exec ?? true), takes });
    }
    for (const path of draft.masked) this.#masked.add(path);
    for (const guard of draft.guards) this.#guard(this.#guards, guard);
    this.#denials.push(...draft.denials);
    this.shares.push(...draft.shares);
  }

  #guard(guards: Map<string, FileGuard>, { path, open, names }: FileGuard): void {
    const before = guards.get(path);
    guards.set(path, {
      path,
      open: open || (before?.open ?? false),
      names: names || (before?.names ?? false),
    });
  }

  result(): LoweredFiles {
    const isMasked = (path: string) => isIn(path, this.#masked);
    // A mount of its own inside a read-only or non-executable one must not be the way round it.
    const taking = (what: "write" | "exec") =>
      new Set([...this.#binds.values()].flatMap((b) => (b.takes[what] ? [b.target] : [])));
    const [readOnly, noexec] = [taking("write"), taking("exec")];
    const isIn = (path: string, trees: ReadonlySet<string>) =>
      trees.size > 0 && above(path).some((folder) => trees.has(folder));
    const inherited = (bind: SelfBind): SelfBind => ({
      ...bind,
      mode: isIn(bind.target, readOnly) ? "ro" : bind.mode,
      exec: bind.exec && !isIn(bind.target, noexec),
    });
    const binds = [...this.#binds.values()]
      // What would be bound beneath a mask is not there.
      .filter((bind) => !isMasked(bind.target))
      .map(inherited)
      .map((bind) => ({ bind, depth: bind.target.split("/").length }))
      .sort((a, b) => a.depth - b.depth || byText(a.bind.target, b.bind.target))
      .map(({ bind }) => bind);

    // A mark holds for one mount: each mount inside a guarded tree needs its own.
    const guards = new Map(this.#guards);
    const targets =
      guards.size === 0 ? [] : [...binds.map((b) => b.target), ...this.view.mounts.map((m) => m.target)];
    for (const target of targets) {
      for (const folder of above(target)) {
        const guard = this.#guards.get(folder);
        if (guard !== undefined) this.#guard(guards, { ...guard, path: target });
      }
    }
    const fileGuards = [...guards.values()]
      .filter((guard) => !isMasked(guard.path))
      .sort((a, b) => byText(a.path, b.path));
    return {
      binds,
      masked: [...this.#masked].sort(byText),
      guards: fileGuards,
      notifyNames: fileGuards.some((g) => g.names),
      denials: this.#denials,
    };
  }
}

/** The path and the folders above it. */
function above(path: string): string[] {
  const result = [path];
  for (let p = path; p !== "/"; ) {
    p = parent(p);
    result.push(p);
  }
  return result;
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
