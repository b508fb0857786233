// Rules by what an interpreter runs, on the real kernel: what runs prints "ran", and what is looked for is that word.

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Fixture, root } from "./fixture.js";

const fixture = new Fixture();
beforeAll(async () => {
  await fixture.start();
  mkdirSync(join(fixture.workspace, "bad/pkg"), { recursive: true });
  const files = {
    "good.sh": "echo ran",
    "good.py": "print('ran')",
    "good.pl": 'print "ran\\n";',
    "mute.py": "pass",
    "mute.pl": "1;",
    "mute.sh": ":",
    "bad/it.sh": "echo ran",
    "bad/it.py": "print('ran')",
    "bad/it.pl": 'print "ran\\n";',
    "bad/pkg/__main__.py": "print('ran')",
  };
  mkdirSync(join(fixture.workspace, dirname(dirname(AS_PATH))));
  symlinkSync("mute.py", join(fixture.workspace, "-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(fixture.workspace, name), `${text}\n`);
}, 120_000);
afterAll(() => fixture.stop(), 60_000);

const RULES = join(root, "test/e2e/code.policy.yaml");

/** The policy without its denials: what runs under it shows that the line itself works. */
function open(): string {
  const path = join(fixture.folder, "open.yaml");
  const text = readFileSync(RULES, "utf8");
  writeFileSync(path, text.replaceAll(/^.*action: deny }\n/gm, ""));
  return path;
}

/** Runs lines of shell, one after the other, in one sandbox. Returns what each printed. */
async function printed(lines: readonly string[], policy: string): Promise<string[]> {
  const script = lines.map((line) => `( ${line} ) 2> /dev/null < /dev/null; echo; echo "==="`).join("\n");
  const command = [
    "--policy",
    policy,
    "--var",
    `workspace=${fixture.workspace}`,
    "--",
    "/usr/bin/sh",
    "-c",
    script,
  ];
  const { stdout } = await fixture.clawsec.cli("run", "--name", fixture.name(), ...command);
  const parts = stdout.split("===\n").map((part) => part.trim());
  expect(parts.pop()).toBe("");
  expect(parts).toHaveLength(lines.length);
  return parts;
}

/** Code that is also the path of a permitted script: what takes it for a file must not be taken in. */
const AS_PATH = "print(chr(114).chr(97).chr(110));#/../mute.pl";

const PRINT = "print(chr(114)+chr(97)+chr(110))";
const PERL = "print(chr(114).chr(97).chr(110))";

/** Which of these commands ran code. */
async function thatRan(lines: readonly string[], policy = RULES): Promise<string[]> {
  const outputs = await printed(lines, policy);
  return lines.filter((_, i) => /(^|\s)ran$/m.test(outputs[i] ?? ""));
}

describe("scripts", () => {
  const good = [
    "bash good.sh",
    "bash --norc -- ./good.sh",
    "bash -eu good.sh",
    "python3 good.py",
    "python3 -I -W ignore good.py",
    "perl -w good.pl",
    "perl -Mstrict good.pl",
    "perl -- good.pl",
  ];
  test("that are permitted run, with options before them", async () => {
    expect(await thatRan(good)).toEqual(good);
  });

  test("that are denied do not, by whatever name and behind whatever options", async () => {
    const bad = good.map((line) => line.replace(/(\.\/)?good\./, "bad/it."));
    const lines = [
      ...bad,
      "bash /proc/self/cwd/bad/it.sh",
      "bash < bad/it.sh",
      "bash /dev/stdin < bad/it.sh",
      "bash /dev/fd/5 5< bad/it.sh",
      "PATH=$PWD/bad:$PATH bash it.sh",
      "bash --rcfile bad/it.sh -i < /dev/null",
      "bash -init-file bad/it.sh -i < /dev/null",
      "python3 bad/pkg",
      "cd bad/pkg && python3 .",
      "python3 -i bad/it.py < /dev/null",
      "perl -S bad/it.pl",
      "env -S 'bash bad/it.sh'",
    ];
    expect(await thatRan(lines)).toEqual([]);
    expect(await thatRan(lines, open())).toEqual(lines);
  });
});

test("code that is no file does not run, however it comes", async () => {
  const lines = [
    "bash -c 'echo ran'",
    "bash +O extglob -c 'echo ran'",
    "bash -eo posix -c 'echo ran'",
    "echo 'echo ran' | bash",
    "echo 'echo ran' | bash -s mute.sh",
    "echo 'echo ran' | bash /dev/stdin",
    "echo 'echo ran' | sh",
    `python3 -c '${PRINT}'`,
    `python3 -X dev -Ic '${PRINT}'`,
    `echo '${PRINT}' | python3`,
    `echo '${PRINT}' | python3 -`,
    // The script is permitted, and what the prompt after it reads is not.
    `echo '${PRINT}' | python3 -i mute.py`,
    `echo '${PRINT}' | python3 -vi mute.py`,
    "cd bad && python3 -m it",
    `perl -e '${PERL}'`,
    `echo x | perl -ne '${PERL}'`,
    `echo '${PERL}' | perl`,
    `echo '${PERL}' | perl -d mute.pl`,
    `perl '-Mvars;${PERL}' mute.pl`,
    ...["-e", "-0e", "-0777e", "-i -e", "-D -e", "-w -e"].map((option) => `perl '${option}' '${AS_PATH}'`),
    `echo x | perl '-F: -e' '${AS_PATH}'`,
    `perl -Ve '${AS_PATH}'`,
    `echo '${PERL}' | perl -- -`,
    `echo '${PRINT}' | python3 -- -`,
    `echo x | perl -n '-F/x/);${PERL};split(/x/' mute.pl`,
  ];
  expect(await thatRan(lines)).toEqual([]);
  expect(await thatRan(lines, open())).toEqual(lines);
});
