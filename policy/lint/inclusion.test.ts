// What is said of patterns is true of the texts they match.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compileArgv } from "../match/argv.js";
import { compileText } from "../match/glob.js";
import { matchHost } from "../match/host.js";
import { compilePath, isCanonical } from "../match/path.js";
import {
  disjointPaths,
  includesArgv,
  includesCidrs,
  includesHosts,
  includesPaths,
  includesPorts,
  includesTexts,
} from "./inclusion.js";
import { sampleArgv, sampleHosts, samplePaths, sampleTexts } from "./sample.js";

const PLAIN = { subtree: false };
const TREE = { subtree: true };

test("patterns without a path in common are told from those with one", () => {
  expect(disjointPaths(["/usr/bin/a*"], ["/usr/bin/b*", "/opt/**"])).toBe("yes");
  expect(disjointPaths(["/usr/*/a"], ["/usr/bin/?"])).toBe("no");
  expect(disjointPaths(["/**"], ["/"])).toBe("yes");
  expect(disjointPaths(["**/x"], ["/a/**"])).toBe("no");
});

describe("paths", () => {
  test.each([
    ["/**", "/usr/bin/git"],
    ["/usr/**", "/usr/bin/*"],
    ["/usr/**", "/usr/**/{a,b}"],
    ["/usr/bin/g*", "/usr/bin/{git,go}"],
    ["/usr/*/*", "/usr/bin/git"],
    ["**/git", "/usr/**/git"],
    ["/a/*", "/a/?*"],
    ["/a/?*", "/a/*"],
    ["/**/*", "/**"],
    ["/a/**/b", "/a/b"],
    ["/a/*", "/a/\\*"],
  ])("%s has all of %s", (a, b) => {
    expect(includesPaths([a], [b], PLAIN)).toBe("yes");
  });

  test.each([
    ["/usr/bin/git", "/**"],
    ["/usr/*", "/usr/bin/git"],
    ["/usr/**", "/usr"],
    ["/usr/bin/*", "/usr/**"],
    ["/a/**/b", "/a/c"],
    ["/a/?", "/a/*"],
    ["/a/\\*", "/a/*"],
    ["/**", "/"],
  ])("%s has not all of %s", (a, b) => {
    expect(includesPaths([a], [b], PLAIN)).toBe("no");
  });

  test("several patterns together cover what none covers alone", () => {
    expect(includesPaths(["/a/?"], ["/a/*"], PLAIN)).toBe("no");
    expect(includesPaths(["/a/?", "/a/??*"], ["/a/*"], PLAIN)).toBe("yes");
  });

  test("of a file rule, a path without a pattern is the tree below it", () => {
    expect(includesPaths(["/a"], ["/a/**", "/a/b"], TREE)).toBe("yes");
    expect(includesPaths(["/a/**"], ["/a"], TREE)).toBe("no");
    expect(includesPaths(["/a"], ["/ab"], TREE)).toBe("no");
    expect(includesPaths(["/a"], ["/a/b"], PLAIN)).toBe("no");
  });

  test("a question that takes too long is not answered", () => {
    const many = Array.from({ length: 14 }, () => "?").join("");
    const answer = includesPaths([`/*a${many}`], [`/*a${many}*`, "/*b"], PLAIN);
    expect(["no", "unknown"]).toContain(answer);
    const hard = includesPaths([`/*a${many}`, `/*b${many}`, `/{?,??}`], [`/*{a,b}${many}`], PLAIN);
    expect(["yes", "unknown"]).toContain(hard);
  });
});

const segment = fc
  .stringMatching(/^[ab*?.]{1,3}$/)
  .filter((s) => !s.includes("**") && s !== "." && s !== "..");
