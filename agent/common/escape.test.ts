import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { escapeArgv, escapedJson, escapeText, escapeTo } from "./escape.js";

/** What a terminal could act on, or a reader could not see. */
const HOSTILE = [
  ["a colour sequence", "\u001b[31mred\u001b[0m"],
  ["a title sequence", "\u001b]0;owned\u0007"],
  ["a one-byte CSI", "\u009b2J"],
  ["a line break that forges a log line", "ls\n12:00:00 allow rm"],
  ["a carriage return that overwrites the line", "rm -rf /\rls       "],
  ["backspaces", "rm\b\bls"],
  ["a bidirectional override", "txt.\u202egnp.exe"],
  ["an isolate", "a\u2066b\u2069"],
  ["a zero-width space", "pay\u200bpal"],
  ["a byte order mark", "\ufeffls"],
  ["a tag character", "ls\u{e0041}"],
  ["a line separator", "a\u2028b"],
  ["a NUL", "a\u0000b"],
  ["a lone surrogate", "a\ud800b"],
  ["a soft hyphen", "a\u00adb"],
] as const;

const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u;

describe("escapeText", () => {
  test.each(HOSTILE)("shows %s instead of sending it", (_what, text) => {
    expect(UNSAFE.test(text)).toBe(true);
    expect(escapeText(text)).not.toMatch(UNSAFE);
    expect(escapeText(text)).toContain("\\");
  });

  test("leaves plain words, accents, CJK and emoji as they are", () => {
    for (const text of ["git push", "naïve café", "日本語", "🦀", "a-b_c.d/e:f=g"])
      expect(escapeText(text)).toBe(text);
  });

  test("is unambiguous: a written backslash-n is not a line break", () => {
    expect(escapeText("a\\nb")).toBe("a\\\\nb");
    expect(escapeText("a\nb")).toBe("a\\nb");
  });

  test("never leaves anything unsafe, whatever the text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => !UNSAFE.test(escapeText(text))),
    );
  });

  test("of two different texts is different", () => {
    const text = fc.string({ unit: fc.constantFrom("\\", "n", "\n", "x", "1", "b", "\u001b"), maxLength: 6 });
    fc.assert(
      fc.property(text, text, (a, b) => a === b || escapeText(a) !== escapeText(b)),
      { numRuns: 2000 },
    );
  });
});

describe("escapeTo", () => {
  test("cuts a text of megabytes to the limit", () => {
    const cut = escapeTo("\u001b".repeat(8_000_000), 80);
    expect([...cut].length).toBeLessThanOrEqual(80);
    expect(cut.endsWith("…")).toBe(true);
  });

  test("keeps a text within the limit whole", () => {
    expect(escapeTo("abc", 3)).toBe("abc");
    expect(escapeTo("abcd", 3)).toBe("ab…");
  });
});

describe("escapedJson", () => {
  test.each(HOSTILE)("carries %s unchanged in value and harmless in form", (_what, text) => {
    const json = escapedJson({ text, [text]: 1 });
    expect(json).not.toMatch(UNSAFE);
    expect(JSON.parse(json)).toEqual({ text, [text]: 1 });
  });
});

describe("escapeArgv", () => {
  test("quotes words that a shell would split, and no others", () => {
    expect(escapeArgv(["git", "commit", "-m", "two words", "it's", ""])).toBe(
      "git commit -m 'two words' 'it'\\''s' ''",
    );
  });

  test("shows one line of limited length, whatever the arguments", () => {
    const line = escapeArgv(
      Array.from({ length: 4096 }, () => "\n\u001b[2J"),
      100,
    );
    expect(line).not.toMatch(UNSAFE);
    expect([...line].length).toBeLessThanOrEqual(140);
  });

  test("says how much is not shown, where something is not", () => {
    expect(escapeArgv(["a", "b".repeat(98)], 100)).toBe(`a ${"b".repeat(98)}`);
    expect(escapeArgv(["a", "b".repeat(198)], 100)).toBe(`a '${"b".repeat(97)}… (about 101 more characters)`);
    const hidden = escapeArgv(["git", "-c", `x.y=${"A".repeat(1000)}`, "push", "--force"]);
    expect(hidden).toMatch(/^git -c 'x\.y=A+… \(about \d+ more characters\)$/);
    expect(escapeArgv(["echo", "…"])).toBe("echo '…'");
  });
});
