// What the lowering asks about the host. The compiler stays pure: whoever calls it brings the answers.

import { below, isWithin, join, parent } from "../match/path.js";
import type { Mount } from "../model.js";

export type PathKind = "file" | "directory" | "symlink" | "other" | "missing";

/** Facts about the host's files. */
export interface HostView {
  /** As lstat(2) has it. */
  kind(path: string): PathKind;
  /** Target of a symbolic link, as written; undefined when it is none. */
  readlink(path: string): string | undefined;
  /** realpath(3); undefined when something on the way is missing. */
  resolve(path: string): string | undefined;
}

/** A host path behind a path of the sandbox. */
export interface Located {
  readonly mount: Mount;
  /** Path on the host; "" when the mount is a tmpfs. */
  readonly hostPath: string;
  /** Kind on the host, symlinks of the mount's source resolved; "missing" on a tmpfs. */
  readonly kind: PathKind;
  /** True when a symbolic link lies on the way from the mount's source to the path. */
  readonly throughLink: boolean;
}

/** The sandbox's mounts, with the host behind them. */
export class View {
  constructor(
    readonly host: HostView,
    /** Mounts that exist, shorter targets first. */
    readonly mounts: readonly Mount[],
  ) {}

  /** The mount a path of the sandbox is on. */
  mountOf(path: string): Mount | undefined {
    return this.mounts.findLast((mount) => isWithin(path, mount.target));
  }

  /** Host path behind a mount's target, symlinks resolved; as written when it does not exist. */
  source(mount: Mount): string {
    return this.#resolve(mount.source) ?? mount.source;
  }

  locate(path: string): Located | undefined {
    const mount = this.mountOf(path);
    if (mount === undefined) return undefined;
    if (mount.kind === "tmpfs") return { mount, hostPath: "", kind: "missing", throughLink: false };
    const hostPath = join(this.source(mount), below(path, mount.target));
    const kind = this.host.kind(hostPath);
    // Many paths share a folder: only the folder is resolved, once.
    const folder = parent(hostPath);
    const throughLink = kind === "symlink" || (kind !== "missing" && this.#resolve(folder) !== folder);
    return { mount, hostPath, kind, throughLink };
  }

  readonly #resolved = new Map<string, string | undefined>();

  #resolve(path: string): string | undefined {
    if (!this.#resolved.has(path)) this.#resolved.set(path, this.host.resolve(path));
    return this.#resolved.get(path);
  }
}
