/** The command line as a user has it: exit codes, JSON and what is printed, against a supervisor on real sockets. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { call } from "../common/grpc.js";
import { denied, question } from "../testing/questions.js";
import { capabilities } from "../testing/scripted-loader.js";
import { World } from "../testing/world.js";
import type { Io } from "./io.js";
import { main } from "./program.js";

let world: World;
beforeAll(async () => {
  world = new World();
  await world.start();
});
afterAll(() => world.end());

interface Result {
  code: number;
  out: string;
  err: string;
}

async function cli(args: string[], fields: Partial<Io> = {}): Promise<Result> {
  let out = "";
  let err = "";
  const io: Io = {
    stdout: { write: (text) => (out += text), isTTY: false },
    stderr: { write: (text) => (err += text), isTTY: false },
    environment: {},
    paths: world.paths,
    exit: 0,
    ...fields,
  };
  const code = await main(args, io);
  return { code, out, err };
}

const nowhere = () => {
  const paths = Object.fromEntries(Object.keys(world.paths).map((key) => [key, `/nonexistent/${key}`]));
  return { paths: paths as unknown as Io["paths"] };
};

describe("exit codes", () => {
  test.each<[string[], number, RegExp]>([
    [["--help"], 0, /Exit codes:/],
    [["--version"], 0, /^\d+\.\d+\.\d+\n$/],
    [["run", "--help"], 0, /exit code/],
    [["ps"], 0, /No sandbox/],
    [["approve", "nope"], 1, /There is no hold nope/],
    [["frobnicate"], 2, /unknown command/],
    [["ps", "--frobnicate"], 2, /unknown option/],
    [["approve"], 2, /missing required argument/],
    [["kill"], 2, /Name one sandbox, or give --all/],
    [["kill", "box", "--all"], 2, /Name one sandbox, or give --all/],
    [["run", "--name", "Not A Name", "--", "id"], 2, /lower-case/],
    [["run", "--json", "--", "id"], 2, /--detach/],
    [["run", "--var", "novalue", "--", "id"], 2, /name=value/],
    [["audit", "search", "--kind", "sandwich"], 2, /One of exec/],
    [["audit", "search", "--since", "yesterday"], 2, /10m/],
    [["explain"], 2, /Name a policy file/],
    [["up", "--without", "tp_btf,seccomp"], 2, /"seccomp" cannot be left unused.*wait-killable/],
    [["up", "--help"], 0, /--without <mechanisms>[\s\S]*cgroup\.pids/],
    [["policy", "check", "/nonexistent.yaml"], 1, /cannot be read/],
  ])("%j ends with %d", async (args, code, words) => {
    const result = await cli(args);
    expect(result.out + result.err).toMatch(words);
    expect(result.code).toBe(code);
  });

  test.each([
    [["ps"]],
    [["status"]],
    [["holds"]],
    [["audit", "search"]],
    [["reload", "box"]],
    [["explain", "/x"]],
  ])("%j without a supervisor ends with 4 and says how to start one", async (args) => {
    const result = await cli(args, nowhere());
    expect(result.code).toBe(4);
    expect(result.err).toMatch(/^clawsec: No supervisor serves .*clawsec up/);
  });

  test("a policy with errors ends with 3 and shows where", async () => {
    const path = world.policy(["{ id: a, executable: /usr/bin/x, action: allways }"], "bad");
    for (const args of [
      ["policy", "check", path],
      ["run", "-d", "-p", path],
      ["explain", path],
    ]) {
      const result = await cli(args);
      expect(result.code).toBe(3);
      expect(result.out + result.err).toMatch(/bad\.yaml:15:\d+: error: /);
    }
  });

  test("a policy without errors ends with 0, also without any daemon", async () => {
    const path = world.policy(["{ id: a, executable: /usr/bin/**, action: allow }"], "good");
    expect(await cli(["policy", "check", path])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/good\.yaml: no errors\n$/),
    });
    const alone = await cli(["policy", "check", path], nowhere());
    expect(alone).toMatchObject({
      code: 0,
      out: expect.stringContaining("what this host lacks was not looked for"),
    });
  });

  test("an error under --json is one JSON document on standard error", async () => {
    const result = await cli(["ps", "--json"], nowhere());
    expect(JSON.parse(result.err)).toEqual({
      error: { exit: 4, message: expect.stringContaining("No supervisor") },
    });
    expect(result.out).toBe("");
  });
});

describe("doctor", () => {
  test("ends with 0 where nothing required is missing, and with 1 where something is, in words and in JSON", async () => {
    expect((await cli(["doctor"])).code).toBe(0);
    world.loader.capabilities = capabilities(["tmpfs.noswap"]);
    expect((await cli(["doctor"])).code).toBe(0);
    world.loader.capabilities = capabilities(["ptrace.hold"]);
    const words = await cli(["doctor"]);
    expect(words.code).toBe(1);
    expect(words.out).toContain("Give this host ptrace.hold.");
    expect(words.out).toContain("ptrace.hold missing");
    const json = JSON.parse((await cli(["doctor", "--json"])).out);
    expect(json.ok).toBe(false);
    expect(json.capabilities.find(({ name }: { name: string }) => name === "ptrace.hold")).toMatchObject({
      state: "missing",
      required: true,
    });
    world.loader.capabilities = capabilities();
  });

  test("what the loader was told to leave unused is named, and nothing is where nothing was", async () => {
    expect((await cli(["doctor"])).out).not.toContain("unused");
    expect(JSON.parse((await cli(["doctor", "--json"])).out).without).toEqual([]);
    world.loader.without = ["tp_btf", "wait-killable"];
    expect((await cli(["doctor"])).out).toContain(
      "Left unused, because the loader was told so: tp_btf, wait-killable.",
    );
    expect(JSON.parse((await cli(["doctor", "--json"])).out).without).toEqual(["tp_btf", "wait-killable"]);
    world.loader.without = [];
  });

  test("a variable that names what cannot be left unused is a wrong command line, before anything is started", async () => {
    const result = await cli(["doctor"], { ...nowhere(), environment: { CLAWSEC_WITHOUT: "everything" } });
    expect(result).toMatchObject({ code: 2, out: "" });
    expect(result.err).toContain('CLAWSEC_WITHOUT: "everything" cannot be left unused');
  });
});

describe("health", () => {
  test("ps and status show it, with the reason and the rule, in words and in JSON", async () => {
    let code = 0;
    world.loader.executed = (command) => {
      command.on("error", () => undefined);
      command.once("data", async () => {
        command.write({ output: { $case: "started", value: { pid: 4321, sandboxPid: 2 } } });
        if (code === 126) {
          const event = denied(++told);
          await world.loader.emit({ ...event, process: { ...event.process, pid: 4321 } as never });
        }
        command.write({ output: { $case: "exit", value: { code, signal: 0 } } });
        command.end();
      });
    };
    let told = 100;
    const check = "healthCheck: { command: [/usr/bin/git], interval: 10ms }";
    const path = world.policy(["{ id: rest, executable: /usr/bin/**, action: allow }"], "box", [check]);
    await cli(["kill", "--all"]);
    await cli(["run", "-d", "-p", path]);
    const until = async (words: RegExp) => {
      for (let attempt = 0; attempt < 500; attempt++) {
        const { out } = await cli(["ps"]);
        if (words.test(out)) return out;
        await new Promise((done) => setTimeout(done, 10));
      }
      throw new Error(`ps never said ${words}.`);
    };
    await until(/^box +running \(healthy\) /m);
    expect((await cli(["status"])).out).not.toContain("unhealthy");
    code = 126;
    const out = await until(/^box +running \(unhealthy\) /m);
    expect(out).toContain(
      "box is unhealthy; its last health check: denied by rule exec/no-git: git may not push\n",
    );
    expect((await cli(["status"])).out).toMatch(/1 live, 1 unhealthy/);
    const [sandbox] = JSON.parse((await cli(["ps", "--json"])).out).sandboxes;
    expect(sandbox.health).toMatchObject({ state: "unhealthy", rule: "exec/no-git" });
    await cli(["kill", "--all"]);
    expect((await cli(["ps", "--all"])).out).not.toContain("healthy");
  });
});

describe("a sandbox's life", () => {
  const HOSTILE = "\u001b[2J\u202eevil\nclawsec: allowed";

  beforeEach(async () => {
    const path = world.policy([
      "{ id: push, executable: /usr/bin/git, action: hold, because: it publishes }",
    ]);
    await cli(["kill", "--all"]);
    expect((await cli(["run", "-d", "-p", path])).out).toBe("box\n");
  });

  test("ps, status and kill show it, in words and in JSON", async () => {
    expect((await cli(["ps"])).out).toMatch(/^NAME +STATE .*\nbox +running /);
    const ps = JSON.parse((await cli(["ps", "--json"])).out);
    expect(ps.sandboxes).toMatchObject([{ name: "box", state: "running", epoch: 1, exit: null }]);
    expect(JSON.parse((await cli(["status", "--json"])).out)).toMatchObject({
      loaderConnected: true,
      openHolds: 0,
    });
    const kill = await cli(["kill", "box", "--json"]);
    expect(JSON.parse(kill.out)).toMatchObject({
      via: "supervisor",
      survivors: 0,
      sandboxes: [{ name: "box", goneUs: 1500 }],
    });
    expect((await cli(["ps"])).out).toBe("No sandbox runs.\n");
    expect((await cli(["ps", "--all"])).out).toMatch(/box +killed/);
  });

  test("kill goes to the loader itself when there is no supervisor, and says so", async () => {
    const paths = { ...world.paths, controlSocket: "/nonexistent/control.sock" };
    const result = await cli(["kill", "box"], { paths });
    expect(result).toMatchObject({ code: 0, out: "box: killed 3 processes in 1.5 ms, 0 survivors\n" });
    expect(result.err).toContain("No supervisor answers");
  });

  test("kill with neither ends in words when the sandbox has no cgroup here", async () => {
    const result = await cli(["kill", "box"], nowhere());
    expect(result.code).toBe(1);
    expect(result.err).toContain("has a cgroup here");
  });

  test("a hold is listed, approved and gone, and what the sandbox wrote cannot act on the terminal", async () => {
    await world.loader.ask({ $case: "question", value: question(501, {}, { argv: ["git", HOSTILE] }) });
    await world.loader.until(() => world.loader.decisions.some(({ questionId }) => questionId === 501));
    const words = await cli(["holds"]);
    expect(words.out.split("\n")).toHaveLength(3);
    expect(words.out).not.toMatch(/[\u001b\u202e]/);
    expect(words.out).toContain("it publishes");
    const json = await cli(["holds", "--json"]);
    expect(json.out).not.toMatch(/[\u001b\u202e]/);
    const [hold] = JSON.parse(json.out).holds;
    expect(hold).toMatchObject({ rule: "exec/push", outcome: "open", defaultVerdict: "deny", asked: 1 });
    expect(hold.action.exec.argv).toEqual(["git", HOSTILE]);
    const answered = await cli(["approve", hold.id.slice(0, 6), "--reason", "fine", "--json"]);
    expect(JSON.parse(answered.out).hold).toMatchObject({ outcome: "allowed", reason: "fine" });
    expect(await cli(["deny", hold.id])).toMatchObject({
      code: 1,
      err: expect.stringContaining("has ended: allowed"),
    });
    expect((await cli(["holds"])).out).toBe("Nothing waits.\n");
    expect(JSON.parse((await cli(["holds", "--all", "--json"])).out).holds[0].id).toBe(hold.id);
  });

  test("the audit is searched and followed, escaped", async () => {
    await world.loader.emit(denied(601, { argv: ["git", HOSTILE] }, "exec/needle"));
    await world.loader.until(() => world.loader.acks.includes(601));
    const words = await cli(["audit", "search", "NEEDLE"]);
    expect(words.out.split("\n")).toHaveLength(3);
    expect(words.out).not.toMatch(/[\u001b\u202e]/);
    const json = JSON.parse((await cli(["audit", "search", "needle", "--json"])).out);
    expect(json).toMatchObject({
      truncated: false,
      records: [{ kind: "exec", verdict: "deny", rule: "exec/needle" }],
    });
    expect(json.records[0].facts.decision.exec.argv[1]).toBe(HOSTILE);
    const leave = new AbortController();
    const tail = cli(["audit", "tail", "-n", "0", "--kind", "exec", "--json"], { signal: leave.signal });
    await new Promise((resolve) => setTimeout(resolve, 200));
    await world.loader.emit(denied(602, {}, "exec/tailed"));
    await world.loader.until(() => world.loader.acks.includes(602));
    await new Promise((resolve) => setTimeout(resolve, 100));
    leave.abort();
    const lines = (await tail).out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).toMatchObject([{ rule: "exec/tailed" }]);
  });

  test("reload says what was applied, and with errors ends with 3 and changes nothing", async () => {
    expect((await cli(["reload", "box"])).out).toMatch(/^box: epoch 2, policy [0-9a-f]{12}\n/);
    const bad = join(world.folder, "bad2.yaml");
    writeFileSync(bad, "kind: [");
    const refused = await cli(["reload", "box", "-p", bad]);
    expect(refused.code).toBe(3);
    expect(refused.err).toContain("Nothing has changed: box runs under epoch 2");
    expect(JSON.parse((await cli(["reload", "box", "-p", bad, "--json"])).out)).toMatchObject({
      applied: false,
      sandboxes: [{ name: "box", epoch: 2 }],
    });
    expect((await cli(["reload"])).code).toBe(2);
    expect((await cli(["reload", "--all"])).out).toMatch(/^box: epoch 3, /);
  });

  test("explain names each rule and its layer", async () => {
    const { rules } = JSON.parse((await cli(["explain", "--name", "box", "--json"])).out);
    expect(rules.find(({ rule }: { rule: string }) => rule === "exec/push")).toMatchObject({
      action: "hold",
    });
    expect((await cli(["explain", "--name", "box"])).out).toContain("exec/push");
  });
});

describe("colours", () => {
  const painted = async (environment: NodeJS.ProcessEnv, isTTY: boolean) => {
    let out = "";
    const stdout = { write: (text: string | Uint8Array) => (out += text), isTTY };
    await cli(["status"], { stdout, environment });
    return out.includes("\u001b[");
  };
  test("are for terminals only, and NO_COLOR is respected", async () => {
    expect(await painted({}, true)).toBe(true);
    expect(await painted({}, false)).toBe(false);
    expect(await painted({ NO_COLOR: "1" }, true)).toBe(false);
    expect(await painted({ TERM: "dumb" }, true)).toBe(false);
  });
});

test("the supervisor that the tests talk to is this process", async () => {
  expect((await call(world.control, world.control.status, {}, 5000)).pid).toBe(process.pid);
});
