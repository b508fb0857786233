import { expect, test } from "vitest";
import { visible, visibleArgv, visibleHost, visibleWord } from "./escape.js";

test.each([
  ["a colour", "\x1b[31mred", "\\x1b[31mred"],
  ["a cursor move in one C1 character", "\x9b2J", "\\x9b2J"],
  ["a title change with its bell", "\x1b]0;x\x07", "\\x1b]0;x\\x07"],
  ["lines", "a\r\nb\tc", "a\\r\\nb\\tc"],
  ["DEL", "a\x7f", "a\\x7f"],
  ["a right-to-left override", "a\u202egpj.exe", "a\\u202egpj.exe"],
  ["a bidi isolate", "\u2066x\u2069", "\\u2066x\\u2069"],
  ["a zero-width space and a word joiner", "r\u200bm\u2060", "r\\u200bm\\u2060"],
  ["a soft hyphen and a byte order mark", "\u00ad\ufeff", "\\xad\\ufeff"],
  ["a tag character", "\u{e0041}", "\\u{e0041}"],
  ["a no-break space and a braille blank", "a\u00a0b\u2800", "a\\xa0b\\u2800"],
  ["a Hangul filler", "\u3164", "\\u3164"],
  ["a line separator", "\u2028", "\\u2028"],
  ["a combining mark", "a\u0336", "a\\u0336"],
  ["half of a surrogate pair", "\ud800", "\\ud800"],
  ["a Thai letter with the vowel that joins it", "x\u0e01\u0e33", "x\\u0e01\\u0e33"],
  ["a Lao vowel that joins what is before it", "a\u0eb3", "a\\u0eb3"],
  ["a letter that joins what comes after it", "\u0d4ex", "\\u0d4ex"],
  ["a skin tone", "\u{1f44d}\u{1f3fd}", "\\u{1f44d}\\u{1f3fd}"],
  ["a flag", "\u{1f1e9}\u{1f1ea}", "\\u{1f1e9}\\u{1f1ea}"],
  ["jamo of one syllable", "\u1112\u1161", "\\u1112\\u1161"],
])("%s is drawn as its code", (_, text, drawn) => {
  expect(visible(text)).toBe(drawn);
});

test("text that is plainly visible stays as it is", () => {
  for (const text of ["git push", "Grüße, 你好", "a/b-c_d.e~f", "🦞"]) expect(visible(text)).toBe(text);
});

test("no character that is drawn joins another one", () => {
  const clusters = new Intl.Segmenter("en", { granularity: "grapheme" });
  for (let point = 0x20; point <= 0x10ffff; point++) {
    if (point >= 0x3400 && point <= 0x9fff) continue;
    const text = visible(`a${String.fromCodePoint(point)}${String.fromCodePoint(point)}b`);
    if (/^[ -~]*$/.test(text)) continue;
    expect([...clusters.segment(text)].length, point.toString(16)).toBe([...text].length);
  }
});

test("a host name shows look-alike letters as codes", () => {
  expect(visibleHost("example.com")).toBe("example.com");
  // The second letter is Cyrillic.
  expect(visibleHost("p\u0430ypal.com")).toBe("p\\u0430ypal.com");
});

test("different argument lists are never drawn alike", () => {
  const lists = [
    ["a b"],
    ["a", "b"],
    ['"a', 'b"'],
    ["a\\", "b"],
    ["a", "", "b"],
    ["a\n", "b"],
    ["a\\n", "b"],
  ];
  expect(new Set(lists.map(visibleArgv)).size).toBe(lists.length);
});

test("plain words stand without quotes, others with", () => {
  expect(visibleWord("--force-with-lease=main")).toBe("--force-with-lease=main");
  expect(visibleWord("")).toBe('""');
  expect(visibleWord("rm -rf /; echo")).toBe('"rm -rf /; echo"');
});
