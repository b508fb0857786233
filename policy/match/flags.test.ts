import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ArgvPattern } from "../model.js";
import { compileArgvPattern } from "./argv.js";
import { readFlags } from "./flags.js";

const NOTHING: ArgvPattern = {
  glob: undefined,
  exact: undefined,
  prefix: undefined,
  regex: [],
  flags: [],
  without: [],
  valued: [],
};
const R = ["-r", "-R", "--recursive"];
const matches = (pattern: Partial<ArgvPattern>, restricts: boolean, line: string) =>
  compileArgvPattern({ ...NOTHING, ...pattern }, restricts)(line.split(" "));

describe("flags of a rule that restricts", () => {
  const recursive = { flags: [R], valued: ["-C", "--chdir"] };
  test.each([
    ["rm -r x", true],
    ["rm -R x", true],
    ["rm -rf x", true],
    ["rm -fr x", true],
    ["rm -f -r x", true],
    ["rm x -r", true],
    ["rm --recursive x", true],
    ["rm --recursive=yes x", true],
    ["rm --rec x", true],
    ["rm --r x", true],
    ["rm --rec=yes x", true],
    ["rm -C -- -r", true],
    ["rm -C x -r", true],
    ["rm -Cx -r", true],
    ["rm --chdir=x -r", true],
    // An abbreviation may or may not take a value: the flag could be there.
    ["rm --ch -r", true],
    ["rm --ch -- -r", true],
    ["rm -fC x -r", true],
    // A flag that the pattern does not name may take what follows: "--" is its value then.
    ["rm -S -- -r", true],
    ["rm -S -- --recursive", true],
    ["rm -fS -- -r", true],
    ["rm -rS -- x", true],
    ["rm -CxS -- x", false],
    ["rm --suffix -- -r", true],
    ["rm --suffix -- x -- -r", false],
    ["rm -S -- -T -- -r", true],
    ["rm -f -- -rf", true],
    // So may be a letter behind it, or the whole next flag, which takes no value then.
    ["rm -SC -r", true],
    ["rm -S -C -r", true],
    ["rm --ch -C -r", true],
    ["rm -f x", false],
    ["rm x", false],
    ["rm r", false],
    ["rm -", false],
    ["rm --", false],
    ["rm -- -r", false],
    ["rm x -- -r", false],
    ["rm - -- -r", false],
    ["rm -Sx -- x", false],
    ["rm -S x -- -r", false],
    ["rm -S -- x -- -r", false],
    ["rm --suffix=x -- -r", false],
    ["rm --ch=x -- -r", false],
    ["rm -C x -- -r", false],
    ["rm -Cx -- -r", false],
    ["rm -CS -- -r", false],
    ["rm -C -r", false],
    ["rm -Cr x", false],
    ["rm --chdir -r", false],
    ["rm --chdir=-r", false],
    ["rm --recursively", false],
    ["rm --ref", false],
    ["rm ---recursive", false],
    // argv[0] is no argument.
    ["-r x", false],
  ])("%s: %s", (line, expected) => {
    expect(matches(recursive, true, line)).toBe(expected);
  });

  test.each([
    ["rm -rf x", true],
    ["rm -fr x", true],
    ["rm -r -f x", true],
    ["rm --rec --for x", true],
    ["rm -r x", false],
    ["rm -f x", false],
    ["rm -r -- -f", false],
    ["rm -r -S -- -f", true],
  ])("all must be there: %s: %s", (line, expected) => {
    expect(matches({ flags: [R, ["-f", "--force"]] }, true, line)).toBe(expected);
  });

  // A denial without --dry-run is not dodged by what only looks like it.
  test.each([
    ["git push", true],
    ["git push --dry", true],
    ["git push -- --dry-run", true],
    ["git push -o --dry-run", true],
    ["git push -u -- --dry-run", true],
    ["git push -uo --dry-run", true],
    ["git push -u -o -- -n", true],
    // "n" may be the value of a flag that the pattern does not know.
    ["git push -xn", true],
    ["git push --dry-run", false],
    ["git push -n", false],
    ["git push -nx", false],
    ["git push -o x -n", false],
  ])("`without` holds unless the flag is there for certain: %s: %s", (line, expected) => {
    expect(matches({ without: [["-n", "--dry-run"]], valued: ["-o"] }, true, line)).toBe(expected);
  });
});

