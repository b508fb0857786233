// The files of one stage: what its container or sandbox sees, and what lies outside of it.

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Listeners } from "./listeners.js";
import type { Program, Subject, Way } from "./way.js";

export const AGENT = 1000;
export const HOME = "/home/agent";
export const STATE = `${HOME}/.openclaw`;
export const WORKSPACE = `${STATE}/workspace`;
export const SECRETS = "/run/secrets/clawsec";
export const PACKAGE = "/opt/openclaw/node_modules/openclaw";
export const NODE = "/opt/openclaw/node_modules/node/bin/node";
/** Start files of shells, which exist in the home folder, so that the pack guards them. */
const START_FILES = [".bashrc", ".bash_profile", ".profile"];

/** One way, tried by one subject in one stage. */
export interface Try {
  readonly id: string;
  readonly way: Way;
  readonly subject: Subject;
  readonly token: string;
  readonly port: number;
  readonly victim: string | undefined;
  readonly victimText: string;
}

export interface Place {
  readonly folder: string;
  readonly home: string;
  readonly escape: string;
  readonly secrets: string;
  readonly outside: string;
  readonly policy: string;
  readonly secretText: string;
  readonly outsideText: string;
  readonly gatewayText: string;
  readonly tries: readonly Try[];
}

/** A path as the stage sees it, on the host. */
export function hostPath(place: Place, path: string): string {
  if (path.startsWith(`${HOME}/`)) return place.home + path.slice(HOME.length);
  if (path.startsWith("/opt/escape/")) return place.escape + path.slice("/opt/escape".length);
  throw new Error(`${path} is on no folder of this stage.`);
}

export const folderOf = (attempt: Try): string => `${WORKSPACE}/w/${attempt.id}`;
export const outputOf = (attempt: Try): string => `${WORKSPACE}/out/${attempt.id}`;
export const heardFolder = `${WORKSPACE}/heard`;

function victimOf(way: Way, id: string): string | undefined {
  switch (way.victim) {
    case undefined:
      return undefined;
    case "read-only":
      return `/opt/escape/victims/${id}`;
    case "locked":
      return `${STATE}/hooks/${id}/in/victim`;
    case "masked":
      return `${HOME}/.ssh/${id}`;
    case "guarded":
      return `${WORKSPACE}/guarded/${id}`;
  }
}

/** The top of what guards the victim: a mount point in the sandbox. */
const GUARDS = {
  "read-only": "/opt/escape",
  locked: `${STATE}/hooks`,
  masked: `${HOME}/.ssh`,
  guarded: `${WORKSPACE}/guarded`,
} as const;

const words = (what: string) => `${what}-${randomBytes(9).toString("hex")}`;

/**
 * Makes a stage's folders.
 * @param folder a new folder
 * @param programs what /opt/escape has, see programs.ts
 * @param firstPort each try has a port of its own from here on
 */
export function makePlace(folder: string, programs: string, ways: readonly Way[], firstPort: number): Place {
  const prefix = `esc-${randomBytes(3).toString("hex")}`;
  const tries = ways
    .flatMap((way) => way.subjects.map((subject) => ({ way, subject })))
    .map(({ way, subject }, index): Try => {
      const id = `${way.id}.${subject}`;
      return {
        id,
        way,
        subject,
        token: `${prefix}-${index.toString(36).padStart(3, "0")}`,
        port: firstPort + index,
        victim: victimOf(way, id),
        victimText: `${words("victim")}\n`,
      };
    });
  const at = (part: string) => join(folder, part);
  const place: Place = {
    folder,
    home: at("home"),
    escape: at("escape"),
    secrets: at("secrets"),
    outside: at("outside"),
    policy: at("policy.yaml"),
    secretText: words("secret"),
    outsideText: words("outside"),
    gatewayText: words("gateway"),
    tries,
  };
  for (const made of ["home/.ssh", "home/.openclaw/hooks", "secrets", "outside", "escape/victims"])
    mkdirSync(at(made), { recursive: true });
  const workspace = hostPath(place, WORKSPACE);
  for (const made of ["w", "out", "heard", "guarded"]) mkdirSync(join(workspace, made), { recursive: true });
  cpSync(programs, place.escape, { recursive: true });
  for (const name of START_FILES) writeFileSync(join(place.home, name), "# nothing yet\n");
  writeFileSync(join(place.home, ".openclaw/openclaw.json"), "{}\n");
  for (const name of ["gateway-token", "model-key"])
    writeFileSync(join(place.secrets, name), place.secretText, { mode: 0o644 });
  writeFileSync(join(place.outside, "words"), place.outsideText);
  writeFileSync(place.policy, "# a policy\n");
  for (const attempt of tries) {
    mkdirSync(hostPath(place, folderOf(attempt)));
    if (attempt.victim === undefined) continue;
    const victim = hostPath(place, attempt.victim);
    mkdirSync(join(victim, ".."), { recursive: true });
    writeFileSync(victim, attempt.victimText);
    // Longer than a page, so that a mapping of it has all of the first one.
    if (attempt.way.id === "masked-by-handle" || attempt.way.id === "by-handle")
      writeFileSync(
        handleFile(place, attempt),
        execFileSync(join(programs, "bin/way"), ["note-handle"], { env: { VICTIM: victim, TOKEN: "" } })
          .toString()
          .replace(/^trying.*\n/, ""),
      );
  }
  execFileSync("chown", ["-R", `${AGENT}:${AGENT}`, place.home, place.escape, place.outside, place.policy]);
  // Root's programs, as an image may have them; all that they do is to say what they are.
  for (const name of ["set-user", "file-capability"])
    copyFileSync(join(programs, "bin/is-root"), join(workspace, name));
  chmodSync(join(workspace, "set-user"), 0o4755);
  execFileSync("setcap", ["cap_net_raw+ep", join(workspace, "file-capability")]);
  chmodSync(folder, 0o755);
  chmodSync(place.outside, 0o777);
  chmodSync(place.policy, 0o666);
  return place;
}

