// Random rules for files, mostly of forms that this host can enforce.

import type { RuleDocument } from "./document.js";
import { type Setting, SUBJECTS } from "./policies.js";
import type { Random } from "./random.js";

const TREES = ["/data/a", "/data/b", "/data/c", "/data/c/deep", "/ro/x"] as const;
const PATTERNS = [
  "/data/*.env",
  "/data/a/key*",
  "/data/**/key-*.txt",
  "/data/{a,b}/*.env",
  "/ro/x/*",
  "/data/**",
] as const;

function terms(random: Random): Record<string, unknown> {
  return random.chance(15)
    ? { hold: { timeout: "300ms", default: random.pick(["allow", "deny"]) } }
    : { hold: { timeout: "30s", default: "deny" } };
}

/** `victims`: files of the sandbox that rules can name. */
export function fileRule(
  random: Random,
  { features }: Setting,
  id: string,
  victims: readonly string[],
): RuleDocument {
  const file = () => random.pick(victims);
  const place = () => (random.chance(55) ? file() : random.pick(TREES));
  const subject = () => (random.chance(50) ? { subject: random.some(SUBJECTS, 2) } : {});
  const names = ["delete", "rename", "link", "truncate"] as const;
  const rule = random.weighted<RuleDocument>([
    [16, () => ({ id, path: place(), operations: ["read"], action: "deny" })],
    [16, () => ({ id, path: place(), operations: ["write"], action: "deny" })],
    [
      8,
      () => ({ id, path: file(), operations: random.some(["delete", "rename", "link"], 3), action: "deny" }),
    ],
    [14, () => ({ id, path: place(), operations: ["open"], action: "hold", ...terms(random), ...subject() })],
    [
      10,
      () => ({
        id,
        path: random.pick(PATTERNS),
        operations: ["open"],
        action: "hold",
        ...terms(random),
        ...subject(),
      }),
    ],
    [8, () => ({ id, path: place(), operations: ["open"], action: "log", ...subject() })],
    [10, () => ({ id, path: random.pick(PATTERNS), operations: ["open"], action: "deny", ...subject() })],
    [
      6,
      () => ({ id, path: place(), operations: ["open"], action: "deny", subject: random.some(SUBJECTS, 2) }),
    ],
    [5, () => ({ id, path: file(), operations: ["open"], action: "allow", ...subject() })],
    [
      4,
      () => ({
        id,
        path: "/data/c",
        operations: [random.pick(["read", "write"])],
        action: "deny",
        subject: "tool",
      }),
    ],
    [
      4,
      () => ({
        id,
        path: place(),
        operations: random.some(names, 2),
        action: random.pick(["deny", "hold", "log"]),
        ...subject(),
      }),
    ],
  ]);
  if (features.has("file-operations") && random.chance(10)) {
    return { id, path: place(), operations: random.some(["create", "chmod", "exec"], 2), action: "deny" };
  }
  const restricts = rule.action === "deny" || rule.action === "hold";
  if (features.has("locked") && restricts && random.chance(12)) return { ...rule, locked: true };
  return rule;
}

/** Some rules, none more often than not for a sandbox that is about other things. */
export function fileRules(random: Random, setting: Setting, victims: readonly string[]): RuleDocument[] {
  if (victims.length === 0) return [];
  return Array.from({ length: random.below(10) }, (_, i) => fileRule(random, setting, `f${i}`, victims));
}
