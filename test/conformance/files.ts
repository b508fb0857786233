// File actions. Each has a victim of its own, so that one action does not change what the next one finds.

import { basename, dirname, relative } from "node:path/posix";
import { type FileAction, FileOperation } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt, FileIntent, MeantFile } from "./attempt.js";
import type { Random } from "./random.js";
import { VICTIM_FOLDERS } from "./world.js";

const INTENTS: readonly (readonly [number, FileIntent])[] = [
  [30, "read"],
  [14, "write"],
  [5, "append"],
  [6, "otrunc"],
  [8, "create"],
  [12, "delete"],
  [10, "rename"],
  [6, "link"],
  [6, "truncate"],
  [4, "chmod"],
];

const OPERATIONS: Readonly<Record<FileIntent, FileOperation>> = {
  read: FileOperation.OPEN,
  write: FileOperation.OPEN,
  append: FileOperation.OPEN,
  otrunc: FileOperation.OPEN,
  create: FileOperation.OPEN,
  delete: FileOperation.DELETE,
  rename: FileOperation.RENAME,
  link: FileOperation.LINK,
  truncate: FileOperation.TRUNCATE,
  chmod: FileOperation.CHMOD,
};

/** Working directories: folders that no rule takes out of view. */
const FOLDERS = ["/work", "/data", "/"] as const;

/** Spellings of a path, for a call that takes one. */
function spelled(
  random: Random,
  path: string,
  isLookedUpAtFolder: boolean,
): { path: string; dir?: string; cwd: string } {
  const cwd = random.pick(FOLDERS);
  const from = (folder: string) => relative(folder, path);
  return random.weighted<{ path: string; dir?: string; cwd: string }>([
    [40, () => ({ path, cwd })],
    [20, () => ({ path: from(cwd), cwd })],
    [8, () => ({ path: `/proc/self/root${path}`, cwd })],
    [8, () => ({ path: `/proc/self/cwd/${from(cwd)}`, cwd })],
    [8, () => ({ path: `${dirname(path)}/./../${basename(dirname(path))}//${basename(path)}`, cwd })],
    [
      16,
      () => {
        const dir = random.pick(["/", "/data", dirname(path)]);
        return isLookedUpAtFolder ? { path: relative(dir, path), dir, cwd } : { path, cwd };
      },
    ],
  ]);
}

/** The name of a victim. What is before the number and behind the dot is for patterns. */
function victim(random: Random, id: string, more = ""): string {
  const folder = random.pick(VICTIM_FOLDERS);
  return `${folder}/${random.pick(["key", "note"])}-${id}${more}.${random.pick(["env", "txt"])}`;
}

/** Some action on a file. `uid`: whose the victims are. */
export function someFileAction(random: Random, id: string, subject: string, uid: number): Attempt {
  const intent = random.weighted(INTENTS.map(([weight, intent]) => [weight, () => intent] as const));
  const path = victim(random, id);
  const needsTarget = intent === "rename" || intent === "link";
  // Mostly within the folder: across folders that are mounts of their own nothing can be moved.
  const elsewhere = victim(random, id, "-to");
  const target = !needsTarget
    ? ""
    : random.chance(70)
      ? `${dirname(path)}/${basename(elsewhere)}`
      : elsewhere;
  const facts: FileAction = {
    operation: OPERATIONS[intent],
    path,
    targetPath: target,
    fileId: "",
    ownerUid: uid,
  };
  const call = spelled(random, path, intent !== "truncate");
  const payload = `changed by ${id}\n`;
  const meant: MeantFile = { kind: "file", intent, facts, path, target, payload };
  return {
    id,
    subject,
    call: { operation: intent, ...call, ...(needsTarget ? { target } : {}), payload: Buffer.from(payload) },
    meant,
    answer: random.chance(50) ? "allow" : "deny",
  };
}

/** Victims that must be there when the sandbox starts. */
export function victimsOf(attempts: readonly Attempt[]): string[] {
  return attempts.flatMap(({ meant }) =>
    meant.kind === "file" && meant.intent !== "create" ? [meant.path] : [],
  );
}
