// What a run is made of, without a sandbox: the generators, and the comparison.

import { describe, expect, test } from "vitest";
import { evaluate } from "../../policy/index.js";
import { compilePath } from "../../policy/match/path.js";
import { ExecAction, ExecCode, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import { type DriverCall, driverLine, readAnswer } from "./attempt.js";
import { meaning } from "./document.js";
import { withoutVariable } from "./environment.js";
import { expect as expected } from "./expect.js";
import { ruleCovers } from "./expect-file.js";
import { difference, type Expected, type Observed } from "./expected.js";
import { FEATURES, notYet, usable } from "./features.js";
import { effectOf, hashOfArguments } from "./observe.js";
import { Random } from "./random.js";
import { makeRound } from "./round.js";
import type { World } from "./world.js";

const addresses = { "allowed.test": "10.91.1.3", "other.test": "10.91.1.4", "model.test": "10.91.1.2" };
const world: World = {
  folder: "/var/tmp/run",
  dynamicLoader: "/usr/lib/ld.so",
  hosts: { range: "10.91.1.0/24", addresses },
};
const tools = { world, features: usable() };
const rounds = Array.from({ length: 60 }, (_, i) => makeRound(new Random(i), tools, `r${i}`, 80, 2));
const attempts = rounds.flatMap(({ epochs }) => epochs.flatMap((epoch) => epoch.attempts));

const rules = rounds.flatMap(({ epochs }) => epochs.flatMap(({ documents }) => documents.main.exec ?? []));

/** Whether some rule has both: keys, or a mode or an action. */
function combined(...words: readonly string[]): boolean {
  return rules.some((rule) => {
    const said = new Set([...Object.keys(rule), rule.action, String(rule.mode)]);
    return words.every((word) => said.has(word));
  });
}

describe("a round", () => {
  test("is the same for the same seed, and another for another", () => {
    const made = (seed: number) => JSON.stringify(makeRound(new Random(seed), tools, "r", 80, 2));
    expect(made(7)).toBe(made(7));
    expect(made(7)).not.toBe(made(8));
  });

  test("has policies that mean something, all of the language that it knows in them", () => {
    const texts = rounds.flatMap(({ epochs }) =>
      epochs.map(({ documents }) => {
        meaning(documents);
        return JSON.stringify(documents);
      }),
    );
    const all = texts.join("\n");
    expect([...tools.features]).toEqual(FEATURES.filter((feature) => notYet[feature] === undefined));
    const words = ["locked", "flags", "without", "regex", "observe", "protocol", "method", "parent"];
    for (const word of [...words, "script", "code", "environment"]) expect(all).toContain(`"${word}"`);
    for (const word of ["script", "code", "environment"])
      for (const other of ["executable", "argv", "locked", "observe", "hold"])
        expect([word, other, combined(word, other)]).toEqual([word, other, true]);
    expect(rounds.some(({ epochs }) => epochs.some(({ documents }) => documents.base !== undefined))).toBe(
      true,
    );
  });

  test("permits, denies and holds actions of each kind", () => {
    const seen = new Set<string>();
    for (const { epochs } of rounds) {
      for (const { documents, attempts } of epochs) {
        const policy = meaning(documents);
        for (const attempt of attempts) {
          const { outcome, held } = expected(policy, attempt);
          seen.add(`${attempt.meant.kind} ${outcome}${held ? " held" : ""}`);
        }
      }
    }
    for (const kind of ["exec", "file", "connection"])
      for (const what of ["happens", "happens held", "refused", "refused held"])
        expect([...seen]).toContain(`${kind} ${what}`);
    expect([...seen]).toContain("loopback happens");
    expect([...seen]).toContain("loopback refused");
    expect([...seen]).not.toContain("datagram happens");
  });

  test("tells its attempts apart by names that fit into a thread's", () => {
    const names = attempts.map(({ id }) => `a${id}`);
    expect(new Set(names).size).toBe(names.length);
    expect(Math.max(...names.map((name) => name.length))).toBeLessThan(16);
  });
});

describe("the execs of interpreters", () => {
  const execs = attempts.flatMap(({ meant, call }) => (meant.kind === "exec" ? [{ ...meant, call }] : []));
  type Exec = (typeof execs)[number];
  const { FILE, INLINE, MODULE, STREAM } = ExecCode;
  const names = (call: DriverCall) => (call.argv ?? []).map((word) => Buffer.from(word).toString());

  test.each<[string, (exec: Exec) => boolean]>([
    ["a script", ({ facts }) => facts.code === FILE && facts.script !== ""],
    ["code in an argument", ({ facts }) => facts.code === INLINE],
    ["a module", ({ facts }) => facts.code === MODULE],
    ["standard input", ({ facts }) => facts.code === STREAM],
    ["more than is known", ({ facts }) => facts.scriptUnknown !== ""],
    ["a script that is nowhere", ({ facts }) => facts.code === FILE && facts.scriptUnknown !== ""],
    ["several scripts", ({ facts }) => facts.nestedScripts.length > 0 && facts.code === FILE],
    ["a script with a first line", ({ facts, argv }) => facts.code === FILE && argv === undefined],
    ["a script by the dynamic loader", ({ facts }) => facts.loader !== "" && facts.script !== ""],
    ["a script in memory", ({ facts }) => facts.script.startsWith("/memfd:") && facts.code === FILE],
    ["a script without a name", ({ facts }) => facts.kind === ExecutableKind.DELETED && facts.code === FILE],
    ["a script that the sandbox can write", ({ facts }) => facts.script.startsWith("/work/s")],
    ["a script that it cannot", ({ facts }) => facts.script.startsWith("/opt/t/")],
    ["a script by a link", ({ call }) => names(call).some((name) => /\/to-[ab]$/.test(name))],
    ["a relative script", ({ call }) => names(call).some((name) => /^\.\.?\/.*\.sh$/.test(name))],
    ["a script through /proc", ({ call }) => names(call).some((name) => name.startsWith("/proc/self/root/"))],
    ["a descriptor", ({ call }) => names(call).includes("/dev/fd/40")],
    ["a script on standard input", ({ call }) => call.as === "stdin"],
    ["a pipe", ({ call }) => call.as === "pipe"],
    ["a script that is changed before it is read", ({ swapped }) => swapped !== undefined],
    ["a name of the loader's", ({ facts }) => facts.environmentNames.includes("LD_PRELOAD")],
    ["a name of an interpreter's", ({ facts }) => facts.environmentNames.includes("NODE_OPTIONS")],
    ["a harmless name", ({ facts }) => facts.environmentNames.includes("CI")],
    ["the environment of the driver", ({ call }) => call.inherit === true],
    ["no environment", ({ facts }) => facts.environmentNames.length === 0],
  ])("have %s", (_, has) => {
    // Of 4800 pairs, so that 10,000 have some twenty.
    expect(execs.filter(has).length).toBeGreaterThanOrEqual(10);
  });

  test("are read where it is known what they read", () => {
    const read = execs.filter(({ facts, reads }) => facts.code === FILE && reads.length > 0);
    expect(read.length).toBeGreaterThan(200);
    for (const { call, reads } of read)
      expect(call.env?.find((entry) => entry.startsWith("READS="))?.split(",")).toHaveLength(reads.length);
  });
});

describe("a variable of an exec", () => {
  test("can go, with its name, where nothing is read by it", () => {
    const [attempt] = attempts.filter(({ meant, call }) => {
      const isPlain = meant.kind === "exec" && meant.facts.loader === "" && call.inherit !== true;
      return (
        isPlain &&
        call.env?.[0]?.startsWith("READS=") &&
        call.env.length === 2 &&
        !call.env[1]?.startsWith("SWAPS=")
      );
    });
    const less = attempt && withoutVariable(attempt, 1);
    expect(less?.call.env).toEqual(attempt?.call.env?.slice(0, 1));
    expect(less?.meant).toMatchObject({ facts: { environmentNames: ["READS"] } });
    expect(attempt && withoutVariable(attempt, 0)).toBeUndefined();
    expect(attempt && withoutVariable(attempt, 2)).toBeUndefined();
  });
});

describe("the driver's lines", () => {
  test("carry bytes that are no text, and no argument at all", () => {
    const [attempt] = attempts.filter(({ meant }) => meant.kind === "exec");
    if (attempt === undefined) throw new Error("There is no exec.");
    const line = (argv: Uint8Array[]) => driverLine({ ...attempt, call: { operation: "exec", argv } });
    expect(line([new Uint8Array([255, 32]), new Uint8Array()])).toMatch(/ exec argv=ff20,$/);
    expect(line([])).toMatch(/ exec$/);
    const call = { operation: "exec", env: ["A=1", "B="], inherit: true };
    expect(driverLine({ ...attempt, call })).toMatch(/ exec env=413d31,423d inherit=31$/);
    expect(readAnswer("a1 errno 13 - 6869 1 2")).toMatchObject({ id: "a1", number: 13, err: "hi" });
    expect(() => readAnswer("nonsense")).toThrow("nonsense");
  });
});

describe("the comparison", () => {
  const want: Expected = { outcome: "refused", rule: "exec/x", held: false, why: "" };
  const answer = readAnswer("a1 errno 13 - - 1 2");
  const ran: Partial<Expected> = { outcome: "happens" };
  const facts = (script: string, scriptUnknown = ""): ExecAction =>
    ExecAction.fromPartial({ script, scriptUnknown });
  const saw: Observed = { answer, happened: false, wrong: "", held: false, rules: ["exec/x"] };

  test.each<[string, Partial<Expected>, Partial<Observed>, string]>([
    ["the same", {}, {}, ""],
    ["a denial that is none", {}, { happened: true }, "must not happen"],
    ["a permission that is none", { outcome: "happens" }, {}, "must happen"],
    ["either", { outcome: "either" }, { happened: true }, ""],
    ["another rule", {}, { rules: ["exec/y"] }, "must be exec/x"],
    ["no rule", {}, { rules: [] }, "says nothing"],
    ["a hold that nobody was asked about", { held: true }, {}, "must be held"],
    ["a question too many", {}, { held: true }, "must not be"],
    ["another image", { outcome: "happens" }, { happened: true, wrong: "another image" }, "another image"],
    ["a driver that could not", {}, { answer: readAnswer("a1 prep 2 - - 1 2") }, "could not be tried"],
    ["another script", { facts: facts("/a") }, { facts: facts("/b") }, "script must be"],
    ["a script that is not known", { facts: facts("") }, { facts: facts("", "why") }, "loader says: why"],
    ["a script that is known", { facts: facts("", "why") }, { facts: facts("") }, "says that it knows"],
    ["another content", { ...ran, reads: ["x"] }, { happened: true, reads: ["00000000"] }, "must read"],
    ["the content", { ...ran, reads: [""] }, { happened: true, reads: ["811c9dc5"] }, ""],
    ["what cannot be read", { ...ran, reads: [undefined] }, { happened: true, reads: ["-"] }, ""],
  ])("sees %s", (_, changed, seen, words) => {
    const why = difference({ ...want, ...changed }, { ...saw, ...seen });
    if (words === "") expect(why).toBe("");
    else expect(why).toContain(words);
  });

  test("knows the image and the arguments that were meant", () => {
    const place = { work: "", data: "", readOnly: "" };
    const [attempt] = attempts.filter(({ meant }) => meant.kind === "exec" && meant.argv !== undefined);
    if (attempt?.meant.kind !== "exec" || attempt.meant.argv === undefined) throw new Error("There is none.");
    const { image, argv } = attempt.meant;
    const ran = (text: string) => {
      const out = Buffer.from(text).toString("hex");
      return effectOf(place, attempt, readAnswer(`a1 exit 0 ${out} - 1 2`));
    };
    const good = `RAN ${argv.length} ${hashOfArguments(argv)} ${image}\n`;
    expect(ran(good)).toEqual({ happened: true, wrong: "", reads: [] });
    expect(ran(`${good}READ 0123abcd\nREAD -\n`).reads).toEqual(["0123abcd", "-"]);
    expect(ran(`${good}RAN\n`).wrong).toContain("something else ran");
    expect(ran(good.replace(image, "/usr/bin/other")).wrong).toContain("the image must be");
    expect(ran(`RAN 1 00000000 ${image}\n`).wrong).toContain("other arguments");
    expect(ran("something\n").wrong).toContain("something else ran");
  });

  test("reads the patterns for files as the policy language does, by a reading of its own", () => {
    const patterns = [
      "/data/*.env",
      "/data/a/key*",
      "/data/**/key-*.txt",
      "/data/{a,b}/*.env",
      "/ro/x/*",
      "/data/**",
      "/data/a",
    ];
    const paths = attempts.flatMap(({ meant }) => (meant.kind === "file" ? [meant.path] : []));
    for (const pattern of patterns) {
      const matches = compilePath(pattern, { subtree: true });
      for (const path of paths)
        expect([pattern, path, ruleCovers(pattern, path)]).toEqual([pattern, path, matches(path)]);
    }
  });

  test("is with the evaluator that it is given", () => {
    const documents = rounds[0]?.epochs[0]?.documents;
    const attempt = attempts.find(({ meant }) => meant.kind === "exec" && !meant.facts.argvTruncated);
    if (attempt === undefined || documents === undefined) throw new Error("There is nothing to judge.");
    const wrong = expected(meaning(documents), attempt, (policy, action) => ({
      ...evaluate(policy, action),
      rule: "exec/wrong",
    }));
    expect(wrong.rule).toBe("exec/wrong");
  });
});
