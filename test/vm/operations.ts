// What the AppArmor harness is asked, inside and outside of the virtual machine.

/** A file operation that probe.c knows. Each is one system call, or the few that its name says. */
export type OperationName =
  | "read"
  | "write"
  | "append"
  | "open-truncate"
  | "create"
  | "create-unnamed"
  | "truncate"
  | "unlink"
  | "rmdir"
  | "mkdir"
  | "mkfifo"
  | "symlink"
  | "link"
  | "rename"
  | "exchange"
  | "chmod"
  | "fchmod"
  | "chown"
  | "utimes"
  | "setxattr"
  | "stat"
  | "access"
  | "readlink"
  | "list"
  | "chdir"
  | "lock"
  | "map-exec"
  | "exec"
  | "bind"
  | "connect"
  | "path-descriptor"
  | "reopen-read"
  | "reopen-write"
  | "keep"
  | "kept-read"
  | "kept-write"
  | "outside-read"
  | "outside-write";

export interface Step {
  readonly op: OperationName;
  /** As the program names it, so it may be relative, or below /proc/self/root. */
  readonly path: string;
  /** New name of link, rename and exchange; target of symlink. */
  readonly to?: string;
}

/** A thing that root makes before an operation, owned by uid 1000, mode 0777. Folders above it are made, too. */
export type Given =
  | { readonly kind: "file" | "folder" | "program" | "socket"; readonly path: string }
  | { readonly kind: "link" | "symlink"; readonly path: string; readonly to: string };

export interface Operation extends Step {
  /** What is there before. Default: what the operation needs to succeed, at `path` and `to`. */
  readonly given?: readonly Given[];
  /** Steps of the same confined program before; all must be allowed, or the operation counts as "not reached". */
  readonly before?: readonly Step[];
}

/** How the confined program is started: by itself in a pivoted mount namespace, or by runc as its container's PID 1. */
export type Through = "pivot_root" | "runc";

export interface Job {
  readonly profile: string;
  readonly profileName: string;
  readonly through: Through;
  readonly operations: readonly Operation[];
  /** Folders of the view that are mount points while the job runs, outer ones first. */
  readonly mounts?: readonly string[];
}

/** "allowed", "denied" (EACCES), the name of another error, or "not reached: ..." with the step that failed before. */
export type Verdict = string;

export interface Finding {
  readonly verdict: Verdict;
  /** What the same operation does without a profile: "allowed", unless the case itself is wrong. */
  readonly unconfined: Verdict;
  /** Lines of the kernel's log about AppArmor, from the operation and the steps before it. */
  readonly audit: readonly string[];
}

/** What a job gave: its findings, or what kept it from being done. */
export type Report =
  | { readonly outcome: "done"; readonly warnings: string; readonly findings: readonly Finding[] }
  | { readonly outcome: "profile refused" | "program not started"; readonly message: string };

/** What the operation needs in order to succeed. */
export function needs({ op, path, to = "" }: Step): Given[] {
  switch (op) {
    case "rmdir":
    case "list":
    case "chdir":
    case "create-unnamed":
      return [{ kind: "folder", path }];
    case "create":
    case "mkdir":
    case "mkfifo":
    case "symlink":
    case "bind":
      return [{ kind: "folder", path: above(path) }];
    case "link":
    case "rename":
      return [
        { kind: "file", path },
        { kind: "folder", path: above(to) },
      ];
    case "exchange":
      return [
        { kind: "file", path },
        { kind: "file", path: to },
      ];
    case "exec":
    case "map-exec":
      return [{ kind: "program", path }];
    case "connect":
      return [{ kind: "socket", path }];
    case "readlink":
      return [{ kind: "symlink", path, to: "target" }];
    case "kept-read":
    case "kept-write":
    case "outside-read":
    case "outside-write":
      return [];
    default:
      return [{ kind: "file", path }];
  }
}

function above(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}