describe("flags of a rule that permits", () => {
  test.each([
    ["rm -i x", true],
    ["rm --interactive x", true],
    ["rm --interactive=once x", true],
    ["rm -iv x", true],
    ["rm --inter x", false],
    // "i" may be the value of a flag that the pattern does not know.
    ["rm -xi x", false],
    ["rm -- -i", false],
    ["rm -C -i", false],
    ["rm --ch -i", false],
    ["rm --ch -- -i", false],
    ["rm -S -- -i", false],
    ["rm -xC -i", false],
    ["rm -x -C -i", false],
    ["rm -x -C -- -i", false],
    ["rm --ch -C -i", false],
    ["rm -xC a -i", true],
    ["rm -x -C a -i", true],
    ["rm x", false],
  ])("count when they are there for certain: %s: %s", (line, expected) => {
    const pattern = { flags: [["-i", "--interactive"]], valued: ["-C", "--chdir"] };
    expect(matches(pattern, false, line)).toBe(expected);
  });

  test("of a cluster count what stands behind letters that the pattern knows", () => {
    const both = (line: string) => matches({ flags: [["-i"], ["-v"]] }, false, line);
    expect(["rm -iv", "rm -vi", "rm -ivx"].map(both)).toEqual([true, true, true]);
    expect(["rm -xiv", "rm -ixv", "rm -i"].map(both)).toEqual([false, false, false]);
  });

  test.each([
    ["rm x", true],
    ["rm -f x", true],
    ["rm -- -r", true],
    ["rm -C -r x", true],
    ["rm -r x", false],
    ["rm -fr x", false],
    ["rm --recursive x", false],
    ["rm --rec x", false],
    ["rm -C -- -r", false],
    ["rm --ch -r", false],
    ["rm -S -- -r", false],
    ["rm -S -- --recursive x", false],
    ["rm --suffix -- -r", false],
    ["rm -SC -r", false],
    ["rm -S x -- -r", true],
    ["rm --suffix=x -- -r", true],
  ])("`without` holds only if the flag could not be there: %s: %s", (line, expected) => {
    expect(matches({ without: [R], valued: ["-C", "--chdir"] }, false, line)).toBe(expected);
  });
});

/**
 * Flags that getopt_long(3) finds, where `taking` are the flags that need a value and, of short ones, `optional` those that
 * may have one in the same argument.
 */
function getopt(
  args: readonly string[],
  taking: ReadonlySet<string>,
  optional: ReadonlySet<string>,
): string[] {
  const found: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? "";
    if (arg === "--") break;
    if (arg.startsWith("--")) {
      const [name = ""] = arg.split("=");
      found.push(name);
      if (taking.has(name) && name === arg) i++;
    } else if (arg.startsWith("-")) {
      const letters = [...arg.slice(1)];
      for (const [at, letter] of letters.entries()) {
        const name = `-${letter}`;
        found.push(name);
        if (optional.has(name)) break;
        if (!taking.has(name)) continue;
        if (at === letters.length - 1) i++;
        break;
      }
    }
  }
  return found;
}

test("whatever the flags that a pattern does not name take, what a program finds is possible, and what is certain it finds", () => {
  const pattern = { flags: [["-r", "--recursive"]], without: [["-f"]], valued: ["-C", "--chdir"] };
  const names = new Set([...pattern.flags.flat(), ...pattern.without.flat(), ...pattern.valued]);
  const short = fc
    .array(fc.constantFrom("r", "f", "C", "S", "T"), { minLength: 1, maxLength: 3 })
    .map((letters) => `-${letters.join("")}`);
  const long = fc.constantFrom("--recursive", "--chdir", "--chdir=a", "--suffix", "--suffix=a", "--target");
  const args = fc.array(fc.oneof(short, long, fc.constant("--"), fc.constantFrom("a", "-", "")), {
    maxLength: 6,
  });
  const strangers = fc.subarray(["-S", "-T", "--suffix", "--target"]);
  fc.assert(
    fc.property(args, strangers, (line, taking) => {
      const found = getopt(line, new Set([...pattern.valued, ...taking]), new Set()).filter((n) =>
        names.has(n),
      );
      const possible = readFlags(line, pattern, "possible");
      expect(found.filter((name) => !possible.has(name))).toEqual([]);
    }),
    { numRuns: 3000 },
  );
  fc.assert(
    fc.property(args, fc.subarray(["-S", "-T"]), (line, optional) => {
      const found = getopt(line, new Set(pattern.valued), new Set(optional));
      expect([...readFlags(line, pattern, "certain")].filter((name) => !found.includes(name))).toEqual([]);
    }),
    { numRuns: 3000 },
  );
});

