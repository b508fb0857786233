import { stripVTControlCharacters } from "node:util";
import stringWidth from "string-width";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AuditRecord, HealthState, type Hold, HoldOutcome } from "../proto/gen/clawsec/v1/control.js";
import {
  ExecAction,
  FileAction,
  FileOperation,
  NetworkAction,
  Process,
  SandboxInfo,
  SandboxState,
  Verdict,
} from "../proto/gen/clawsec/v1/loader.js";
import { App } from "./components/app.js";
import { settleMs } from "./keymap.js";
import { ControlServer } from "./testing/control-server.js";
import { Terminal } from "./testing/terminal.js";

let server: ControlServer;
let terminal: Terminal;

beforeEach(async () => {
  server = new ControlServer();
  await server.start();
  terminal = new Terminal(80, 24);
});
afterEach(() => {
  terminal.close();
  server.dispose();
});

const enter = "\r";
const leave = "\x1b";
const tab = "\t";
const down = "\x1b[B";

function exec(part: Partial<ExecAction>): Hold["action"] {
  const argv = ["git", "push", "origin", "main"];
  const value = ExecAction.fromPartial({
    argv,
    executable: "/usr/bin/git",
    requestedPath: "/usr/bin/git",
    cwd: "/w",
  });
  return { $case: "exec", value: { ...value, ...part } };
}

const asking = Process.fromPartial({
  pid: 4242,
  sandboxPid: 7,
  uid: 1000,
  executable: "/usr/bin/node",
  comm: "node",
  ancestors: ["exec-2", "exec-1"],
  ancestorExecutables: ["/usr/bin/bash", "/usr/bin/openclaw gateway"],
});

/** Shows the screen and waits until it is connected. */
async function start(): Promise<void> {
  terminal.show(<App socketPath={server.socketPath} />);
  await terminal.see(/supervisor (and loader )?connect/);
}

