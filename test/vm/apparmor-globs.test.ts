// What AppArmor's patterns match, and how a character is written so that it means itself.

import { beforeAll, expect, test } from "vitest";
import { apparmorReports, findings } from "./apparmor.ts";
import type { Finding, Operation } from "./operations.ts";
import { type Case, jobOf, operations } from "./profiles.ts";
import { describeInMachine } from "./suite.ts";

// Each pattern stands below a folder of its own, so that one profile can hold them all.
const patterns: [pattern: string, matches: string[], others: string[]][] = [
  ["/*", ["/a", "/.a", "/é"], ["/a/b"]],
  ["/a*", ["/a", "/ab"], ["/b", "/a/b"]],
  ["/*/f", ["/x/f"], ["/x/y/f"]],
  ["/**", ["/a", "/a/b", "/.a", "/.b/.c"], []],
  ["/a**", ["/a", "/ab", "/a/b", "/ab/c"], ["/b"]],
  ["/a**/f", ["/a/f", "/ab/f", "/a/b/f"], ["/af"]],
  // At least one folder between: the form with braces also means none.
  ["/**/.env", ["/a/.env", "/a/b/.env"], ["/.env", "/a/.envx", "/a/x.env"]],
  ["/{,**/}.env", ["/.env", "/a/.env", "/a/b/.env"], ["/a.env", "/a/b.env"]],
  ["/**.env", ["/.env", "/a.env", "/a/b.env", "/a/.env"], ["/a.envx"]],
  // One byte, and not a slash: a character of two bytes needs two.
  ["/?", ["/a"], ["/ab", "/é"]],
  ["/??", ["/é", "/ab"], ["/a"]],
  ["/x?y", ["/xay"], ["/x/y", "/xy"]],
  ["/{a,b/c,}z", ["/az", "/b/cz", "/z"], ["/cz", "/bz"]],
  ["/{a,{b,c}d}", ["/a", "/bd", "/cd"], ["/b", "/ad"]],
  ["/[ab]", ["/a", "/b"], ["/c", "/ab"]],
  ["/[a-c]", ["/b"], ["/d", "/-"]],
  ["/[^a]", ["/b"], ["/a", "/bb"]],
  // Unlike * and ?, a negated class matches the slash, if it is not one of its members.
  ["/x[^a]y", ["/xby", "/x/y"], ["/xay"]],
  ["/x[^a/]y", ["/xby"], ["/xay", "/x/y"]],
  // "!" does not negate; a character beyond ASCII is not one member but its bytes; * and ? are no members.
  ["/[!a]", ["/!", "/a"], ["/b"]],
  ["/[é]", [], ["/é", "/e"]],
  ["/[*]", [], ["/*", "/a"]],
  ["/é", ["/é"], ["/e"]],
  ["//a//b", ["/a/b"], ["/ab"]],
  // Names are compared as text: these name nothing.
  ["/./a", [], ["/a"]],
  ["/b/../a", [], ["/a"]],
];

const octal = (text: string) =>
  [...Buffer.from(text)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");

/** Every byte of ASCII but zero, slash, letters and digits; and what is longer than a byte. */
const specials = [
  ...Array.from({ length: 127 }, (_, code) => String.fromCharCode(code + 1)).filter((c) => !/[/\w]/.test(c)),
  ...["é", "日本", "\u{1f600}", "@{HOME}", "${HOME}", "\\*", "\\\\", "\\052", '" w,\n  "', "#include", "**"],
];

const write = (path: string): Operation => ({ op: "write", path });
const globs: Case = {
  title: "patterns",
  denials: patterns.map(([pattern], index) => `audit deny "/g${index}${pattern}" w,`),
  denied: patterns.flatMap(([, matches], index) => matches.map((path) => write(`/g${index}${path}`))),
  allowed: patterns.flatMap(([, , others], index) => others.map((path) => write(`/g${index}${path}`))),
};
const escapes: Case = {
  title: "escapes",
  // A digit follows: an octal escape has three digits and ends there.
  denials: specials.map((special, index) => `audit deny "/e${index}/x${octal(special)}1" w,`),
  denied: specials.map((special, index) => write(`/e${index}/x${special}1`)),
  allowed: specials.flatMap((_, index) => [write(`/e${index}/xQ1`), write(`/e${index}/x1`)]),
};

describeInMachine("AppArmor's patterns in a real kernel", () => {
  const verdicts = new Map<string, Finding>();
  beforeAll(async () => {
    const jobs = [globs, escapes].map(jobOf);
    const reports = await apparmorReports(jobs, 90_000);
    for (const [index, job] of jobs.entries())
      for (const [at, finding] of findings(job, reports[index]).entries())
        verdicts.set(job.operations[at]?.path ?? "", finding);
    expect(verdicts.size).toBe(operations(globs).length + operations(escapes).length);
  }, 110_000);

  const verdict = (path: string) => verdicts.get(path)?.verdict;

  test.each(patterns.map((pattern, index) => [...pattern, index] as const))(
    "%s matches %j and not %j",
    (_, matches, others, index) => {
      const got = [...matches, ...others].filter((path) => verdict(`/g${index}${path}`) === "denied");
      expect(got).toEqual(matches);
      expect(others.map((path) => verdict(`/g${index}${path}`))).toEqual(others.map(() => "allowed"));
    },
  );

  test("in quotes, each byte as backslash and three octal digits means itself and nothing else", () => {
    const wrong = specials.filter((special, index) => {
      const [itself, other, none] = [`x${special}1`, "xQ1", "x1"].map((name) =>
        verdict(`/e${index}/${name}`),
      );
      return itself !== "denied" || other !== "allowed" || none !== "allowed";
    });
    expect(wrong).toEqual([]);
  });
});
