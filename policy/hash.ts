// The identity of an effective policy: SHA-256 of its canonical JSON, without where things are written.
// Two files that mean the same have the same hash; comments, order of keys and variables' names do not matter.

import { createHash } from "node:crypto";

/** JSON with sorted keys; `undefined` members are left out. */
export function canonicalJson(value: unknown, omit: ReadonlySet<string> = new Set()): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item, omit)).join(",")}]`;
  const members = Object.entries(value)
    .filter(([key, member]) => member !== undefined && !omit.has(key))
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member, omit)}`);
  return `{${members.join(",")}}`;
}

/** Members that say where, not what. */
const PLACES: ReadonlySet<string> = new Set(["origin", "sourceFile", "hash", "layers", "match", "notMatch"]);

export function policyHash(policy: object): string {
  return createHash("sha256").update(canonicalJson(policy, PLACES)).digest("hex");
}
