// Random policies of denials by pattern, and operations on names that are near to what they deny.

import fc from "fast-check";
import { expandBraces, hasPattern } from "../../policy/match/glob.ts";
import { isCanonical, isWithin, parent, pathPatternError } from "../../policy/match/path.ts";
import { lower } from "./lowering-jobs.ts";
import type { DenyRule } from "./meaning.ts";
import { needs, type Operation, type OperationName } from "./operations.ts";

/** Names that are special to somebody: to a shell, to AppArmor, to UTF-8, or to nobody. */
const NAMES = [
  ".env",
  "key.pem",
  "secret",
  "my file",
  "ü",
  "日本",
  "\u{1f600}",
  "a[b]",
  'q"q',
  "x*y",
  "@{HOME}",
];
const ODD = ["new\nline", "back\\slash", "a", "b", "secret2", "{x}", "a,b", "#c", "tab\t", "q?", "^d"];
const names = fc.constantFrom(...NAMES, ...ODD);
const escaped = (name: string) => name.replace(/[\\*?{}]/g, "\\$&");

const literal = names.map(escaped);
const wild = fc.constantFrom(
  "*.pem",
  "secret*",
  "*[b]",
  "?",
  "?\u{fc}",
  "*ü*",
  "{key,a}*",
  "k?y.*",
  "*\\?",
  "#*",
);
const segment = fc.oneof({ weight: 3, arbitrary: literal }, { weight: 2, arbitrary: wild });
const middle = fc.oneof(segment, fc.constantFrom("**", "*"));
const patterns = fc
  .tuple(
    fc.constantFrom("**", "/home/agent", "/home/agent/state", "/bound", "/home/agent/**", "/bound/**"),
    fc.array(middle, { maxLength: 2 }),
    fc.oneof({ weight: 4, arbitrary: segment }, { weight: 1, arbitrary: fc.constant("**") }),
  )
  .map(([first, between, last]) => [first, ...between, last].join("/"))
  // A tree as a whole is denied by mounts.
  .filter((pattern) => /[^*/]/.test(pattern.replace(/^(\/home\/agent(\/state)?|\/bound)/, "")))
  .filter((pattern) => pathPatternError(pattern) === undefined && hasPattern(pattern));

const rule: fc.Arbitrary<DenyRule> = fc.record({
  path: fc.array(patterns, { minLength: 1, maxLength: 2 }),
  operations: fc.subarray(["read", "write", "exec"] as const, { minLength: 1 }),
});

/** A name that the pattern matches, or nearly. */
function near(pattern: string): fc.Arbitrary<string> {
  const parts = fc.tuple(
    ...pattern.split("/").map((part): fc.Arbitrary<string[]> => {
      if (part === "**") return fc.array(names, { maxLength: 2 });
      const text = fc
        .tuple(fc.constantFrom("", "a", "ü"), fc.constantFrom("a", "日"))
        .map(([many, one]) =>
          part.replace(
            /\\(.)|(\*)|(\?)/gsu,
            (_, plain: string | undefined, star) => plain ?? (star ? many : one),
          ),
        );
      return text.map((one) => [one]);
    }),
  );
  return parts
    .map((all) => all.flat().filter((part) => part !== ""))
    .chain((all) =>
      fc.oneof(
        { weight: 4, arbitrary: fc.constant(all) },
        // Another last name, one more, one less.
        { weight: 1, arbitrary: names.map((name) => [...all.slice(0, -1), name]) },
        { weight: 1, arbitrary: names.map((name) => [...all, name]) },
        { weight: 1, arbitrary: fc.constant(all.slice(0, -1)) },
      ),
    )
    .map((all) =>
      pattern.startsWith("/") || all.length > 2 ? `/${all.join("/")}` : `/home/agent/${all.join("/")}`,
    );
}

const MOUNTS = ["/home", "/home/agent", "/home/agent/state", "/home/agent/state/deep", "/bound", "/tmpfs"];
/** Neither a mount point nor the probe's own. */
const isFree = (path: string) =>
  isCanonical(path) &&
  path !== "/" &&
  !MOUNTS.includes(path) &&
  !isWithin(path, "/proc") &&
  path.length < 100;

const single = fc.constantFrom<OperationName>(
  ...([
    "read",
    "write",
    "append",
    "open-truncate",
    "create",
    "truncate",
    "unlink",
    "chmod",
    "chown",
  ] as const),
  ...(["mkdir", "rmdir", "list", "mkfifo", "symlink", "exec", "map-exec", "reopen-read"] as const),
);
const double = fc.constantFrom<OperationName>("rename", "rename", "link", "exchange");

function operation(pattern: string): fc.Arbitrary<Operation> {
  const path = near(pattern).filter(isFree);
  const other = fc.oneof(
    path,
    fc
      .tuple(fc.constantFrom("/home/agent", "/home/agent/state", "/bound", "/o"), names)
      .map((p) => p.join("/")),
    path.map((p) => `${parent(p) === "/" ? "" : parent(p)}/moved`),
  );
  const one = fc.tuple(single, path).map(([op, p]): Operation => {
    const step = { op, path: p, ...(op === "symlink" ? { to: "/o/target" } : {}) };
    return { ...step, given: needs(step) };
  });
  const two = fc.tuple(double, path, other, fc.boolean()).map(([op, p, q, swapped]): Operation => {
    const step = swapped ? { op, path: q, to: p } : { op, path: p, to: q };
    return { ...step, given: needs(step) };
  });
  // A folder on the way is renamed, with the file in it.
  const folder = fc.tuple(path, other, fc.nat(3)).map(([p, to, up]): Operation => {
    let above = p;
    for (let n = 0; n <= up && isFree(parent(above)); n++) above = parent(above);
    const given = [{ kind: "file", path: p } as const, ...needs({ op: "rename", path: above, to }).slice(1)];
    return {
      op: "rename",
      path: above,
      to,
      given: above === p ? needs({ op: "rename", path: p, to }) : given,
    };
  });
  return fc
    .oneof({ weight: 4, arbitrary: one }, { weight: 3, arbitrary: two }, { weight: 2, arbitrary: folder })
    .filter(({ path: p, to, op }) => {
      if (to === undefined || op === "symlink") return true;
      return isFree(p) && isFree(to) && !isWithin(p, to) && !isWithin(to, p);
    });
}

/** What is tried of one policy. */
export interface Trial {
  readonly rules: readonly DenyRule[];
  readonly operations: readonly Operation[];
}

/** Random trials; the same seed gives the same. Policies of which the compiler makes no profile are left out. */
export function trials(seed: number, count: number, operationsEach: number): Trial[] {
  const trial = fc
    .array(rule, { minLength: 1, maxLength: 3 })
    .filter((rules) => lower(rules).artefacts?.apparmor !== undefined)
    .chain((rules) => {
      const all = rules.flatMap(({ path }) => path.flatMap(expandBraces));
      const some = fc.constantFrom(...all).chain(operation);
      return fc.record({
        rules: fc.constant(rules),
        operations: fc.array(some, { minLength: operationsEach, maxLength: operationsEach }),
      });
    });
  return fc.sample(trial, { seed, numRuns: count });
}
