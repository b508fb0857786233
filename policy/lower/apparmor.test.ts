// AppArmor's language against ours, by the real parser: its own translation of each pattern to an expression is run
// on the paths that our matcher is run on. Nothing is loaded into a kernel. Needs apparmor_parser.

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import fc from "fast-check";
import { RE2JS } from "re2js";
import { describe, expect, test } from "vitest";
import { expandBraces } from "../match/glob.js";
import { compilePath, isCanonical, pathPatternError } from "../match/path.js";
import { type Denial, lowerApparmor } from "./apparmor.js";
import { apparmorPattern, fits, heldFolders, states } from "./apparmor-pattern.js";

/** The host's, or the one that the virtual machine's tests have fetched. */
const parser = [
  "apparmor_parser",
  join(process.env.CLAWSEC_CACHE ?? "/var/cache/clawsec", "vm/apparmor_parser"),
].find((program) => spawnSync(program, ["--version"]).status === 0);
const reason = "apparmor_parser is not installed: AppArmor profiles are NOT checked against it";
if (parser === undefined) console.warn(reason);
const hasParser = parser !== undefined;
const inTitle = hasParser ? "" : ` [skipped: ${reason}]`;

function callParser(options: readonly string[], input: string, timeout?: number) {
  return spawnSync(parser ?? "apparmor_parser", options, { input, timeout });
}

function profile(denials: readonly Denial[]): string {
  return lowerApparmor("test", denials)?.text ?? "";
}

/** What the parser says of a profile; without the kernel, and without a cache. */
function parse(text: string, ...options: string[]) {
  return callParser(["-Q", "-K", ...options], text);
}

describe("a pattern in AppArmor's language", () => {
  test.each([
    ["**/.env", "/{,**/}.env{,/}"],
    ["/srv/**/**/hooks", "/srv/{,**/}hooks{,/}"],
    ["/srv/**", "/srv/**"],
    ["/srv/*/key", "/srv/?*/key{,/}"],
    ["/srv/*.pem", "/srv/*.pem{,/}"],
    ["/srv/My Files/*", "/srv/My Files/?*{,/}"],
    ["/a/[x]*", String.raw`/a/\133x\135*{,/}`],
    ['/a/"*', String.raw`/a/\042*{,/}`],
    ["/a/\\**", String.raw`/a/\052*{,/}`],
    ["/a/@\\{HOME\\}*", String.raw`/a/\100\173HOME\175*{,/}`],
    ["/a/\\\\1*", String.raw`/a/\1341*{,/}`],
    ["/a/\u00fc\n*", String.raw`/a/\303\274\012*{,/}`],
  ])("%j is %s", (pattern, text) => {
    expect(apparmorPattern(pattern)).toBe(text);
  });

  test("with text that no file name can have is none", () => {
    expect(apparmorPattern("/a/\0*")).toBeUndefined();
    expect(apparmorPattern("/a/\ud800*")).toBeUndefined();
  });

  test.each([
    ["**/.env", []],
    ["/w/**/*.key", []],
    ["/w/*.key", []],
    ["/w/*/key", ["/w/?*/"]],
    ["**/secret/*.key", ["/{,**/}secret/"]],
    ["/w/**/secret/**", ["/w/{,**/}secret/"]],
    ["/w/*/a/**/f", ["/w/?*/", "/w/?*/a/", "/w/?*/a/**/"]],
    ["/w/a*/**", ["/w/a*/"]],
  ])("%s keeps the names of the folders %j", (pattern, folders) => {
    expect(heldFolders(pattern)).toEqual(folders);
  });
});

