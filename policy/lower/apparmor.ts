// Denials by pattern, as one AppArmor profile for the sandbox: `deny` inside an `allow` of everything that the other
// layers leave. A profile is made only where a rule needs it. What its letters and names mean to a kernel is measured
// in test/vm and written down in docs/apparmor.md.

import type { AppArmorProfile } from "../../proto/gen/clawsec/v1/loader.js";

/** One pattern that is denied, in AppArmor's language. `permissions`: letters of apparmor.d(5). */
export interface Denial {
  readonly rule: string;
  readonly pattern: string;
  readonly permissions: string;
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
  return { name, text: `${[`profile "${name}" ${FLAGS} {`, ...BASE, ...lines, "}"].join("\n")}\n` };
}

/**
 * A removed file is judged by the name that it had. Not `attach_disconnected`: a descriptor to something outside the
 * view would then be named from where it came, so that no denial matches it. Without it, it is refused; the loader
 * hands none in: standard streams are pipes or the sandbox's own terminal.
 */
const FLAGS = "flags=(mediate_deleted)";

/**
 * Everything that the other layers decide. Not in it, and so refused once more: mounts, and a change of profile, which
 * would be the way out of this one. `file,` and no pattern of everything: those leave out "/" itself.
 */
const BASE = ["file", "capability", "network", "signal", "ptrace", "unix", "dbus"].map(
  (rule) => `  ${rule},`,
);
