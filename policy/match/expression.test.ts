import fc from "fast-check";
import { RE2JS } from "re2js";
import { describe, expect, test } from "vitest";
import { ANY_PATH, pathExpression, requestPathExpression } from "./expression.js";
import { compilePath, isCanonical, pathPatternError } from "./path.js";
import { compileRequestPath } from "./request.js";

const matches = (expression: string) => {
  const compiled = RE2JS.compile(expression);
  return (path: string) => compiled.matcher(path).find();
};

describe("an expression for path patterns", () => {
  test.each([
    [["/usr/bin/git"], "^/usr/bin/git$"],
    [["/usr/bin/[x].y"], "^/usr/bin/\\[x\\]\\.y$"],
    [["/a", "/b c"], "^(?:/a|/b\\x{20}c)$"],
    [['/a<b>&~#"@', "/\u00fc\n"], '^(?:/a<b>&~#"@|/\\x{FC}\\x{A})$'],
    [["/"], "^/$"],
  ])("%j is %s", (patterns, expression) => {
    expect(pathExpression(patterns, { subtree: false })).toBe(expression);
  });

  test("of no pattern matches nothing", () => {
    const none = matches(pathExpression([], { subtree: false }));
    for (const path of ["", "/", "/a", "\n"]) expect(none(path)).toBe(false);
  });

  test("of half a surrogate pair matches nothing, not the replacement character", () => {
    const half = matches(pathExpression(["/\ud83d"], { subtree: false }));
    for (const path of ["/\ufffd", "/\u{1f600}", "/a"]) expect(half(path)).toBe(false);
  });

  // Names that are easily taken for something else: dots, newlines, what is special in one of the languages.
  const char = fc.constantFrom(
    ..."ab..\n\r\t *?[]()|^$+-\\{},#&~@\"'<>",
    "\u00fc",
    "\u{1f600}",
    "\u2028",
    "\ufffd",
    "\u212a",
  );
  const name = fc.string({ unit: char, minLength: 1, maxLength: 4 });
  const path = fc.array(name, { maxLength: 5 }).map((parts) => `/${parts.join("/")}`);
  const odd = fc.oneof(
    { weight: 4, arbitrary: path },
    path.map((p) => `${p}/`),
    path.map((p) => p.replace("/", "//")),
    fc.string({ unit: fc.oneof(char, fc.constantFrom("/", "\0")), maxLength: 8 }),
  );
  const escaped = char.map((c) => `\\${c}`);
  const piece = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom("a", "b", ".", "..", "\u00fc", "\u{1f600}", "\n", " ") },
    { weight: 3, arbitrary: fc.constantFrom("*", "?", "*.", ".*", "?.", "{a,b*}", "{.,?}", "{,..}") },
    { weight: 1, arbitrary: escaped },
  );
  const part = fc.oneof(
    { weight: 4, arbitrary: fc.array(piece, { minLength: 1, maxLength: 4 }).map((p) => p.join("")) },
    { weight: 1, arbitrary: fc.constant("**") },
  );
  const pattern = fc
    .tuple(fc.array(part, { minLength: 1, maxLength: 4 }), fc.constantFrom("/", "/", ""))
    .map(([parts, first]) => first + parts.join("/"))
    .filter((p) => pathPatternError(p) === undefined);

  test.each([true, false])("means what the matcher means (subtree: %s)", (subtree) => {
    fc.assert(
      fc.property(
        fc.array(pattern, { minLength: 1, maxLength: 2 }),
        fc.array(odd, { minLength: 8, maxLength: 8 }),
        (patterns, paths) => {
          const expression = pathExpression(patterns, { subtree });
          const one = matches(expression);
          const all = patterns.map((p) => compilePath(p, { subtree }));
          for (const p of paths) {
            const expected = all.some((m) => m(p));
            if (one(p) !== expected)
              throw new Error(
                `${JSON.stringify(patterns)} as ${expression} on ${JSON.stringify(p)}: not ${expected}`,
              );
          }
        },
      ),
      { numRuns: 1500 },
    );
  });

  test("means what the matcher means of a path made from the pattern", () => {
    fc.assert(
      fc.property(pattern, fc.array(name, { minLength: 6, maxLength: 6 }), (p, names) => {
        // Wildcards filled in, so that most of these match.
        let i = 0;
        const made = p
          .replace(/\{([^,}]*),[^}]*\}/g, "$1")
          .replace(/\\(.)/gsu, "$1")
          .replace(/\*\*|\*|\?/g, () => names[i++ % 6] as string);
        const target = made.startsWith("/") ? made : `/${made}`;
        expect(matches(pathExpression([p], { subtree: false }))(target)).toBe(
          compilePath(p, { subtree: false })(target),
        );
      }),
      { numRuns: 1500 },
    );
  });

  test("for requests means what their matcher means", () => {
    fc.assert(
      fc.property(pattern, fc.array(odd, { minLength: 8, maxLength: 8 }), (p, paths) => {
        const one = matches(requestPathExpression([p]));
        const expected = compileRequestPath(p);
        for (const text of [...paths, "/", "/a/", "/a//b", "/./a"]) {
          if (one(text) !== expected(text))
            throw new Error(`${JSON.stringify(p)} on ${JSON.stringify(text)}`);
        }
      }),
      { numRuns: 1500 },
    );
    expect(matches(requestPathExpression([]))("/")).toBe(false);
  });

  test("for any path matches all that are canonical", () => {
    const any = matches(ANY_PATH);
    fc.assert(
      fc.property(odd, (p) => any(p) === isCanonical(p)),
      { numRuns: 1500 },
    );
  });
});
