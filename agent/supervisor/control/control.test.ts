/** Control over a real unix socket, with real databases and a scripted loader behind it. */
import { existsSync, lstatSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type ServiceError, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type AnswerHoldRequest,
  type HoldChange,
  HoldChangeKind,
  HoldOutcome,
  QueryAuditRequest,
  type ReloadPolicyRequest,
  type RunRequest,
} from "../../../proto/gen/clawsec/v1/control.js";
import { type AttachOutput, SandboxState, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { all, call } from "../../common/grpc.js";
import { question } from "../../testing/questions.js";
import { capabilities } from "../../testing/scripted-loader.js";
import { World } from "../../testing/world.js";

let world: World;
beforeEach(async () => {
  world = new World();
  await world.start();
});
afterEach(() => world.end());

const RULES = [
  "{ id: no-shred, executable: /usr/bin/shred, action: deny, message: not here }",
  "{ id: push, executable: /usr/bin/git, action: hold, because: it publishes }",
  "{ id: rest, executable: /usr/bin/**, action: allow }",
];

function request(policyPath: string, fields: Partial<RunRequest> = {}): RunRequest {
  return { name: "", policyPath, command: [], terminal: false, detached: true, variables: {}, ...fields };
}
const run = (policyPath = world.policy(RULES), fields: Partial<RunRequest> = {}) =>
  call(world.control, world.control.run, request(policyPath, fields), 10_000);
const refused = async (action: Promise<unknown>): Promise<ServiceError> => {
  try {
    await action;
  } catch (error) {
    return error as ServiceError;
  }
  throw new Error("It was not refused.");
};
const answer = (id: string, verdict: Verdict, fields: Partial<AnswerHoldRequest> = {}) =>
  call(world.control, world.control.answerHold, { id, verdict, reason: "", via: "cli", ...fields }, 5000);
const holds = async () => await all(world.control.listHolds({ sandbox: "", ended: false }));
const audit = async (kinds: string[]) => {
  const request = QueryAuditRequest.fromPartial({ kinds });
  return (await call(world.control, world.control.queryAudit, request, 5000)).records;
};

describe("Run", () => {
  test("compiles, creates and starts, and the audit says who, what and under which policy", async () => {
    const { sandbox } = await run();
    expect(sandbox).toMatchObject({ name: "box", state: SandboxState.RUNNING, epoch: 1 });
    expect(world.loader.created[0]?.args).toEqual(["/usr/bin/true"]);
    const [policy] = await audit(["policy"]);
    expect(policy?.summary).toBe("policy box applied, epoch 1");
    expect(JSON.parse(policy?.facts ?? "").by).toMatch(/^uid \d+/);
    expect((await audit(["sandbox"])).map(({ summary }) => summary)[0]).toMatch(/^sandbox started by uid/);
  });

  test("answers a bad policy with its diagnostics, line and column, and makes nothing", async () => {
    const path = world.policy(["{ id: a, executable: /usr/bin/x, action: allways }"]);
    const error = await refused(run(path));
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(error.details).toMatch(/box\.yaml:15:\d+: error: /);
    expect(error.details).toContain("^");
    expect(world.loader.calls).not.toContain("createSandbox");
  });

  test("refuses on a host that lacks what is required, in the doctor's words, and makes nothing", async () => {
    world.loader.stop();
    world.loader.capabilities = capabilities(["netns.sk_lookup"]);
    await world.loader.start();
    await world.loader.until(() => world.supervisor?.parts.link.state.kind === "connected");
    await world.loader.until(
      () => world.supervisor?.parts.link.capabilities.some(({ state }) => state === 2) === true,
    );
    const error = await refused(run());
    expect(error.code).toBe(status.FAILED_PRECONDITION);
    expect(error.details).toContain("netns.sk_lookup did not deny");
    expect(error.details).toContain("Give this host netns.sk_lookup.");
    expect(world.loader.calls).not.toContain("createSandbox");
  });

  test("refuses a name that a live sandbox has, and takes it when that one has ended", async () => {
    await run();
    expect((await refused(run())).code).toBe(status.ALREADY_EXISTS);
    await call(world.control, world.control.kill, { name: "box", all: false, reason: "" }, 5000);
    await call(world.control, world.control.status, {}, 5000);
    expect((await run()).sandbox?.name).toBe("box");
  });

  test("kills what it created when it cannot start it", async () => {
    world.loader.failing = { method: "startSandbox", words: "runc start failed: no memory." };
    expect((await refused(run())).details).toBe("runc start failed: no memory.");
    expect(world.loader.calls.slice(-2)).toEqual(["startSandbox", "killSandbox"]);
  });

  test("names a secret whose file cannot be read, and makes nothing", async () => {
    const path = world.policy(RULES);
    const secret = join(world.folder, "key");
    const text = `secrets: { mount: /run/secrets/clawsec, items: [ { name: key, file: ${secret} } ] }\n`;
    writeFileSync(path, text, { flag: "a" });
    const error = await refused(run(path));
    expect(error.details).toContain(secret);
    expect(world.loader.calls).not.toContain("createSandbox");
    writeFileSync(secret, "hunter2", { mode: 0o644 });
    const { warnings } = await run(path);
    expect(warnings.join()).toContain("others on this host may read it");
    expect(world.loader.created[0]?.secrets).toEqual([{ name: "key", value: Buffer.from("hunter2") }]);
    expect(JSON.stringify(await audit([]))).not.toContain("hunter2");
  });
});

describe("holds", () => {
  test("from the question to the person's answer to the loader, with who answered", async () => {
    await run();
    const changes: HoldChange[] = [];
    const watch = world.control.watchHolds({ sandbox: "" });
    watch.on("data", (change) => changes.push(change)).on("error", () => undefined);
    await world.loader.ask({ $case: "question", value: question(1) });
    const first = await world.loader.decision(1);
    expect(first).toMatchObject({ questionId: 1, verdict: Verdict.HOLD, rule: "exec/push", epoch: 1 });
    expect(first.deadlineUs).toBeGreaterThan(Date.now() * 1000);
    await world.loader.ask({
      $case: "held",
      value: { questionId: 1, holdId: first.holdId, exec: undefined },
    });
    await world.loader.until(() => changes.length === 2);
    const { hold } = await answer(first.holdId.slice(0, 5), Verdict.ALLOW, { reason: "fine" });
    expect(hold).toMatchObject({ outcome: HoldOutcome.ALLOWED, because: "it publishes", reason: "fine" });
    expect(hold?.answeredBy).toMatch(/^(uid \d+( \(.*\))?|unknown local user) by cli$/);
    expect(await world.loader.decision(2)).toMatchObject({
      questionId: 1,
      verdict: Verdict.ALLOW,
      layer: "person",
    });
    await world.loader.until(() => changes.length === 3);
    watch.cancel();
    expect(changes.map(({ kind }) => kind)).toEqual([
      HoldChangeKind.OPENED,
      HoldChangeKind.UPDATED,
      HoldChangeKind.ENDED,
    ]);
    const records = await audit(["hold"]);
    expect(records.map(({ verdict }) => verdict)).toEqual([Verdict.HOLD, Verdict.ALLOW]);
    expect(records[1]?.summary).toContain("allowed by");
  });

  test("a denied hold tells the caller who and why", async () => {
    await run();
    await world.loader.ask({ $case: "question", value: question(1) });
    const { holdId } = await world.loader.decision(1);
    await answer(holdId, Verdict.DENY, { reason: "not on Friday\u001b[2J" });
    const final = await world.loader.decision(2);
    expect(final.verdict).toBe(Verdict.DENY);
    expect(final.message).toContain("not on Friday\\x1b[2J");
  });

  test("an explicit deny is never asked about, an allow neither", async () => {
    await run();
    await world.loader.ask({ $case: "question", value: question(1, {}, { executable: "/usr/bin/shred" }) });
    await world.loader.ask({ $case: "question", value: question(2, {}, { executable: "/usr/bin/ls" }) });
    expect(await world.loader.decision(1)).toMatchObject({ verdict: Verdict.DENY, rule: "exec/no-shred" });
    expect(await world.loader.decision(2)).toMatchObject({ verdict: Verdict.ALLOW, rule: "exec/rest" });
    expect(await holds()).toEqual([]);
  });

  test("unknown, ambiguous, ended and badly answered holds are each refused in words", async () => {
    await run();
    expect((await refused(answer("nope", Verdict.ALLOW))).code).toBe(status.NOT_FOUND);
    await world.loader.ask({ $case: "question", value: question(1) });
    const { holdId } = await world.loader.decision(1);
    expect((await refused(answer(holdId, Verdict.HOLD))).code).toBe(status.INVALID_ARGUMENT);
    await answer(holdId, Verdict.DENY);
    const ended = await refused(answer(holdId, Verdict.ALLOW));
    expect(ended.code).toBe(status.FAILED_PRECONDITION);
    expect(ended.details).toContain("denied");
  });

  test("survive the supervisor: the next one has them, and its answer reaches the loader", async () => {
    await run();
    await world.loader.ask({ $case: "question", value: question(1) });
    const { holdId } = await world.loader.decision(1);
    await world.supervisor?.stop();
    await world.up();
    expect((await holds()).map(({ id }) => id)).toEqual([holdId]);
    await world.loader.ask({ $case: "question", value: question(1, { resent: true, holdId }) });
    await world.loader.until(() => world.supervisor?.parts.holds.ofQuestion(1) !== undefined);
    await answer(holdId, Verdict.ALLOW);
    expect(await world.loader.decision(2)).toMatchObject({ questionId: 1, verdict: Verdict.ALLOW, holdId });
  });
});

describe("ReloadPolicy", () => {
  const reload = (fields: Partial<ReloadPolicyRequest> = { names: ["box"] }) =>
    call(
      world.control,
      world.control.reloadPolicy,
      { names: [], all: false, policyPath: "", ...fields },
      5000,
    );

  test("applies a good candidate under the next epoch, and answers by it", async () => {
    await run();
    world.policy(["{ id: all, executable: /usr/bin/**, action: deny }"]);
    expect(await reload()).toMatchObject({ applied: true, sandboxes: [{ epoch: 2, needsRestart: [] }] });
    expect(world.loader.applied[0]?.tables?.epoch).toBe(2);
    await world.loader.ask({ $case: "question", value: question(1, { epoch: 2 }) });
    expect(await world.loader.decision(1)).toMatchObject({
      verdict: Verdict.DENY,
      rule: "exec/all",
      epoch: 2,
    });
  });

  test("with a bad candidate changes nothing, and shows what is wrong", async () => {
    const path = world.policy(RULES);
    await run(path);
    writeFileSync(path, "apiVersion: clawsec/v1\nkind: [\n");
    const response = await reload();
    expect(response).toMatchObject({ applied: false, sandboxes: [{ name: "box", epoch: 1 }] });
    expect(response.diagnostics).toContain("box.yaml:");
    expect(world.loader.applied).toEqual([]);
    await world.loader.ask({ $case: "question", value: question(1, {}, { executable: "/usr/bin/ls" }) });
    expect(await world.loader.decision(1)).toMatchObject({ verdict: Verdict.ALLOW, epoch: 1 });
  });

  test("that the loader refuses leaves the old policy in force", async () => {
    await run();
    world.policy(["{ id: all, executable: /usr/bin/**, action: deny }"]);
    world.loader.failing = { method: "applyPolicy", words: "no" };
    await refused(reload());
    await world.loader.ask({ $case: "question", value: question(1, {}, { executable: "/usr/bin/ls" }) });
    expect(await world.loader.decision(1)).toMatchObject({ verdict: Verdict.ALLOW, epoch: 1 });
  });

  test("ends a hold that the new policy denies, and a person cannot allow it any more", async () => {
    await run();
    await world.loader.ask({ $case: "question", value: question(1) });
    const { holdId } = await world.loader.decision(1);
    world.policy(["{ id: all, executable: /usr/bin/**, action: deny }"]);
    await reload();
    expect(await world.loader.decision(2)).toMatchObject({ questionId: 1, verdict: Verdict.DENY, epoch: 2 });
    expect((await refused(answer(holdId, Verdict.ALLOW))).code).toBe(status.FAILED_PRECONDITION);
  });

  test("names what a running sandbox cannot change", async () => {
    const path = world.policy(RULES);
    await run(path);
    writeFileSync(path, "resolver: { hosts: { a.test: 10.0.0.1 } }\n", { flag: "a" });
    expect((await reload()).sandboxes[0]?.needsRestart).toEqual([]);
    const { readFileSync } = await import("node:fs");
    writeFileSync(path, readFileSync(path, "utf8").replace("mode: rw", "mode: ro"));
    expect((await reload()).sandboxes[0]?.needsRestart.length).toBeGreaterThan(0);
  });

  test("names files that are newly asked about, each time until the restart, and keeps those that are", async () => {
    const path = world.policy(RULES);
    mkdirSync(join(world.folder, "work", "notes"));
    await run(path);
    const rule = "file:\n  - { id: notes, path: /work/notes, operations: [open], action: hold }\n";
    writeFileSync(path, rule, { flag: "a" });
    for (const _ of [1, 2]) {
      const response = await reload();
      expect(response.applied).toBe(true);
      expect(response.sandboxes[0]?.needsRestart.join("\n")).toContain("/work/notes");
    }
    expect(world.loader.applied.map(({ tables }) => tables?.fileGuards)).toEqual([[], []]);
  });

  const other = () => world.policy(RULES, "other");
  const epochs = async () => (await reload({ all: true })).sandboxes.map(({ name, epoch }) => [name, epoch]);

  test("moves all sandboxes, or those that are named", async () => {
    await run();
    await run(other());
    expect(await epochs()).toEqual([
      ["box", 2],
      ["other", 2],
    ]);
    expect((await reload({ names: ["other"] })).sandboxes).toMatchObject([{ name: "other", epoch: 3 }]);
    expect(world.loader.applied.map(({ name }) => name)).toEqual(["box", "other", "other"]);
  });

  test("moves none when the policy of one is bad, and says which error it has", async () => {
    await run();
    const path = other();
    await run(path);
    writeFileSync(path, "kind: [\n");
    const response = await reload({ all: true });
    expect(response).toMatchObject({ applied: false, sandboxes: [{ epoch: 1 }, { epoch: 1 }] });
    expect(response.diagnostics).toContain("other.yaml:");
    expect(world.loader.applied).toEqual([]);
  });

  test("that the loader refuses for the second sandbox gives the first its old policy back", async () => {
    await run();
    await run(other());
    world.policy(["{ id: all, executable: /usr/bin/**, action: deny }"]);
    world.loader.failing = { method: "applyPolicy", words: "no", after: 1 };
    await refused(reload({ all: true }));
    expect(world.loader.applied.map(({ name, tables }) => [name, tables?.epoch])).toEqual([
      ["box", 2],
      ["box", 3],
    ]);
    await world.loader.ask({
      $case: "question",
      value: question(1, { epoch: 3 }, { executable: "/usr/bin/ls" }),
    });
    expect(await world.loader.decision(1)).toMatchObject({ verdict: Verdict.ALLOW, epoch: 3 });
  });

  test("refuses to guess: neither names nor all, and both", async () => {
    await run();
    expect((await refused(reload({}))).code).toBe(status.INVALID_ARGUMENT);
    expect((await refused(reload({ all: true, names: ["box"] }))).code).toBe(status.INVALID_ARGUMENT);
    expect((await refused(reload({ names: ["nobody"] }))).code).toBe(status.NOT_FOUND);
  });
});

describe("Attach", () => {
  const attach = async (bytes: Buffer) => {
    const stream = world.control.attachSandbox();
    const output: AttachOutput[] = [];
    const over = new Promise<void>((resolve, reject) => {
      stream
        .on("data", (message) => output.push(message))
        .on("end", resolve)
        .on("error", reject);
    });
    const empty = {
      name: "",
      stdin: Buffer.alloc(0),
      stdinEof: false,
      resize: undefined,
      signal: 0,
      exec: undefined,
    };
    stream.write({ ...empty, name: "box" });
    for (let at = 0; at < bytes.length; at += 65_536)
      stream.write({ ...empty, stdin: bytes.subarray(at, at + 65_536) });
    stream.write({ ...empty, stdinEof: true });
    await over;
    return output.map(({ output }) => output);
  };

  test("carries megabytes both ways without losing a byte, and the exit code", async () => {
    await run();
    const bytes = Buffer.from(Array.from({ length: 3_000_000 }, (_, index) => index % 251));
    const output = await attach(bytes);
    const received = Buffer.concat(output.flatMap((part) => (part?.$case === "stdout" ? [part.value] : [])));
    expect(received.equals(bytes)).toBe(true);
    expect(output.at(-1)).toEqual({ $case: "exit", value: { code: 7, signal: 0 } });
  });

  test.each([
    [false, "stopped"],
    [true, "left alone"],
  ])("a sandbox (detached: %s) whose caller goes away is %s", async (detached) => {
    await run(undefined, { detached });
    let opened = false;
    world.loader.attached = (call) => {
      call.on("error", () => undefined);
      call.on("data", () => {
        opened = true;
      });
    };
    const stream = world.control.attachSandbox();
    stream.on("error", () => undefined);
    const empty = { stdin: Buffer.alloc(0), stdinEof: false, resize: undefined, signal: 0, exec: undefined };
    stream.write({ ...empty, name: "box" });
    await world.loader.until(() => opened);
    stream.cancel();
    if (detached) await new Promise((resolve) => setTimeout(resolve, 200));
    else await world.loader.until(() => world.loader.calls.includes("stopSandbox"));
    expect(world.loader.calls.includes("stopSandbox")).toBe(!detached);
  });
});

describe("Kill", () => {
  test("names nobody by mistake", async () => {
    await run();
    const kill = { name: "", all: false, reason: "" };
    expect((await refused(call(world.control, world.control.kill, kill, 5000))).code).toBe(
      status.INVALID_ARGUMENT,
    );
    expect(world.loader.calls).not.toContain("killSandbox");
    const report = await call(world.control, world.control.kill, { ...kill, all: true }, 5000);
    expect(report.sandboxes).toMatchObject([{ name: "box", survivors: 0, goneUs: 1500 }]);
    expect((await audit(["kill"]))[0]?.summary).toMatch(/^killed by .*: 3 processes, 0 survivors$/);
  });
});

describe("the loader", () => {
  test("that goes away is said, and its return is noticed", async () => {
    await run();
    world.loader.stop();
    await world.loader.until(() => world.supervisor?.parts.link.state.kind === "disconnected");
    const away = await call(world.control, world.control.status, {}, 5000);
    expect(away.loaderConnected).toBe(false);
    expect(away.loader).toMatch(/^not connected: /);
    expect((await refused(run(undefined, { name: "other" }))).code).toBe(status.UNAVAILABLE);
    expect((await audit(["sandbox"])).some(({ summary }) => summary.startsWith("the loader is away"))).toBe(
      true,
    );
    await world.loader.start();
    await world.loader.until(() => world.supervisor?.parts.link.state.kind === "connected");
    expect((await run(undefined, { name: "other" })).sandbox?.name).toBe("other");
  });

  test("of another boot without our sandbox: the sandbox has ended, and its holds too", async () => {
    await run();
    await world.loader.ask({ $case: "question", value: question(1) });
    await world.loader.decision(1);
    world.loader.stop();
    world.loader.boot = "boot-2";
    world.loader.sandboxes.clear();
    await world.loader.start();
    await world.loader.until(() => world.supervisor?.parts.sandboxes.get("box") === undefined);
    expect(await holds()).toEqual([]);
    expect((await audit(["hold"])).at(-1)?.summary).toContain("requester gone");
  });
});

describe("the control socket", () => {
  test("is for root and its group only", () => {
    expect(lstatSync(world.paths.controlSocket).mode & 0o777).toBe(0o660);
  });

  test("that a live supervisor serves stops a second one with a sentence", async () => {
    await expect(new Promise((_, reject) => world.up().catch(reject))).rejects.toThrow(/already running/);
    expect((await call(world.control, world.control.status, {}, 5000)).pid).toBe(process.pid);
  });

  test("that nobody serves is replaced", async () => {
    await world.supervisor?.stop();
    expect(existsSync(world.paths.controlSocket)).toBe(false);
    const stale = createServer().listen(world.paths.controlSocket);
    await new Promise((resolve) => stale.once("listening", resolve));
    // Closed without removing the file, as a process that is killed leaves it.
    const { linkSync, renameSync } = await import("node:fs");
    linkSync(world.paths.controlSocket, `${world.paths.controlSocket}.kept`);
    await new Promise((resolve) => stale.close(resolve));
    renameSync(`${world.paths.controlSocket}.kept`, world.paths.controlSocket);
    await world.up();
    expect((await call(world.control, world.control.status, {}, 5000)).loaderConnected).toBe(true);
  });
});