test("the name itself is not an abbreviation of a longer one", () => {
  const pattern = { flags: [["--all"], ["--all-tags"]], without: [], valued: [] };
  expect([...readFlags(["--all"], pattern, "possible")]).toEqual(["--all"]);
  expect([...readFlags(["--al"], pattern, "possible")]).toEqual(["--all", "--all-tags"]);
});

describe("literal arguments and expressions", () => {
  test.each([
    [{ exact: ["push", "origin"] }, "git push origin", true],
    [{ exact: ["push", "origin"] }, "anything push origin", true],
    [{ exact: ["push", "origin"] }, "git push origin main", false],
    [{ exact: ["push", "origin"] }, "git push", false],
    [{ exact: ["*"] }, "git push", false],
    [{ exact: [] }, "git", true],
    [{ exact: [] }, "git push", false],
    [{ prefix: ["push"] }, "git push origin", true],
    [{ prefix: ["push"] }, "git push", true],
    [{ prefix: ["push"] }, "git pull push", false],
    [{ prefix: ["push"] }, "git", false],
    [{ regex: ["^--out=/etc/"] }, "x a --out=/etc/b", true],
    [{ regex: ["^--out=/etc/"] }, "x a--out=/etc/b", false],
    [{ regex: ["etc"] }, "x /a/etc/b", true],
    // Each expression in one argument, not over the joint between two, and never in argv[0].
    [{ regex: ["a b"] }, "x a b", false],
    [{ regex: ["etc"] }, "/etc/x a", false],
    [{ regex: ["^a$", "^b$"] }, "x b a", true],
    [{ regex: ["^a$", "^b$"] }, "x a", false],
    [{ glob: ["*", "**", "push", "**"], flags: [["-f"]] }, "git -C push push -f", true],
    [{ glob: ["*", "push", "**"], flags: [["-f"]] }, "git pull -f", false],
  ] as [Partial<ArgvPattern>, string, boolean][])("%j against %s is %s", (pattern, line, expected) => {
    for (const restricts of [true, false]) expect(matches(pattern, restricts, line)).toBe(expected);
  });

  test('the "." of an expression is a line break, too, where the rule restricts', () => {
    const says = (restricts: boolean, argument: string, expression = "^curl.*evil") =>
      compileArgvPattern({ ...NOTHING, regex: [expression] }, restricts)(["sh", argument]);
    expect([true, false].map((restricts) => says(restricts, "curl a evil"))).toEqual([true, true]);
    expect(says(true, "curl \\\n evil")).toBe(true);
    expect(says(false, "curl \\\n evil")).toBe(false);
    // Lines are lines only where the expression says so, and "." is what RE2 has where it asks for that.
    expect(says(true, "a\ncurl evil")).toBe(false);
    expect(says(true, "a\ncurl evil", "(?m)^curl.*evil")).toBe(true);
    expect(says(true, "curl\nevil", "(?-s)^curl.*evil")).toBe(false);
  });

  test("a program without any arguments, not even its name, has none", () => {
    const empty = (pattern: Partial<ArgvPattern>) => compileArgvPattern({ ...NOTHING, ...pattern }, true)([]);
    expect(empty({ exact: [] })).toBe(true);
    expect(empty({ prefix: ["a"] })).toBe(false);
    expect(empty({ flags: [["-a"]] })).toBe(false);
  });

  test("an expression whose alternatives multiply comes to an end", () => {
    // With backtracking, 2^20000 steps.
    expect(matches({ regex: ["^(a+)+$"] }, true, `x ${"a".repeat(20_000)}b`)).toBe(false);
  });
});