describe("patterns that the parser would take minutes for", () => {
  const share = (pattern: string, tree = "/") => ({ tree, states: states(pattern) });

  test.each([
    ["**/.env", 1],
    ["**/*secret*", 1],
    ["**/.ssh/**", 1],
    ["**/.ssh/*", 1],
    ["**/.git/**/config", 2],
    ["**/a/*/b", 2],
    ["**/a/**/b/**/c", 3],
    ["**/*a*b", 2],
    ["/x/*a*/b", 2],
    ["/x/\\*a\\*b*", 1],
  ])("%s multiplies the states by %i", (pattern, count) => {
    expect(states(pattern)).toBe(count);
  });

  test("do not fit, as far as they are in each other's way", () => {
    const many = (count: number, tree: (n: number) => string) =>
      Array.from({ length: count }, (_, n) => share(`**/d${n}/**/f`, tree(n)));
    expect(fits(many(6, () => "/w"))).toBe(true);
    expect(fits(many(7, () => "/w"))).toBe(false);
    expect(fits(many(40, (n) => `/w/${n}`))).toBe(true);
    expect(fits(Array.from({ length: 500 }, (_, n) => share(`**/f${n}`)))).toBe(true);
  });

  test.runIf(hasParser)(`are refused well before it would${inTitle}`, () => {
    const patterns = Array.from({ length: 6 }, (_, n) => `/w/**/d${n}/**/f${n}`);
    const denials = patterns.flatMap((pattern) =>
      [apparmorPattern(pattern) ?? "", ...heldFolders(pattern)].map((text) => ({
        rule: "file/r",
        pattern: text,
        permissions: text.endsWith("/") ? "w" : "rmlx",
      })),
    );
    const taken = callParser(["-Q", "-K", "-S"], profile(denials), 5000);
    expect([taken.status, taken.stdout.length > 1000]).toEqual([0, true]);
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
    ).toBe(`profile "clawsec-test" flags=(mediate_deleted) {
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

describe.runIf(hasParser)(`the real parser${inTitle}`, () => {
  test("takes a profile, and refuses one that is none", () => {
    const text = profile([
      { rule: "file/a", pattern: "/{,**/}.env{,/}", permissions: "rmx" },
      { rule: "file/b", pattern: "/srv/My Files/?*{,/}", permissions: "wl" },
      { rule: "file/c", pattern: "/x/**", permissions: "rwmlx" },
      { rule: "file/d", pattern: "/y/*.sh{,/}", permissions: "x" },
    ]);
    const taken = callParser(["-Q", "-K", "-S"], text);
    expect([taken.status, taken.stdout.length > 100]).toEqual([0, true]);
    expect(parse(text.replace("deny", "dony")).status).not.toBe(0);
  });

  /** The parser's own expression for each text, over bytes. */
  function expressions(texts: readonly string[]): RE2JS[] {
    // Numbered, since it sorts them.
    const denials = texts.map((text, n) => ({ rule: "file/r", pattern: `/${n}${text}`, permissions: "r" }));
    const done = callParser(["-Q", "-K", "-D", "rule-exprs"], profile(denials));
    expect(done.status).toBe(0);
    const found: RE2JS[] = [];
    const said = Buffer.concat([done.stdout, done.stderr]).toString("latin1");
    for (const [, n = "", expression = ""] of said.matchAll(/ {3}-> {3}\/(\d+)(\/.*?)\nrule: /gs))
      found[Number(n)] = RE2JS.compile(`^(?:${expression})$`);
    expect(found.filter(Boolean).length).toBe(texts.length);
    return found;
  }

  test("understands each pattern as we do, for files and for folders", { timeout: 60_000 }, () => {
    const piece = fc.constantFrom(
      "a",
      "b",
      ".",
      "-",
      "*",
      "*",
      "a*",
      "?",
      "{a,b}",
      " ",
      "c.d",
      "\u00fc",
      "[",
      "\\*",
      '"',
      "\n",
    );
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
          for (const [index, [ours, text]] of [...texts].entries()) {
            const matches = compilePath(ours, { subtree: false });
            // Names made from the pattern, so that many match.
            const near = ours
              .replace(/\*\*/g, "a/b")
              .replace(/(?<!\\)\*/g, "a")
              .replace(/\?/g, "\u00fc")
              .replace(/\\(.)/g, "$1");
            for (const p of [...paths, near.startsWith("/") ? near : `/${near}`]) {
              if (!isCanonical(p)) continue;
              const expected = matches(p);
              if (expected) matched++;
              // The path of a folder ends in "/" there.
              for (const written of [p, `${p}/`]) {
                if (theirs[index]?.matcher(Buffer.from(written).toString("latin1")).find() !== expected)
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