/** Waits until a person would have seen the selection. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, settleMs + 50));
}

function expectFits(columns: number, rows: number): void {
  const lines = terminal.frame.split("\n");
  expect(lines.length).toBeLessThan(rows);
  for (const line of lines) expect(stringWidth(line), line).toBeLessThanOrEqual(columns);
}

test("a hold appears with who asks, what for, the rule and its reason", async () => {
  await start();
  await terminal.see("nothing waits for an answer");
  server.open({ id: "h1", action: exec({}), process: asking });
  await terminal.see("git push origin main");
  for (const text of [
    "Holds (1)",
    "openclaw/tool",
    "/usr/bin/node (node) pid 4242 (inside 7), uid 1000",
    '/usr/bin/bash < "/usr/bin/openclaw gateway"',
    "exec/git-push: pushing publishes",
    "0123456789ab",
    "at the deadline: deny",
  ])
    expect(terminal.frame).toContain(text);
  expectFits(80, 24);
});

test("file and network holds say the operation, the path, the host and what was seen", async () => {
  await start();
  const file = FileAction.fromPartial({
    operation: FileOperation.DELETE,
    path: "/w/notes.md",
    ownerUid: 1000,
  });
  server.open({ id: "h1", action: { $case: "file", value: file } });
  await terminal.see("delete /w/notes.md");
  server.end("h1", HoldOutcome.EXPIRED);
  const network = NetworkAction.fromPartial({
    host: "p\u0430ypal.com",
    port: 443,
    observedProtocol: 2,
    observedHost: "x.org",
  });
  server.open({ id: "h2", action: { $case: "network", value: network } });
  await terminal.see("connect p\\u0430ypal.com:443");
  expect(terminal.frame).toContain("TLS, name x.org");
});

test("the countdown runs and the bar empties", async () => {
  await start();
  const now = Date.now() * 1000;
  server.open({ id: "h1", action: exec({}), openedUs: now, deadlineUs: now + 3e6 });
  await terminal.see("0:03 ████████");
  await terminal.see(/0:01 █+░+/);
  await terminal.see("0:00 ░░░░░░░░");
});

test("a approves the selected hold, which then leaves the list", async () => {
  await start();
  server.open({ id: "h1", action: exec({}) });
  server.open({ id: "h2", action: exec({ argv: ["rm", "x"] }), openedUs: Date.now() * 1000 + 1e6 });
  await terminal.see("rm x");
  await settle();
  terminal.press(down, "a");
  await terminal.see("approved: rm x");
  expect(server.answers).toEqual([{ id: "h2", verdict: Verdict.ALLOW, reason: "", via: "tui" }]);
  await terminal.see("Holds (1)");
});

test("d denies with the reason that was typed; escape leaves without an answer", async () => {
  await start();
  server.open({ id: "h1", action: exec({}) });
  await terminal.see("git push");
  await settle();
  terminal.press("d", "n", "o");
  await terminal.see("deny; reason (enter denies, esc does not): no");
  terminal.press(leave);
  await vi.waitFor(() => expect(terminal.frame).not.toContain("deny; reason"));
  expect(server.answers).toEqual([]);
  terminal.press("d", "not", " ", "now");
  await terminal.see("not now");
  terminal.press(enter);
  await terminal.see("denied: git push");
  expect(server.answers).toEqual([{ id: "h1", verdict: Verdict.DENY, reason: "not now", via: "tui" }]);
});

test("an answer that is on its way does not keep other holds from being answered", async () => {
  await start();
  server.open({ id: "h1", action: exec({}) });
  server.open({ id: "h2", action: exec({ argv: ["rm", "x"] }), openedUs: Date.now() * 1000 + 1e6 });
  await terminal.see("rm x");
  await settle();
  let release = () => {};
  server.answerGate = new Promise((resolve) => {
    release = resolve;
  });
  terminal.press("a", down, "a");
  await vi.waitFor(() => expect(server.answers.map(({ id }) => id)).toEqual(["h1", "h2"]));
  terminal.press("a");
  await terminal.see("the answer to this hold is on its way");
  release();
  await terminal.see("Holds (0)");
});

test("an answer that the supervisor refuses is shown as such", async () => {
  await start();
  server.open({ id: "h1", action: exec({}) });
  await terminal.see("git push");
  await settle();
  server.forget("h1");
  terminal.press("a");
  await terminal.see("not answered: the hold has ended: expired");
});

test("K asks before it kills: another key than y kills nothing, y kills the hold's sandbox", async () => {
  await start();
  server.open({ id: "h1", action: exec({}), sandbox: "second" });
  await terminal.see("git push");
  terminal.press("K");
  await terminal.see("KILL sandbox second and everything in it? y kills");
  terminal.press("n");
  await terminal.see("nothing was killed");
  expect(server.kills).toEqual([]);
  terminal.press("K", "y");
  await terminal.see("killed second: 5 processes gone in 61 ms");
  expect(server.kills).toEqual([{ name: "second", all: false, reason: "asked for in the TUI" }]);
});

test("K, tab to all, y kills all sandboxes", async () => {
  await start();
  terminal.press("K", tab, tab);
  await terminal.see("KILL ALL SANDBOXES?");
  terminal.press("y");
  await terminal.see("killed openclaw: 5 processes gone");
  expect(server.kills).toEqual([{ name: "", all: true, reason: "asked for in the TUI" }]);
});

test("hostile text is drawn as codes and cannot move, recolour or reorder anything", async () => {
  const hostile = "\x1b[2J\x1b[31mok\u202e\u200b\x9b1m\r\nnew line\x07";
  await start();
  server.status = { ...server.status, loaderConnected: false, loader: hostile };
  const process = {
    ...asking,
    comm: hostile,
    executable: hostile,
    ancestors: [hostile],
    ancestorExecutables: [hostile],
  };
  const action = exec({ argv: ["echo", hostile], executable: hostile, cwd: hostile, requestedPath: hostile });
  server.open({ id: "h1", action, process, rule: hostile, because: hostile, subject: hostile });
  server.record(
    AuditRecord.fromPartial({ id: 1, kind: hostile, summary: hostile, rule: hostile, sandbox: hostile }),
  );
  await terminal.see('echo "\\x1b[2J\\x1b[31mok\\u202e\\u200b\\x9b1m\\r\\nnew line\\x07"');
  await terminal.see("loader: \\x1b[2J");
  terminal.press(enter);
  await terminal.see("All of the hold");
  // What is left after the screen's own colours are taken away has no control character but its line ends.
  const text = stripVTControlCharacters(terminal.frame).replaceAll("\n", "");
  expect(text).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  expect(terminal.frame).not.toContain("\x1b[2J");
  expectFits(80, 24);
});

test("arguments too long for the screen say how much is hidden, and enter shows all of them", async () => {
  await start();
  const long = `${"x".repeat(2000)}END`;
  server.open({ id: "h1", action: exec({ argv: ["sh", "-c", long] }) });
  await terminal.see(/ … 1\d\d\d more characters: press enter/);
  expectFits(80, 24);
  terminal.press(enter);
  await terminal.see("All of the hold");
  expect(terminal.frame).not.toContain("xEND");
  for (let line = 0; line < 20; line += 1) terminal.press("j");
  await terminal.see("xEND");
  terminal.press(leave);
  await terminal.see("Selected");
});

test("letters that join their neighbours make no line longer than the screen", async () => {
  await start();
  for (const [index, letters] of ["\u0e01\u0e33", "a\u0eb3", "\u0d4e\u0d4e", "\u{1f3fd}"].entries()) {
    server.open({ id: `h${index}`, action: exec({ argv: ["echo", letters.repeat(400)] }) });
    server.record(AuditRecord.fromPartial({ id: index + 1, kind: "exec", summary: letters.repeat(400) }));
  }
  await terminal.see("Holds (4)");
  await terminal.see(/more characters: press enter/);
  for (const line of stripVTControlCharacters(terminal.frame).split("\n")) {
    // As a terminal draws it: each code point by itself.
    const columns = [...line].reduce((sum, character) => sum + stringWidth(character), 0);
    expect(columns, line).toBeLessThanOrEqual(80);
  }
});

test("in a narrow terminal the command is seen before the hint about what is hidden, and prompts say which key does it", async () => {
  terminal = new Terminal(40, 12);
  await start();
  const argv = ["rm", "-rf", `/home/agent/${"x".repeat(80)}`];
  server.open({ id: "h1", action: exec({ argv }), sandbox: "a-sandbox-with-a-rather-long-name" });
  await terminal.see(/argv {3}rm -rf \/hom.* … \d+ more, enter/);
  await settle();
  terminal.press("d");
  terminal.press(..."not now");
  await terminal.see("deny; reason: not now");
  terminal.press(leave);
  await terminal.see("a approve  d deny");
  terminal.press("K");
  await terminal.see("y KILLS, tab: another, else not: a-san");
  expectFits(40, 12);
});

test("a terminal that is too small to see a hold in answers none", async () => {
  terminal = new Terminal(39, 12);
  terminal.show(<App socketPath={server.socketPath} />);
  await terminal.see("39 x 12 is too small");
  server.open({ id: "h1", action: exec({}) });
  await settle();
  terminal.press("a", "d", enter, "K", "y");
  terminal.resize(40, 9);
  await terminal.see("40 x 9 is too small");
  terminal.press("a");
  terminal.resize(80, 24);
  await terminal.see("git push origin main");
  expect([server.answers, server.kills]).toEqual([[], []]);
  await settle();
  terminal.press("a");
  await vi.waitFor(() => expect(server.answers).toHaveLength(1));
  terminal.resize(20, 5);
  await terminal.see("too small");
  terminal.press("q");
  await terminal.ended();
});

test("characters of two columns do not break the lines", async () => {
  await start();
  server.open({ id: "h1", action: exec({ argv: ["echo", "漢".repeat(300)] }) });
  await terminal.see("漢漢漢");
  expectFits(80, 24);
});

test("events appear as they are written, those of before included", async () => {
  const record = AuditRecord.fromPartial({
    id: 1,
    timeUs: 1e15,
    kind: "exec",
    summary: "ran ls",
    verdict: Verdict.ALLOW,
  });
  server.record(record);
  await start();
  await terminal.see(/allow +exec +ran ls/);
  server.record({
    ...record,
    id: 2,
    summary: "refused curl",
    verdict: Verdict.DENY,
    rule: "exec/curl",
    layer: "cache",
  });
  await terminal.see(/deny +exec +refused curl {2}\[exec\/curl, cache\]/);
  expect(terminal.frame.match(/ran ls/g)).toHaveLength(1);
});

test("the status line tells sandboxes, a missing loader and lost events", async () => {
  terminal = new Terminal(120, 24);
  await start();
  await terminal.see("loader connected, no events lost; openclaw running (3), second running (3)");
  server.status = {
    ...server.status,
    health: { second: { state: HealthState.UNHEALTHY, failures: 3, checkedUs: 1, detail: "x", rule: "" } },
  };
  await terminal.see("openclaw running (3), second running (3, unhealthy)");
  server.status = {
    ...server.status,
    loaderConnected: false,
    loader: "no socket",
    sandboxes: [],
    lostEvents: { "ring-full": 3 },
  };
  await terminal.see("loader: no socket, 3 events lost (ring-full); no sandboxes");
});

test("the status line names what runs before what has ended", async () => {
  const [running] = server.status.sandboxes;
  const ended = [SandboxState.EXITED, SandboxState.KILLED].map((state, index) =>
    SandboxInfo.fromPartial({ name: `ended-${index}`, state }),
  );
  server.status = { ...server.status, sandboxes: [...ended, running as SandboxInfo] };
  terminal = new Terminal(120, 24);
  await start();
  await terminal.see("; openclaw running (3), ended-0 exited,");
});

test("a supervisor that goes away is told, and when it is back holds are as it says", async () => {
  await start();
  server.open({ id: "h1", action: exec({}) });
  await terminal.see("git push");
  server.stop();
  await terminal.see("connecting again; the supervisor does not answer on its socket");
  terminal.press("a");
  await terminal.see("nothing can be answered now");
  server.forget("h1");
  server.open({ id: "h2", action: exec({ argv: ["rm", "x"] }) });
  await server.start();
  await terminal.see(/supervisor (and loader )?connect/);
  await terminal.see("rm x");
  expect(terminal.frame).not.toContain("git push");
  await settle();
  terminal.press("a");
  await terminal.see("approved: rm x");
});

test("a screen that starts before the supervisor connects when it comes", async () => {
  server.stop();
  terminal.show(<App socketPath={server.socketPath} />);
  await terminal.see("connecting again");
  await server.start();
  await terminal.see(/supervisor (and loader )?connect/);
});

test.each([
  [80, 24],
  [120, 40],
  [200, 60],
  [60, 15],
  [40, 10],
])(
  "at %i x %i many holds and events stay within the screen, the selected one in view",
  async (columns, rows) => {
    terminal = new Terminal(columns, rows);
    for (let index = 0; index < 40; index += 1) {
      server.open({
        id: `h${index}`,
        action: exec({ argv: ["run", `job-${index}`] }),
        openedUs: 1e15 + index,
        process: asking,
      });
      server.record(
        AuditRecord.fromPartial({
          id: index + 1,
          kind: "exec",
          summary: `event ${index} ${"y".repeat(300)}`,
        }),
      );
    }
    await start();
    await terminal.see("Holds (40)");
    for (let press = 0; press < 25; press += 1) terminal.press("j");
    await terminal.see("argv   run job-25");
    if (columns >= 60) expect(terminal.frame).toMatch(/> .*job-25/);
    expectFits(columns, rows);
    if (columns >= 80) await terminal.see("event 39");
    if (columns >= 120) expect(terminal.frame).toMatch(/Holds.*Selected/);
  },
);

test("a terminal that is resized is drawn anew to its size", async () => {
  await start();
  terminal.resize(130, 30);
  await terminal.see(/Holds.*Selected/);
  terminal.resize(80, 24);
  await vi.waitFor(() => expect(terminal.frame).not.toMatch(/Holds.*Selected/));
  expectFits(80, 24);
});

test("? shows the keys and any key goes back; q quits", async () => {
  await start();
  terminal.press("?");
  await terminal.see("approve it, this once");
  terminal.press("x");
  await terminal.see("nothing waits for an answer");
  terminal.press("q");
  await terminal.ended();
});
