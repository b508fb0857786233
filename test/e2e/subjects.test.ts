// The gateway and the tools share a sandbox and a uid, and yet a tool cannot do what the gateway can.

import { chownSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Fixture, root } from "./fixture.js";

const fixture = new Fixture();
const secret = join(fixture.folder, "secret");
beforeAll(async () => {
  writeFileSync(secret, "words of the secret", { mode: 0o600 });
  mkdirSync(join(fixture.workspace, "tool"));
  chownSync(join(fixture.workspace, "tool"), 1000, 1000);
  await fixture.start();
}, 120_000);
afterAll(() => fixture.stop(), 60_000);

/** Runs a script as the gateway; in it, `tool 'SCRIPT'` runs a script as a tool. */
async function run(script: string) {
  const variables = ["--var", `workspace=${fixture.workspace}`, "--var", `secret=${secret}`];
  const policy = join(root, "test/e2e/subjects.policy.yaml");
  const whole = `tool() { /.clawsec/bash -c "$1"; }; ${script}`;
  const name = fixture.name();
  const result = await fixture.clawsec.cli(
    "run",
    "--name",
    name,
    "--policy",
    policy,
    ...variables,
    "--",
    "/usr/bin/bash",
    "-c",
    whole,
  );
  return { ...result, name };
}

test("the gateway reads its secret, and a tool does not", async () => {
  const path = "/run/secrets/clawsec/key";
  const result = await run(`cat ${path}; echo; tool 'cat ${path} || echo refused'`);
  expect(result.stdout).toBe("words of the secret\nrefused\n");
});

test("a tool does not reach the gateway's secrets, memory or files through /proc, where the gateway does", async () => {
  const look = [
    "for p in /proc/[0-9]*; do",
    '  [ "$p" = "/proc/$$" ] && continue',
    "  cat $p/environ $p/root/run/secrets/clawsec/key $p/fd/8 2>/dev/null | grep -q words && echo LEAK",
    "  (echo x > $p/mem) 2>/dev/null && echo WROTE",
    "done",
    "echo looked",
  ].join("\n");
  const script = [
    "exec 8< /run/secrets/clawsec/key",
    "cat /proc/$$/fd/8; echo",
    // Closed for the tool: what a gateway hands over on purpose is its own affair.
    `tool '${look}' 8<&-`,
  ].join("\n");
  expect((await run(script)).stdout).toBe("words of the secret\nlooked\n");
});

test("a tool writes its own folder and nothing else of the workspace", async () => {
  const result = await run(
    "echo g > mine && cat mine; tool 'echo t > tool/its && cat tool/its; echo t > mine || echo refused; cat mine || echo unread'",
  );
  expect(result.stdout).toBe("g\nt\nrefused\nunread\n");
});

test("a tool does not signal the gateway, which signals it", async () => {
  const result = await run(
    'gateway=$$; tool "kill -TERM $gateway || echo refused"; sleep 5 & kill -TERM $! && wait $!; echo gateway ended a child with $?',
  );
  expect(result.stdout).toBe("refused\ngateway ended a child with 143\n");
});

test("a tool does not connect to a port of the gateway on loopback, which the gateway does", async () => {
  const script = [
    "/usr/bin/python3 -m http.server 8123 --bind 127.0.0.1 --directory /usr/share/doc/base-files >/dev/null 2>&1 &",
    "for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -o /dev/null http://127.0.0.1:8123/ && break; sleep 0.3; done",
    "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8123/",
    "tool 'curl -s -m 5 -o /dev/null http://127.0.0.1:8123/ || echo refused'",
    "tool 'curl -s -m 5 -o /dev/null http://[::ffff:127.0.0.1]:8123/ || echo refused'",
    "kill %1",
  ].join("\n");
  const result = await run(script);
  expect(result.stdout).toBe("200\nrefused\nrefused\n");
});

test("a rule for tools holds for tools and what they start, and not for the gateway", async () => {
  const result = await run(
    "nproc >/dev/null && echo gateway ran; tool 'nproc >/dev/null || echo refused; bash -c \"nproc || echo refused too\"'",
  );
  expect(result.stdout).toBe("gateway ran\nrefused\nrefused too\n");
  const [record] = await fixture.records(result.name, "exec/gateway-only");
  expect(record?.subject).toBe("tool");
});

test("what loads code into programs, and the caller’s temporary folder, is taken from a tool's environment", async () => {
  const result = await run(
    "export LD_PRELOAD=/x.so NODE_OPTIONS=--require=/x BASH_ENV=/x TMPDIR=/x KEEP=me; tool 'env' 2>/dev/null | grep -E '^(LD_PRELOAD|NODE_OPTIONS|BASH_ENV|TMPDIR|KEEP)='",
  );
  expect(result.stdout).toBe("KEEP=me\n");
});
