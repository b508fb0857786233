// Variables of the environment of an exec.

import type { Attempt } from "./attempt.js";
import type { Random } from "./random.js";

/** What the sandbox of a run has in its environment, and which of it the way into the subject `tool` leaves there. */
export const SANDBOX_VARIABLES: Readonly<Record<string, "stays" | "goes">> = {
  CONFORMANCE: "stays",
  NODE_OPTIONS: "goes",
  PYTHONSTARTUP: "goes",
  GIT_EDITOR: "goes",
};
/** docs/policy.md: what every command has. */
const ALWAYS = ["HOME", "LOGNAME", "PATH", "USER"] as const;

const NAMES = [
  "LD_LIBRARY_PATH",
  "LD_PRELOAD",
  "LD_AUDIT",
  "NODE_OPTIONS",
  "NODE_PATH",
  "BASH_ENV",
  "ENV",
  "PYTHONPATH",
  "PYTHONINSPECT",
  "PERL5OPT",
  "HOME",
  "LANG",
  "CI",
  "A_NAME",
] as const;
/** Patterns of rules. */
export const NAME_PATTERNS = [
  "LD_*",
  "LD_PRELOAD",
  "NODE_OPTIONS",
  "NODE_*",
  "BASH_ENV",
  "PYTHON*",
  "*ENV",
  "HOME",
  "CI",
  "A_?AME",
  "*",
] as const;

export interface Environment {
  readonly env: readonly string[];
  readonly inherit: boolean;
  /** As a rule sees them: each once, sorted. */
  readonly names: readonly string[];
}

/** Some environment. `more`: variables that must be there; an interpreter is told by them what to read. */
export function someEnvironment(random: Random, subject: string, more: readonly string[]): Environment {
  const inherit = random.chance(15);
  const chosen = random.chance(45) ? random.some(NAMES, 3) : [];
  const values = () => random.pick(["", "1", "/nowhere", "a=b"]);
  const env = [...more, ...chosen.map((name) => `${name}=${values()}`)];
  // Twice, and without a value.
  if (chosen.length > 0 && random.chance(10)) env.push(`${chosen[0]}=again`);
  if (random.chance(4)) env.push("A_NAME");
  const own = Object.entries(SANDBOX_VARIABLES)
    .filter(([, what]) => what === "stays" || subject !== "tool")
    .map(([name]) => name);
  const inherited = inherit ? [...ALWAYS, ...own] : [];
  const names = new Set([...inherited, ...env.map((entry) => entry.split("=")[0] ?? "")]);
  return { env, inherit, names: [...names].sort() };
}

/** The same exec without one of its variables; undefined where that would be another one: what it reads hangs on it. */
export function withoutVariable(attempt: Attempt, index: number): Attempt | undefined {
  const { call, meant } = attempt;
  const [gone] = (call.env ?? []).slice(index);
  if (meant.kind !== "exec" || gone === undefined || /^(READS|SWAPS)=/.test(gone)) return undefined;
  // These names have other origins, too.
  if (call.inherit === true || meant.facts.loader !== "") return undefined;
  const env = (call.env ?? []).filter((_, i) => i !== index);
  const names = new Set(env.map((entry) => entry.split("=")[0] ?? ""));
  const facts = { ...meant.facts, environmentNames: [...names].sort() };
  return { ...attempt, call: { ...call, env }, meant: { ...meant, facts } };
}
