// AppArmor's language against ours, by the real parser: its own translation of each pattern to an expression is run
// on the paths that our matcher is run on. Nothing is loaded into a kernel. Needs apparmor_parser.

import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { RE2JS } from "re2js";
import { describe, expect, test } from "vitest";
import { expandBraces } from "../match/glob.js";
import { compilePath, isCanonical, pathPatternError } from "../match/path.js";
import { apparmorPattern, type Denial, lowerApparmor } from "./apparmor.js";

const hasParser = spawnSync("apparmor_parser", ["--version"]).status === 0;
if (!hasParser)
  console.warn("apparmor_parser is not installed: AppArmor profiles are NOT checked against it");

function profile(denials: readonly Denial[]): string {
  return lowerApparmor("test", denials)?.text ?? "";
}

/** What the parser says of a profile; without the kernel, and without a cache. */
function parse(text: string, ...options: string[]) {
  return spawnSync("apparmor_parser", ["-Q", "-K", ...options], { input: text, encoding: "utf8" });
}

describe("a pattern in AppArmor's language", () => {
  test.each([
    ["**/.env", "/{,**/}.env{,/}"],
    ["/srv/**/hooks", "/srv/{,**/}hooks{,/}"],
    ["/srv/**", "/srv/**"],
    ["/srv/*/key", "/srv/?*/key{,/}"],
    ["/srv/*.pem", "/srv/*.pem{,/}"],
    ["/srv/My Files/*", "/srv/My Files/?*{,/}"],
  ])("%s is %s", (pattern, text) => {
    expect(apparmorPattern(pattern)).toBe(text);
  });

  test.each([
    "/a/?",
    "/a/[x]*",
    '/a/"*',
    "/a/\\**",
    "/a/\\?*",
    "/a/@{HOME}*",
    "/a/#*",
    "/a/^*",
    "/a/\u00fc*",
    "/a/\n*",
    "/a/\\\\*",
    "/a/\\{x\\}*",
  ])("%j is none: it would be weaker, or another", (pattern) => {
    expect(apparmorPattern(pattern)).toBeUndefined();
  });
});

describe("a profile", () => {
  test("of no denials is none", () => {
    expect(lowerApparmor("test", [])).toBeUndefined();
  });

  test("names each pattern once, sorted, with all that any rule denies", () => {
    expect(
      profile([
        { rule: "file/b", pattern: "/b/**", permissions: "wl" },
        { rule: "file/a", pattern: "/a/**", permissions: "x" },
        { rule: "file/c", pattern: "/b/**", permissions: "rmx" },
      ]),
    ).toBe(`profile "clawsec-test" flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  unix,
  dbus,
  # file/a
  audit deny "/a/**" x,
  # file/b, file/c
  audit deny "/b/**" rwmlx,
}
`);
  });
});

describe.runIf(hasParser)("the real parser", () => {
  test("takes a profile, and refuses one that is none", () => {
    const text = profile([
      { rule: "file/a", pattern: "/{,**/}.env{,/}", permissions: "rmx" },
      { rule: "file/b", pattern: "/srv/My Files/?*{,/}", permissions: "wl" },
      { rule: "file/c", pattern: "/x/**", permissions: "rwmlx" },
      { rule: "file/d", pattern: "/y/*.sh{,/}", permissions: "x" },
    ]);
    const taken = spawnSync("apparmor_parser", ["-Q", "-K", "-S"], { input: text });
    expect([taken.status, taken.stdout.length > 100]).toEqual([0, true]);
    expect(parse(text.replace("deny", "dony")).status).not.toBe(0);
  });

  /** Each pattern's expression, as the parser translates it. */
  function expressions(patterns: readonly string[]): Map<string, RE2JS> {
    const denials = patterns.map((pattern) => ({ rule: "file/r", pattern, permissions: "r" }));
    const done = parse(profile(denials), "-D", "rule-exprs");
    expect(done.status).toBe(0);
    const found = new Map<string, RE2JS>();
    for (const [, aare = "", expression = ""] of `${done.stdout}${done.stderr}`.matchAll(
      /^aare: (.*?) {3}-> {3}(.*)$/gm,
    )) {
      found.set(aare, RE2JS.compile(`^(?:${expression})$`));
    }
    return found;
  }

  test("understands each pattern as we do, for files and for folders", { timeout: 60_000 }, () => {
    const piece = fc.constantFrom("a", "b", ".", "-", "*", "*", "a*", "{a,b}", " ", "c.d");
    const part = fc.oneof(
      { weight: 3, arbitrary: fc.array(piece, { minLength: 1, maxLength: 3 }).map((p) => p.join("")) },
      { weight: 1, arbitrary: fc.constant("**") },
    );
    const pattern = fc
      .tuple(fc.array(part, { minLength: 1, maxLength: 4 }), fc.constantFrom("/", ""))
      .map(([parts, first]) => first + parts.join("/"))
      .filter((p) => pathPatternError(p) === undefined);
    const name = fc.string({
      unit: fc.constantFrom("a", "b", ".", "-", " ", "\n", "\u00fc", "c.d"),
      minLength: 1,
      maxLength: 4,
    });
    const path = fc
      .array(name, { minLength: 1, maxLength: 5 })
      .map((parts) => `/${parts.join("/")}`)
      .filter(isCanonical);
    let matched = 0;
    fc.assert(
      fc.property(
        // One run of the parser for many patterns.
        fc.array(pattern, { minLength: 20, maxLength: 20 }),
        fc.array(path, { minLength: 40, maxLength: 40 }),
        (patterns, paths) => {
          const texts = new Map(
            patterns.flatMap(expandBraces).flatMap((p): [string, string][] => {
              const text = apparmorPattern(p);
              return text === undefined ? [] : [[p, text]];
            }),
          );
          expect(texts.size).toBeGreaterThan(0);
          const theirs = expressions([...texts.values()]);
          for (const [ours, text] of texts) {
            const expression = theirs.get(text);
            if (expression === undefined) throw new Error(`the parser says nothing of ${text}`);
            const matches = compilePath(ours, { subtree: false });
            // Names made from the pattern, so that many match.
            const near = ours.replace(/\*\*/g, "a/b").replace(/\*/g, "a");
            for (const p of [...paths, near.startsWith("/") ? near : `/${near}`]) {
              if (!isCanonical(p)) continue;
              const expected = matches(p);
              if (expected) matched++;
              // The path of a folder ends in "/" there.
              for (const written of [p, `${p}/`]) {
                if (expression.matcher(written).find() !== expected)
                  throw new Error(`${ours} as ${text} on ${JSON.stringify(written)}: not ${expected}`);
              }
            }
          }
        },
      ),
      { numRuns: 40 },
    );
    expect(matched).toBeGreaterThan(500);
  });
});
