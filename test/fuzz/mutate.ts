// Bad policies: good ones with something wrong in them, what only YAML can do, and plain noise.

import type { Random } from "../conformance/random.js";
import type { Seeds } from "./seeds.js";

/** Longest input; the parser's own limit is 1 MiB. */
const LONGEST = 1_200_000;

const VALUES = [
  "",
  "~",
  "null",
  "true",
  "no",
  "0",
  "-1",
  "1e999",
  ".inf",
  ".nan",
  "0x7fffffffffffffff",
  "0o17",
  "99999999999999999999",
  "2026-11-22",
  "[]",
  "{}",
  "[[]]",
  "{a: }",
  '"\\u0000"',
  '"\\ud800"',
  "'",
  '"',
  "&a x",
  "*a",
  "!!binary aGk=",
  "!!js/function x",
  "!x y",
  "|\n  a\n  b",
  ">-\n  a",
  "|9\n x",
  "? a\n: b",
  "<<: *a",
  "__proto__",
  "constructor",
  "/",
  "//",
  "/..",
  "/a/../b",
  "/**",
  "**",
  "{a,b}{c,d}{e,f}",
  "/{a,{b,{c,d}}}",
  "/a\\",
  "[a-z]",
  "${x}",
  "${top}",
  "$${",
  "${",
  "${more}${more}",
  "(a+)+$",
  "(((((((((a{9}){9}){9}){9}){9})",
  "[^",
  "\\pL*",
  "-rf",
  "--a|--b|-c",
  "0.0.0.0/0",
  "::/0",
  "::ffff:1.2.3.4",
  "1.2.3.4/33",
  "999.1.1.1",
  "*.*",
  "*.com",
  "xn--a",
  "65536",
  "1-0",
  "99999999999999h",
  "-5m",
  "24:00",
  "25:61",
  "mon-sun",
  "Mars/Base",
  "builtin:openclaw",
  "./base.yaml",
  "/etc/passwd",
  "GET http://x.com:1/v1/x",
  "rename /a /b",
  "/usr/bin/git $(x) | y",
] as const;

const NESTS: readonly (readonly [string, string])[] = [
  ["[", "]"],
  ["{a: ", "}"],
  ["- ", ""],
  ["? ", ""],
  ["[{a: ", "}]"],
  ['{"a": [', "]}"],
];

const CHARACTERS = [
  "\0",
  "\t",
  "\r",
  "\r\n",
  "\u0085",
  "\u2028",
  "\ufeff",
  "\ud800",
  "\udfff",
  "\u202e",
  "é",
  "😀",
  "\x07",
  "\x7f",
];

type Mutation = (random: Random, lines: string[], seeds: Seeds) => void;

const at = (random: Random, lines: readonly unknown[]) => random.below(lines.length + 1);

/** Changes to the lines of a file. */
const MUTATIONS: readonly (readonly [number, Mutation])[] = [
  [10, (r, l) => void l.splice(r.below(l.length), 1)],
  [6, (r, l) => void l.splice(r.below(l.length), 1 + r.below(8))],
  [8, (r, l) => void l.splice(at(r, l), 0, l[r.below(l.length)] ?? "")],
  [8, (r, l, s) => void l.splice(at(r, l), 0, r.pick(s.lines))],
  [8, (r, l, s) => change(r, l, () => r.pick(s.lines))],
  [20, (r, l) => change(r, l, (line) => line.replace(/:( |$).*/, `: ${r.pick(VALUES)}`))],
  [20, (r, l) => change(r, l, (line) => inside(r, line, r.pick(VALUES)))],
  [14, (r, l, s) => change(r, l, (line) => line.replace(/[A-Za-z]+(?=:)/, r.pick(s.keys)))],
  [8, (r, l, s) => change(r, l, (line) => line.replace(/\}/, `, ${r.pick(s.keys)}: ${r.pick(VALUES)} }`))],
  [
    6,
    (r, l, s) => void l.splice(at(r, l), 0, `${" ".repeat(r.below(6))}${r.pick(s.keys)}: ${r.pick(VALUES)}`),
  ],
  [8, (r, l) => change(r, l, (line) => (r.chance(50) ? ` ${line}` : line.replace(/^ {1,2}/, "")))],
  [6, (r, l) => change(r, l, (line) => spoil(r, line))],
  [6, (r, l) => change(r, l, (line) => line.slice(r.below(line.length + 1)))],
  [6, (r, l) => change(r, l, (line) => line.slice(0, r.below(line.length + 1)))],
  [
    3,
    (r, l) =>
      change(r, l, (line) => line.replaceAll(/[0-9]+/g, () => String(r.pick([0, -1, 1e21, 65536, 2 ** 31])))),
  ],
  [
    3,
    (r, l) => void l.splice(at(r, l), 0, r.pick(["---", "...", "%YAML 1.1", "%TAG ! x", "# x", "--- !!map"])),
  ],
];

function change(random: Random, lines: string[], to: (line: string) => string): void {
  const index = random.below(lines.length);
  lines[index] = to(lines[index] ?? "");
}

/** Puts a value in the place of one of a line's own words. */
function inside(random: Random, line: string, value: string): string {
  const words = [...line.matchAll(/[^\s,{}[\]:]+/g)];
  if (words.length === 0) return value;
  const word = random.pick(words);
  return line.slice(0, word.index) + value + line.slice(word.index + word[0].length);
}

