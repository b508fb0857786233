/** Where everything is: folders, sockets, and the parts of the package. Nothing else builds such a path. */
import { createHash } from "node:crypto";
import { accessSync, constants, existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The run time and state folders of one installation. */
export interface Paths {
  /** Sockets and what lives as long as the loader does. */
  readonly runtime: string;
  /** What survives a restart: audit, holds, logs. */
  readonly state: string;
  readonly controlSocket: string;
  readonly loaderSocket: string;
  readonly loaderPid: string;
  /** Start time of the process of `loaderPid`, so that a later process with its pid is not taken for it. */
  readonly loaderStart: string;
  readonly loaderLog: string;
  readonly supervisorLog: string;
  readonly auditDb: string;
  readonly holdsDb: string;
  /** How often rules with a rate have matched. */
  readonly ratesDb: string;
  readonly sandboxesDb: string;
  /** First 8 hex digits of the SHA-256 of the runtime folder's path: part of the name of each cgroup and BPF pin. */
  readonly instance: string;
}

/** The paths that an environment asks for ($CLAWSEC_RUNTIME_DIR, $CLAWSEC_STATE_DIR). */
export function pathsOf(environment: NodeJS.ProcessEnv = process.env): Paths {
  const runtime = environment.CLAWSEC_RUNTIME_DIR || "/run/clawsec";
  const state = environment.CLAWSEC_STATE_DIR || "/var/lib/clawsec";
  return {
    runtime,
    state,
    controlSocket: join(runtime, "control.sock"),
    loaderSocket: join(runtime, "loader.sock"),
    loaderPid: join(runtime, "loader.pid"),
    loaderStart: join(runtime, "loader.start"),
    loaderLog: join(state, "loader.log"),
    supervisorLog: join(state, "supervisor.log"),
    auditDb: join(state, "audit.db"),
    holdsDb: join(state, "holds.db"),
    ratesDb: join(state, "rates.db"),
    sandboxesDb: join(state, "sandboxes.db"),
    instance: createHash("sha256").update(runtime).digest("hex").slice(0, 8),
  };
}

/** The folder of the package: the nearest one above this file with a package.json of the name clawsec. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, "package.json");
    if (existsSync(manifest) && readManifest(manifest).name === "clawsec") return folder;
    const parent = dirname(folder);
    if (parent === folder) throw new Error("The clawsec package folder was not found above its own code.");
    folder = parent;
  }
}

/** The package's version. */
export function packageVersion(): string {
  return readManifest(join(packageRoot(), "package.json")).version ?? "0.0.0";
}

/** The policy that `clawsec run` uses when none is named. */
export function defaultPolicy(): string {
  return join(packageRoot(), "policy", "packs", "default.yaml");
}

/** The loader's binary: $CLAWSEC_LOADER, or the one built in the package. Throws a sentence when there is none. */
export function loaderBinary(environment: NodeJS.ProcessEnv = process.env): string {
  const built = join(packageRoot(), "bpf", "target", "release", "clawsec-loader");
  return executable("loader", "CLAWSEC_LOADER", environment, [built]);
}

/** The sandbox's init shim: $CLAWSEC_INIT, or the static one built in the package. */
export function initBinary(environment: NodeJS.ProcessEnv = process.env): string {
  const folder = join(packageRoot(), "bpf", "target", "static");
  const built: string[] = [];
  if (existsSync(folder)) {
    // static/release/… for a native target, static/<triple>/release/… for a named one.
    for (const entry of [".", ...readdirSync(folder)])
      built.push(join(folder, entry, "release", "clawsec-init"));
  }
  return executable("init shim", "CLAWSEC_INIT", environment, built);
}

/** Where cgroup v2 is mounted, from mountinfo (proc(5)); undefined when it is not. */
export function cgroup2Mount(mountinfo = readFileSync("/proc/self/mountinfo", "utf8")): string | undefined {
  for (const line of mountinfo.split("\n")) {
    const [left, right] = line.split(" - ");
    if (left === undefined || right === undefined || !right.startsWith("cgroup2 ")) continue;
    const target = left.split(" ")[4];
    // Mountinfo writes space, tab, line feed and backslash as octal.
    if (target)
      return target.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
  }
  return undefined;
}

function executable(what: string, variable: string, env: NodeJS.ProcessEnv, built: string[]): string {
  const named = env[variable];
  const candidates = named ? [named] : built;
  for (const candidate of candidates) {
    try {
      accessSync(candidate, constants.X_OK);
      return realpathSync(candidate);
    } catch {
      // The next candidate, or the sentence below.
    }
  }
  const remedy = named ? `Set ${variable} to an executable file.` : "Build it with make build.";
  throw new Error(`The ${what} was not found at ${named ?? built[0] ?? "bpf/target"}. ${remedy}`);
}

function readManifest(path: string): { name?: string; version?: string } {
  return JSON.parse(readFileSync(path, "utf8"));
}