function handleFile(place: Place, attempt: Try): string {
  return hostPath(place, `${folderOf(attempt)}/handle`);
}

/** What a try's program finds in its environment. */
function environment(
  place: Place,
  attempt: Try,
  listeners: Listeners,
  runtime: string,
): Record<string, string> {
  const { way, subject } = attempt;
  const isHost = way.loopback === "host";
  const folder = folderOf(attempt);
  return {
    TOKEN: attempt.token,
    MARK: `${folder}/mark`,
    DENIED: "/opt/escape/denied/by-path",
    ALLOWED: "/opt/escape/bin/allowed",
    ARGUMENTS: "/opt/escape/denied/arguments",
    VICTIM: attempt.victim ?? "",
    GUARD: way.victim === undefined ? "" : GUARDS[way.victim],
    HANDLE: `${folder}/handle`,
    HOLDER: `${WORKSPACE}/holder`,
    SECRET: `${SECRETS}/model-key`,
    OUTSIDE: place.outside,
    POLICY: place.policy,
    PORT: String(attempt.port),
    OWN: String(listeners.gatewayPort + 1),
    HOST: listeners.address,
    HOST6: listeners.address6,
    NUMBER: String(listeners.address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0)),
    LINK: listeners.link,
    LOOPBACK: String(isHost ? listeners.hostPort : listeners.gatewayPort),
    ABSTRACT: isHost ? listeners.abstract : `${listeners.abstract}-gateway`,
    SOCKET: way.service === undefined ? listeners.path : join(runtime, way.service),
    SUBJECT: subject,
    ...way.environment,
  };
}

/** Writes what gateway and broker are to do. */
export function writePlan(place: Place, listeners: Listeners, runtime: string): void {
  const plan = {
    heard: heardFolder,
    current: `${WORKSPACE}/current`,
    holder: `${WORKSPACE}/holder`,
    secret: `${SECRETS}/model-key`,
    loopback: listeners.gatewayPort,
    abstract: `${listeners.abstract}-gateway`,
    package: PACKAGE,
    home: HOME,
    path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    tries: place.tries.map((attempt) => ({
      id: attempt.id,
      subject: attempt.subject,
      ...({ kind: attempt.way.program.kind, text: attempt.way.program.text } satisfies Program),
      folder: folderOf(attempt),
      output: outputOf(attempt),
      environment: environment(place, attempt, listeners, runtime),
      timeoutMs: attempt.way.timeoutMs ?? 6000,
    })),
  };
  const path = hostPath(place, `${WORKSPACE}/plan.json`);
  writeFileSync(path, JSON.stringify(plan));
  chownSync(path, AGENT, AGENT);
}

/** What a try printed; undefined when it was not made. */
export function output(place: Place, attempt: Try): string | undefined {
  const path = hostPath(place, outputOf(attempt));
  if (!existsSync(`${path}.done`)) return undefined;
  const text = existsSync(path) ? readFileSync(path, "latin1") : "";
  return text.includes(`trying ${attempt.token}`) ? text : undefined;
}

/** Whether the victim is as it was: content, mode, owner, place. */
export function isUnchanged(place: Place, attempt: Try): boolean {
  if (attempt.victim === undefined) throw new Error(`${attempt.id} has no victim.`);
  const path = hostPath(place, attempt.victim);
  if (!existsSync(path)) return false;
  return readFileSync(path, "utf8") === attempt.victimText && (statSync(path).mode & 0o777) === 0o644;
}
