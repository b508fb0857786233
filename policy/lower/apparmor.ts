// Denials by pattern, as one AppArmor profile for the sandbox: `deny` inside an `allow` of everything that the other
// layers leave. A profile is made only where a rule needs it.
//
// AppArmor's patterns are not ours, so each is written out anew, and a pattern whose meaning could differ by one name
// is refused:
//
//   ours       AppArmor's
//   **         {,**}      there, "**" after "/" takes at least one character; alternatives say "none" too
//   *          *          a whole segment as ?*, which is never empty
//   ?          -          one character for us and one byte there: they differ beyond ASCII
//   end        {,/}       the path of a folder ends in "/" there

import type { AppArmorProfile } from "../../proto/gen/clawsec/v1/loader.js";

/** One pattern (without braces) that is denied. `permissions`: letters of apparmor.d(5). */
export interface Denial {
  readonly rule: string;
  readonly pattern: string;
  readonly permissions: string;
}

/**
 * Characters of names that mean themselves in a quoted AppArmor path. Others have a meaning there (also escaped, in
 * some versions), or are several bytes.
 */
const PLAIN = /^[A-Za-z0-9._+=:~%, -]$/;

/** The pattern in AppArmor's language; undefined when it cannot be said there exactly. `pattern` has no braces. */
export function apparmorPattern(pattern: string): string | undefined {
  const parts = pattern
    .replace(/^\//, "")
    .split("/")
    // A second "**" in a row adds nothing.
    .filter((part, i, all) => part !== "**" || all[i + 1] !== "**");
  let text = "/";
  for (const [i, part] of parts.entries()) {
    const isLast = i === parts.length - 1;
    if (part === "**") {
      // At the end at least one segment more; there, too: after a "/" it is never empty.
      text += isLast ? "**" : "{,**/}";
      continue;
    }
    const segment = apparmorSegment(part);
    if (segment === undefined) return undefined;
    text += segment + (isLast ? "{,/}" : "/");
  }
  return text;
}

function apparmorSegment(part: string): string | undefined {
  if (part === "*") return "?*";
  let text = "";
  for (let i = 0; i < part.length; i++) {
    let char = part[i] as string;
    if (char === "*") {
      // "**" would cross "/".
      if (!text.endsWith("*")) text += "*";
      continue;
    }
    if (char === "?") return undefined;
    if (char === "\\") char = part[++i] ?? "\\";
    if (!PLAIN.test(char)) return undefined;
    text += char;
  }
  // A run of stars alone is never an empty name.
  return text === "*" ? "?*" : text;
}

/** Name of a sandbox's profile. */
export function profileName(sandbox: string): string {
  return `clawsec-${sandbox}`;
}

/** The profile; undefined when nothing is denied by it. Sorted by pattern: the same denials give the same text. */
export function lowerApparmor(sandbox: string, denials: readonly Denial[]): AppArmorProfile | undefined {
  if (denials.length === 0) return undefined;
  const byPattern = new Map<string, { permissions: Set<string>; rules: Set<string> }>();
  for (const { rule, pattern, permissions } of denials) {
    const known = byPattern.get(pattern) ?? { permissions: new Set(), rules: new Set() };
    for (const letter of permissions) known.permissions.add(letter);
    known.rules.add(rule);
    byPattern.set(pattern, known);
  }
  const lines = [...byPattern.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([pattern, { permissions, rules }]) => [
      `  # ${[...rules].join(", ")}`,
      `  audit deny "${pattern}" ${[..."rwmlkx"].filter((letter) => permissions.has(letter)).join("")},`,
    ]);
  const name = profileName(sandbox);
  return {
    name,
    text: `${[`profile "${name}" flags=(attach_disconnected,mediate_deleted) {`, ...BASE, ...lines, "}"].join("\n")}\n`,
  };
}

/**
 * Everything that the other layers decide. Not in it, and so refused once more: mounts, and a change of profile, which
 * would be the way out of this one.
 */
const BASE = ["file", "capability", "network", "signal", "ptrace", "unix", "dbus"].map(
  (rule) => `  ${rule},`,
);