const part = fc.oneof({ weight: 3, arbitrary: segment }, { weight: 1, arbitrary: fc.constant("**") });
const pathPattern = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join("/")}`);
const shortPath = fc
  .array(fc.stringMatching(/^[abc.]{1,3}$/), { minLength: 0, maxLength: 4 })
  .map((parts) => `/${parts.join("/")}`)
  .filter(isCanonical);

test("when a has all of b, a matches every sample and every random path that b matches", () => {
  let said = 0;
  fc.assert(
    fc.property(
      fc.array(pathPattern, { minLength: 1, maxLength: 2 }),
      fc.array(pathPattern, { minLength: 1, maxLength: 2 }),
      fc.boolean(),
      fc.array(shortPath, { minLength: 30, maxLength: 30 }),
      (a, b, subtree, paths) => {
        const answer = includesPaths(a, b, { subtree });
        const inA = a.map((p) => compilePath(p, { subtree }));
        const inB = b.map((p) => compilePath(p, { subtree }));
        const samples = [...paths, ...b.flatMap((p) => samplePaths(p, { subtree }, 8))];
        const outside = samples.filter((path) => inB.some((m) => m(path)) && !inA.some((m) => m(path)));
        if (answer === "yes") {
          said++;
          expect(outside).toEqual([]);
        } else if (outside.length > 0) expect(answer).not.toBe("yes");
      },
    ),
    { numRuns: 3000 },
  );
  expect(said).toBeGreaterThan(50);
});

test("a pattern has all of itself, and every sample of a pattern is matched by it", () => {
  fc.assert(
    fc.property(pathPattern, fc.boolean(), (pattern, subtree) => {
      expect(includesPaths([pattern, "/zz"], [pattern, pattern], { subtree })).toBe("yes");
      for (const path of samplePaths(pattern, { subtree }, 8))
        expect(compilePath(pattern, { subtree })(path)).toBe(true);
    }),
  );
});

const argument = fc.oneof(fc.stringMatching(/^[ab*?]{0,2}$/), fc.constant("**"), fc.constant("{a,b*}"));

test("what is said of argument lists holds for every sample", () => {
  let said = 0;
  fc.assert(
    fc.property(
      fc.array(argument, { minLength: 1, maxLength: 4 }),
      fc.array(argument, { minLength: 1, maxLength: 4 }),
      fc.array(fc.array(fc.stringMatching(/^[ab]{0,2}$/), { maxLength: 4 }), {
        minLength: 30,
        maxLength: 30,
      }),
      (a, b, lists) => {
        if (includesArgv(a, b) !== "yes") return;
        said++;
        for (const argv of [...lists, ...sampleArgv(b, 4)])
          if (compileArgv(b)(argv)) expect(compileArgv(a)(argv)).toBe(true);
      },
    ),
    { numRuns: 2000 },
  );
  expect(said).toBeGreaterThan(50);
});

test("argument lists with examples on both sides", () => {
  expect(includesArgv(["*", "**", "push", "**"], ["*", "push", "origin"])).toBe("yes");
  expect(includesArgv(["*", "push", "**"], ["*", "-C", "x", "push"])).toBe("no");
  expect(includesArgv(["**"], ["*", "{a,b}"])).toBe("yes");
  expect(includesArgv(["*"], ["**"])).toBe("no");
});

test("what is said of texts holds for every sample", () => {
  const text = fc.stringMatching(/^[AB*?_]{1,4}$/);
  fc.assert(
    fc.property(text, text, (a, b) => {
      if (includesTexts([a], [b]) !== "yes") return;
      for (const sample of sampleTexts(b, 8))
        if (compileText(b)(sample)) expect(compileText(a)(sample)).toBe(true);
    }),
  );
  expect(includesTexts(["LD_*"], ["LD_PRELOAD"])).toBe("yes");
  expect(includesTexts(["LD_PRELOAD"], ["LD_*"])).toBe("no");
});

test("host patterns go by whole labels", () => {
  const pairs: [string, string, string][] = [
    ["*", "a.b", "yes"],
    ["*.b", "a.b", "yes"],
    ["*.b", "*.a.b", "yes"],
    ["*.b", "*.b", "yes"],
    ["*.b", "b", "no"],
    ["*.b", "xb", "no"],
    ["a.b", "*.b", "no"],
    ["*.b", "*", "no"],
  ];
  for (const [a, b, answer] of pairs) {
    expect(includesHosts([a], [b]), `${a} ${b}`).toBe(answer);
    if (answer === "yes") for (const host of sampleHosts(b)) expect(matchHost(a, host)).toBe(true);
  }
});

test("CIDRs and ports", () => {
  expect(includesCidrs(["10.0.0.0/8"], ["10.1.0.0/16"])).toBe("yes");
  expect(includesCidrs(["10.1.0.0/16"], ["10.0.0.0/8"])).toBe("unknown");
  expect(includesPorts([], [{ first: 1, last: 9 }])).toBe("yes");
  expect(
    includesPorts(
      [
        { first: 1, last: 5 },
        { first: 6, last: 9 },
      ],
      [{ first: 2, last: 8 }],
    ),
  ).toBe("yes");
  expect(
    includesPorts(
      [
        { first: 1, last: 5 },
        { first: 7, last: 9 },
      ],
      [{ first: 2, last: 8 }],
    ),
  ).toBe("no");
  expect(includesPorts([{ first: 1, last: 65534 }], [])).toBe("no");
});
