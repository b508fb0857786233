// Each way of matching that the language has, performed on the real kernel: the denial and, beside it, its allow.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { Fixture, root } from "./fixture.js";

const fixture = new Fixture();
beforeAll(() => fixture.start({ hosts: true }), 120_000);
afterAll(() => fixture.stop(), 60_000);

const hash = createHash("sha256").update(readFileSync("/usr/bin/tac")).digest("hex");
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/** Runs a shell script under the policy of this file. */
async function run(script: string, more: Record<string, string> = {}) {
  const name = fixture.name();
  const variables = { ...fixture.hostVariables(), workspace: fixture.workspace, tacHash: hash, ...more };
  const values = Object.entries(variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  const policy = join(root, "test/e2e/language.policy.yaml");
  const command = ["run", "--name", name, "--policy", policy, ...values, "--", "/usr/bin/sh", "-c", script];
  return { ...(await fixture.clawsec.cli(...command)), name };
}

describe("a policy that extends another", () => {
  test("cannot allow what a locked rule of its base denies, and can allow what is not locked", async () => {
    const result = await run("shred --version; echo shred $?; nohup true 2>/dev/null; echo nohup $?");
    expect(result.stdout).toBe("shred 126\nnohup 0\n");
    expect(result.stderr).toContain("exec/no-shred");
    expect(result.stderr).toContain("the team does not shred");
  });
});

describe("arguments", () => {
  test("flags are seen in clusters, apart and abbreviated, and words after -- are no flags", async () => {
    const script = `for n in 1 2 3 4 5; do mkdir d$n; done; touch -- -r f
      rm -rf d1; rm -f -R d2; rm --recursive d3; rm --rec d4; rm -fr d5; ls -d d*
      rm -- -r f; ls -- -r f 2>/dev/null; echo over`;
    const result = await run(script);
    expect(result.stdout).toBe("d1\nd2\nd3\nd4\nd5\nover\n");
  });

  test("an expression is searched in each argument", async () => {
    const result = await run("/usr/bin/printf '%s\\n' tok_12; echo $?; /usr/bin/printf '%s\\n' tok_x");
    expect(result.stdout).toBe("126\ntok_x\n");
  });

  test("a prefix is what comes first", async () => {
    const result = await run("git push; echo $?; git --version >/dev/null; echo $?");
    expect(result.stdout).toBe("126\n0\n");
  });
});

describe("where an exec comes from", () => {
  test("a name in the environment", async () => {
    const result = await run("LD_PRELOAD=/nothing.so id -u; echo $?; LD_OTHER=x id -u");
    expect(result.stdout).toBe("126\n1000\n");
  });

  test("the program that calls", async () => {
    const result = await run("env id -u; echo $?; id -u");
    expect(result.stdout).toMatch(/^12[67]\n1000\n$/);
  });

  test("a program that led to it, also when every process between has died", async () => {
    const script =
      "setsid -f sh -c '(sleep 0.2; tty >late 2>&1; echo ended $? >>late) &'; sleep 1; tty; cat late";
    const result = await run(script);
    expect(result.stdout).toMatch(/^not a tty\n/);
    expect(result.stdout).toMatch(/ended 126\n$/);
  });
});

describe("what a file is", () => {
  test("a copy under another name has the hash of the file, and another file has not", async () => {
    const script =
      "cp /usr/bin/tac mine; cp /usr/bin/rev other; echo ab | ./mine; echo $?; echo ab | ./other";
    const result = await run(script);
    expect(result.stdout).toBe("126\nba\n");
  });

  test("a file that was changed after it was denied is another file", async () => {
    const script =
      "cp /usr/bin/tac mine; ./mine </dev/null; echo $?; cat /usr/bin/rev >mine; echo ab | ./mine";
    const result = await run(script);
    expect(result.stdout).toBe("126\nba\n");
  });

  test("a script of the workspace, by itself and by what it is told", async () => {
    const script =
      "printf '#!/usr/bin/sh\\necho ran\\n' >tool; chmod +x tool; ./tool danger; echo $?; ./tool safe";
    const result = await run(script);
    expect(result.stdout).toBe("126\nran\n");
  });
});

test("a script is seen also where it is the interpreter of another", async () => {
  const files = {
    "middle.sh": "#!/usr/bin/sh\necho ran\n",
    "good.sh": "#!/usr/bin/sh\necho ran\n",
    outer: "#!/opt/tools/middle.sh\n",
    other: "#!/opt/tools/good.sh\n",
  };
  const tools = join(fixture.folder, "tools");
  mkdirSync(tools);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(tools, name), text, { mode: 0o755 });
  const script = "cd /opt/tools; ./middle.sh; echo $?; ./outer; echo $?; ./other; echo $?";
  expect((await run(script, { tools })).stdout).toBe("126\n126\nran\n0\n");
});

