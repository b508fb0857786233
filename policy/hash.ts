// The identity of an effective policy: SHA-256 of its canonical JSON, without where things are written.
// Two files that mean the same have the same hash; comments, order of keys and variables' names do not matter.

import { createHash } from "node:crypto";

const NONE: ReadonlySet<string> = new Set();

/**
 * JSON with sorted keys; `undefined` members are left out, and so are those named in `omit`, at any depth but below a
 * member named in `verbatim`.
 */
export function canonicalJson(
  value: unknown,
  omit: ReadonlySet<string> = NONE,
  verbatim: ReadonlySet<string> = NONE,
): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  let text = "";
  if (Array.isArray(value)) {
    for (const item of value) text += `${text === "" ? "" : ","}${canonicalJson(item, omit, verbatim)}`;
    return `[${text}]`;
  }
  const members: Readonly<Record<string, unknown>> = Object(value);
  for (const key of Object.keys(members).sort()) {
    const member = members[key];
    if (member === undefined || omit.has(key)) continue;
    const json = verbatim.has(key) ? canonicalJson(member) : canonicalJson(member, omit, verbatim);
    text += `${text === "" ? "" : ","}${JSON.stringify(key)}:${json}`;
  }
  return `{${text}}`;
}

/** Members that say where, not what. Examples decide nothing. */
const PLACES: ReadonlySet<string> = new Set(["origin", "sourceFile", "hash", "layers", "match", "notMatch"]);
/** Members whose keys are names that the policy chose. */
const NAMES: ReadonlySet<string> = new Set(["environment", "resolverHosts"]);

export function policyHash(policy: object): string {
  return createHash("sha256")
    .update(canonicalJson(policy, PLACES, NAMES))
    .digest("hex");
}