function spoil(random: Random, line: string): string {
  const place = random.below(line.length + 1);
  return line.slice(0, place) + random.pick(CHARACTERS) + line.slice(place + random.below(2));
}

/** Few that are large: each takes as long as hundreds of others. */
function size(random: Random): number {
  return random.weighted<number>([
    [800, () => 1 + random.below(30)],
    [190, () => random.below(300)],
    [9, () => random.below(5000)],
    [1, () => random.below(100_000)],
  ]);
}

/** What YAML can do to a reader. */
function bomb(random: Random): string {
  const count = size(random);
  const text = random.weighted<string>([
    [
      4,
      () => {
        const [open, close] = random.pick(NESTS);
        return `${open.repeat(count)}x${close.repeat(random.chance(80) ? count : 0)}`;
      },
    ],
    [3, () => Array.from({ length: count }, (_, i) => `${" ".repeat(Math.min(i, 300))}a${i}:`).join("\n")],
    [
      3,
      () => {
        const levels = 2 + random.below(12);
        const lines = ["a0: &a0 [x, x]"];
        for (let i = 1; i < levels; i++)
          lines.push(
            `a${i}: &a${i} [${Array(9)
              .fill(`*a${i - 1}`)
              .join(", ")}]`,
          );
        return lines.join("\n");
      },
    ],
    [2, () => "x: &x { <<: *x, a: *x }"],
    [2, () => `key: ${"v".repeat(count * 10)}`],
    [2, () => `${"k".repeat(count * 10)}: v`],
    [2, () => Array.from({ length: count }, (_, i) => `k${i % 50}: ${i}`).join("\n")],
    [2, () => "---\na: b\n".repeat(count)],
    [
      2,
      () =>
        `exec: [${Array.from({ length: Math.min(count, 2000) }, (_, i) => `{id: r${i}, executable: /x, action: deny}`).join(", ")}]`,
    ],
    [2, () => `exec: [{id: a, executable: "${"/{a,b}".repeat(Math.min(count, 3000))}", action: deny}]`],
    [
      2,
      () =>
        `exec: [{id: a, executable: "${"/**".repeat(Math.min(count, 1500))}", action: deny, match: "/${"a/".repeat(300)}b"}]`,
    ],
    [
      1,
      () =>
        `exec: [{id: a, executable: /x, argv: {regex: "${"(a|b|c)*".repeat(Math.min(count, 130))}"}, action: deny}]`,
    ],
    [
      1,
      () =>
        `variables: {${Array.from({ length: Math.min(count, 60) }, (_, i) => `v${i}: "\${v${Math.max(i - 1, 0)}}\${v${Math.max(i - 1, 0)}}"`).join(", ")}}`,
    ],
    [1, () => `a: |${random.pick(["", "-", "+", "9", "1+"])}\n${"  text\n".repeat(count)}`],
    [1, () => `"${"\\x41".repeat(count)}": '${"''".repeat(count)}'`],
    [1, () => `# ${"c".repeat(count * 10)}\n`.repeat(3)],
  ]);
  return text;
}

function noise(random: Random): string {
  const length = size(random);
  const alphabet = random.pick(["\n :-[]{}&*!|>'\"%@`#,?", "ab: \n", ""]);
  let text = "";
  for (let i = 0; i < length; i++)
    text += alphabet === "" ? String.fromCharCode(random.below(0x10000)) : random.pick([...alphabet]);
  return text;
}

const HEADS = [
  "apiVersion: clawsec/v1\nkind: Policy\nmetadata: {name: x}\nsandbox: {command: [/x], mounts: [{source: /usr}]}",
  "apiVersion: clawsec/v1\nkind: Policy\nmetadata: {name: x}\nextends: [./base.yaml]",
  "apiVersion: clawsec/v1\nkind: PolicyTest\npolicy: ./x.yaml",
] as const;

/** A whole file, or (small, so that there is time for many) a head with a part of a section. */
function begin(random: Random, seeds: Seeds): string[] {
  if (random.chance(2)) return random.pick(seeds.files).split("\n");
  const { head, items } = random.pick(seeds.sections);
  const from = random.below(items.length + 1);
  const part = items.slice(from, from + 1 + random.below(3));
  const first = random.chance(92) ? HEADS[0] : random.pick(HEADS);
  return [first, head, ...part].join("\n").split("\n");
}

/** The input of a number: the same for the same seed. */
export function makeInput(random: Random, seeds: Seeds): string {
  const text = random.weighted<string>([
    [
      940,
      () => {
        const lines = begin(random, seeds);
        const times = random.below(4);
        for (let i = 0; i < times && lines.length > 0; i++)
          random.weighted(
            MUTATIONS.map(([weight, mutate]) => [weight, () => mutate(random, lines, seeds)] as const),
          );
        return lines.join(random.chance(3) ? "\r\n" : "\n");
      },
    ],
    [
      14,
      () => {
        const lines = begin(random, seeds);
        lines.splice(at(random, lines), 0, bomb(random));
        return lines.join("\n");
      },
    ],
    [16, () => bomb(random)],
    [30, () => noise(random)],
  ]);
  const marked = random.chance(1) ? `\ufeff${text}` : text;
  return marked.slice(0, LONGEST);
}