test("a script that can be changed and whose interpreter is a script is refused, where a plain one runs", async () => {
  const script = `printf '#!/usr/bin/sh\necho ran\n' >good.sh; printf '#!/workspace/good.sh\n' >other; chmod +x good.sh other
    ./other; echo $?; ./good.sh; echo $?`;
  const result = await run(script);
  expect(result.stdout).toBe("126\nran\n0\n");
  expect(result.stderr).toContain("scripts on read-only mounts can be nested");
});

test("a program that is started without any argument has an empty one", async () => {
  const call = (path: string) =>
    `python3 -c 'import ctypes; ctypes.CDLL(None).execve(b"${path}", (ctypes.c_char_p * 1)(None), None)' </dev/null; echo $?`;
  const result = await run(`${call("/usr/bin/nl")}; ${call("/usr/bin/true")}`);
  expect(result.stdout.split("\n").at(-2)).toBe("0");
  expect(result.stderr).toContain("exec/no-nl");
});

describe("how often and when", () => {
  test("a rate is used up", async () => {
    const result = await run("factor 4; factor 6; factor 8; echo $?");
    expect(result.stdout).toBe("4: 2 2\n6: 2 3\n126\n");
  });

  test("a day that is not today does not matter, and today does", async () => {
    const day = (offset: number) => DAYS[(new Date().getUTCDay() + offset) % 7] ?? "";
    expect((await run("seq 1; echo $?", { today: day(0) })).stdout).toBe("126\n");
    // Two days off, so that midnight may pass meanwhile.
    expect((await run("seq 1; echo $?", { today: day(3) })).stdout).toBe("1\n0\n");
  });
});

describe("observe mode", () => {
  test("lets it happen, and the audit says what would have been", async () => {
    const result = await run("uname -s");
    expect(result.stdout).toBe("Linux\n");
    const records = await fixture.records(result.name, "exec/rest");
    const record = records.find(({ summary }) => summary.includes("/usr/bin/uname"));
    expect(record).toMatchObject({ verdict: Verdict.ALLOW, severity: "high", tags: ["reconnaissance"] });
    expect(record?.summary).toContain("would be: deny by exec/would-deny");
    const found = await fixture.clawsec.must(
      "audit",
      "search",
      "--sandbox",
      result.name,
      "--severity",
      "high",
      "--json",
    );
    expect(JSON.parse(found).records.length).toBeGreaterThan(0);
    const none = await fixture.clawsec.must(
      "audit",
      "search",
      "--sandbox",
      result.name,
      "--tag",
      "other",
      "--json",
    );
    expect(JSON.parse(none).records).toEqual([]);
  });
});

describe("requests of plain HTTP", () => {
  const status = (path: string, more = "") =>
    `curl -sS -m 20 -o /dev/null -w '%{http_code}\\n' ${more} http://allowed.test${path}`;

  test("are allowed by method and path, one by one on a connection that is kept", async () => {
    const script = [
      status("/public/a"),
      status("/private"),
      status("/public/a", "-X POST -d x"),
      status("/public/%2e%2e/private", "--path-as-is"),
      // Both on one connection: the second is judged by itself.
      "curl -sS -m 20 -o /dev/null -o /dev/null -w '%{http_code}\\n' http://allowed.test/public/b http://allowed.test/private",
    ].join("; ");
    const result = await run(script);
    expect(result.stdout.split("\n").slice(0, 3)).toEqual(["200", "403", "403"]);
    expect(result.stdout.split("\n")[3]).not.toBe("200");
    expect(result.stdout.split("\n").slice(4)).toEqual(["200", "403", ""]);
    const [denied] = await fixture.records(result.name, "network/private");
    expect(denied?.verdict).toBe(Verdict.DENY);
  });
});

test("the policy of this file is said to be right, and its examples hold", () => {
  const check = execFileSync(join(root, "bin/clawsec"), [
    "policy",
    "check",
    join(root, "test/e2e/language.policy.yaml"),
    "--var",
    `workspace=${fixture.workspace}`,
  ]);
  expect(String(check)).toContain("no errors");
});
