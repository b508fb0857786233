// Every verdict for every kind of action, on the real kernel, through the command line that a user has.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { Fixture } from "./fixture.js";

const fixture = new Fixture();
beforeAll(() => fixture.start({ hosts: true }), 120_000);
afterAll(() => fixture.stop(), 60_000);

describe("exec", () => {
  test("an allowed command runs as the sandbox's user, and its exit code is passed on", async () => {
    const result = await fixture.run("/usr/bin/id -u; exit 7");
    expect(result).toMatchObject({ stdout: "1000\n", code: 7 });
    const records = await fixture.records(result.name, "exec/rest");
    expect(records.some(({ verdict }) => verdict === Verdict.ALLOW)).toBe(true);
  });

  test("a denied command does not run, and the caller reads the rule", async () => {
    const result = await fixture.run("/usr/bin/shred --version; echo ended with $?");
    expect(result.stdout).toBe("ended with 126\n");
    expect(result.stderr).toContain("exec/no-shred");
    expect(result.stderr).toContain("files are not shredded here");
    const [record] = await fixture.records(result.name, "exec/no-shred");
    expect(record?.verdict).toBe(Verdict.DENY);
  });

  test("a held command runs when a person approves it, and not before", async () => {
    let before: string | undefined = "not looked";
    const result = await fixture.run("/usr/bin/factor 42 > factored; cat factored", async (hold) => {
      before = fixture.left("factored");
      await fixture.approve(hold);
    });
    expect(before).toBe("");
    expect(result.stdout).toBe("42: 2 3 7\n");
    const [record] = await fixture.records(result.name, "exec/ask-factor");
    expect(record).toMatchObject({ verdict: Verdict.ALLOW, layer: "person" });
  });

  test("a held command that a person denies never runs an instruction", async () => {
    const result = await fixture.run("/usr/bin/factor 42; echo ended with $?", fixture.deny);
    expect(result.stdout).toBe("ended with 137\n");
    const [record] = await fixture.records(result.name, "exec/ask-factor");
    expect(record).toMatchObject({ verdict: Verdict.DENY, layer: "person" });
  });

  test("a hold that nobody answers is denied at its deadline", async () => {
    const result = await fixture.run("echo words | /usr/bin/tac; echo over");
    expect(result.stdout).toBe("over\n");
    const [record] = await fixture.records(result.name, "exec/short-hold");
    expect(record?.verdict).toBe(Verdict.DENY);
  });

  test("a logged command runs and leaves a record", async () => {
    const result = await fixture.run("/usr/bin/seq 2");
    expect(result.stdout).toBe("1\n2\n");
    const [record] = await fixture.records(result.name, "exec/note-seq");
    expect(record?.verdict).toBe(Verdict.LOG);
  });

  test("a link to a denied program is denied, and a copy of it counts as the file that it is, which the docs say", async () => {
    const script =
      "ln -s /usr/bin/shred link; ./link --version; echo link $?; ln -s /usr/bin/true good; ./good; echo good $?; cp /usr/bin/shred copied; ./copied --version >/dev/null; echo copy $?";
    const result = await fixture.run(script);
    expect(result.stdout).toBe("link 126\ngood 0\ncopy 0\n");
  });
});

describe("file", () => {
  test("an allowed file is read, and one that is denied is not, by any of its names", async () => {
    const script =
      "cat /guarded/plain; for f in /guarded/denied /guarded/../guarded/denied /proc/self/root/guarded/denied; do grep . $f && echo LEAK; done; exit 0";
    const result = await fixture.run(script);
    expect(result.stdout).toBe("words of plain\n");
  });

  test("a read-only file is not written beside a workspace that is", async () => {
    const result = await fixture.run("echo x > mine && cat mine; echo x > /guarded/plain || echo refused");
    expect(result.stdout).toBe("x\nrefused\n");
  });

  test("a held open goes on when a person approves it", async () => {
    const result = await fixture.run("cat /guarded/held", fixture.approve);
    expect(result.stdout).toBe("words of held\n");
    const [record] = await fixture.records(result.name, "file/ask-held");
    expect(record).toMatchObject({ verdict: Verdict.ALLOW, layer: "person" });
  });

  test("a held open fails when a person denies it", async () => {
    const result = await fixture.run("cat /guarded/held || echo refused", fixture.deny);
    expect(result.stdout).toBe("refused\n");
  });

  test("a logged open reads and leaves a record", async () => {
    const result = await fixture.run("cat /guarded/logged");
    expect(result.stdout).toBe("words of logged\n");
    const [record] = await fixture.records(result.name, "file/note-logged");
    expect(record?.verdict).toBe(Verdict.LOG);
  });
});

describe("network", () => {
  const curl = (host: string) => `curl -sS -m 40 http://${host}/`;

  test("an allowed host answers, and one that nobody named is not even resolved", async () => {
    const result = await fixture.run(`${curl("allowed.test")}; ${curl("unnamed.test")} || echo refused`);
    expect(result.stdout).toBe("hello from web\nrefused\n");
  });

  test("a denied host is refused", async () => {
    const result = await fixture.run(`${curl("denied.test")} || echo refused`);
    expect(result.stdout).not.toContain("hello");
    expect(result.stdout).toMatch(/refused|access denied/);
  });

  test("a held connection goes on when a person approves it", async () => {
    const result = await fixture.run(curl("held.test"), fixture.approve);
    expect(result.stdout).toBe("hello from other\n");
    const [record] = await fixture.records(result.name, "network/ask-held");
    expect(record).toMatchObject({ verdict: Verdict.ALLOW, layer: "person" });
  });

  test('a held connection that a person denies reads "access denied"', async () => {
    const result = await fixture.run(curl("held.test"), fixture.deny);
    expect(result.stdout).toContain("access denied");
    expect(result.stdout).not.toContain("hello");
  });

  test("a logged connection goes on and leaves a record", async () => {
    const result = await fixture.run(curl("logged.test"));
    expect(result.stdout).toBe("hello from web\n");
    const [record] = await fixture.records(result.name, "network/note-logged");
    expect(record?.verdict).toBe(Verdict.LOG);
  });

  test("an address behind an allowed name is not reachable by itself", async () => {
    const address =
      fixture
        .arguments("x", [])
        .find((part) => part.startsWith("web="))
        ?.slice(4) ?? "";
    const result = await fixture.run(
      `curl -sS -m 10 http://${address}/ || echo refused; ${curl("allowed.test")}`,
    );
    expect(result.stdout).not.toMatch(/^hello from web\nhello/);
    expect(result.stdout).toMatch(/(refused|access denied)[\s\S]*hello from web\n$/);
  });
});
