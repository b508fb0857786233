// Locked rules under the others, rules that only observe, times and rates.

import { describe, expect, test } from "vitest";
import {
  CacheScope,
  ExecutableKind,
  FileOperation,
  NetworkProtocol,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import { type Action, evaluate, type Moment } from "../evaluate.js";
import type { Policy } from "../model.js";
import { connect, exec, file, policy } from "../testing/policy.js";

const said = (p: Policy, action: Action, moment?: Moment) => {
  const { verdict, rule, observed } = evaluate(p, action, moment);
  const seen = observed === undefined ? "" : `, would ${Verdict[observed.verdict]} ${observed.rule}`;
  return `${Verdict[verdict]} ${rule}${seen}`;
};
const run = (executable: string) => exec({ executable });
const observing = (p: Policy): Policy => ({ ...p, mode: "observe" });

describe("locked rules", () => {
  const p = policy(`exec:
  - { id: open, executable: "/usr/**", action: allow }
  - { id: closed, executable: "/opt/**", action: deny }
  - { id: asked, executable: "/srv/**", action: hold, because: the others say so }
  - { id: floor-hold, executable: "/{usr,opt,srv,var}/held/*", action: hold, locked: true, hold: { timeout: 2s } }
  - { id: floor-deny, executable: "/{usr,opt,srv}/{no,held/no}", action: deny, locked: true }
  - { id: second-hold, executable: "/usr/held/*", action: hold, locked: true }
`);
  test.each([
    ["ALLOW exec/open", "/usr/a"],
    ["DENY exec/floor-deny", "/usr/no"],
    ["DENY exec/floor-deny", "/opt/no"],
    ["HOLD exec/floor-hold", "/usr/held/a"],
    // Stricter is stricter, whoever says it.
    ["DENY exec/closed", "/opt/held/a"],
    ["DENY exec/default", "/var/held/a"],
    ["DENY exec/floor-deny", "/usr/held/no"],
    ["HOLD exec/floor-hold", "/srv/held/a"],
    ["HOLD exec/asked", "/srv/a"],
  ])("%s: %s", (expected, executable) => {
    expect(said(p, run(executable))).toBe(expected);
  });

  test("hold by their own terms", () => {
    expect(evaluate(p, run("/srv/held/a")).hold?.timeoutMs).toBe(2000);
    expect(evaluate(p, run("/srv/a")).hold?.timeoutMs).toBe(300_000);
  });

  test("deny where a held one's fact is not known, by the denial that is certain if there is one", () => {
    const q = policy(`exec:
  - { id: open, executable: "/usr/**", action: allow }
  - { id: under-dash, executable: "/usr/{held,no}/*", ancestor: /usr/bin/dash, action: hold, locked: true }
  - { id: certain, executable: "/usr/no/*", action: deny, locked: true }
`);
    // Who led to the caller is not known here.
    expect(said(q, { ...run("/usr/no/a"), process: undefined })).toBe("DENY exec/certain");
    expect(said(q, { ...run("/usr/held/a"), process: undefined })).toBe("DENY exec/under-dash");
    expect(said(q, { ...run("/usr/a"), process: undefined })).toBe("ALLOW exec/open");
  });

  test("stay enforced in a policy that observes", () => {
    const q = observing(p);
    expect(said(q, run("/usr/no"))).toBe("DENY exec/floor-deny");
    expect(said(q, run("/usr/held/a"))).toBe("HOLD exec/floor-hold");
    expect(said(q, run("/opt/held/a"))).toBe("HOLD exec/floor-hold, would DENY exec/closed");
    expect(said(q, run("/srv/held/a"))).toBe("HOLD exec/floor-hold");
    expect(said(q, run("/opt/a"))).toBe("ALLOW exec/closed, would DENY exec/closed");
  });

  test("that hold leave a name to be looked up only if the rest does", () => {
    const n = policy(`network:
  - { id: floor, host: "*.x.com", action: hold, locked: true }
  - { id: a, host: a.x.com, action: allow }
`);
    const lookup = (host: string) => said(n, connect(host, 53, "main", { protocol: NetworkProtocol.DNS }));
    expect(lookup("a.x.com")).toBe("ALLOW network/a");
    expect(lookup("b.x.com")).toBe("DENY network/default");
    expect(said(n, connect("a.x.com", 443))).toBe("HOLD network/floor");
    expect(said(n, connect("b.x.com", 443))).toBe("DENY network/default");
  });
});

describe("rules that observe", () => {
  const p = policy(`exec:
  - { id: quiet, executable: "/**", action: log, mode: observe }
  - { id: would-deny, executable: "/usr/bin/*", action: deny, mode: observe }
  - { id: would-hold, executable: "/{usr,opt}/**", action: hold, mode: observe }
  - { id: usr, executable: "/usr/**", action: allow }
`);
  test.each([
    ["ALLOW exec/usr, would DENY exec/would-deny", "/usr/bin/a"],
    ["ALLOW exec/usr, would HOLD exec/would-hold", "/usr/a"],
    ["DENY exec/default, would HOLD exec/would-hold", "/opt/a"],
    ["DENY exec/default", "/srv/a"],
  ])("decide nothing, and the first that restricts is kept: %s: %s", (expected, executable) => {
    expect(said(p, run(executable))).toBe(expected);
  });

  test("are asked about each time, so that each time is recorded", () => {
    expect(evaluate(p, run("/usr/bin/a")).cacheScope).toBe(CacheScope.NONE);
    const none = policy("exec:\n  - { id: usr, executable: /usr/**, action: allow }");
    expect(evaluate(none, run("/usr/bin/a")).cacheScope).toBe(CacheScope.FILE);
  });

  test("see a lookup only as far as it would be refused", () => {
    const n = policy(`network:
  - { id: no, host: n.x.com, action: deny, mode: observe }
  - { id: ask, host: h.x.com, action: hold, mode: observe }
  - { id: all, host: "*", action: allow }
`);
    const lookup = (host: string) => said(n, connect(host, 53, "main", { protocol: NetworkProtocol.DNS }));
    expect(lookup("n.x.com")).toBe("ALLOW network/all, would DENY network/no");
    expect(lookup("h.x.com")).toBe("ALLOW network/all");
    expect(said(n, connect("h.x.com", 443))).toBe("ALLOW network/all, would HOLD network/ask");
  });
});

describe("a policy that observes", () => {
  const p = observing(
    policy(`exec:
  - { id: seen, executable: /usr/bin/a, action: hold, mode: observe }
  - { id: usr, executable: "/usr/**", action: log, severity: high, tags: [x] }
  - { id: opt, executable: "/opt/**", action: hold, severity: critical, tags: [y] }
file:
  - { id: notes, path: /home/agent/notes, operations: [delete], action: deny }
  - { id: data, path: /data/kept, operations: [delete], action: deny }
`),
  );
  test.each([
    ["LOG exec/usr", run("/usr/x")],
    ["LOG exec/usr, would HOLD exec/seen", run("/usr/bin/a")],
    ["ALLOW exec/opt, would HOLD exec/opt", run("/opt/x")],
    ["ALLOW exec/default, would DENY exec/default", run("/srv/x")],
    [
      "ALLOW exec/default, would DENY exec/default",
      exec({ executable: "/m", kind: ExecutableKind.ANONYMOUS }),
    ],
    ["DENY file/default, would DENY file/data", file(FileOperation.DELETE, "/data/kept")],
    ["ALLOW file/notes, would DENY file/notes", file(FileOperation.DELETE, "/home/agent/notes/a")],
    // What is not understood, and what no mount grants, is refused as ever.
    ["DENY exec/unknown-file", exec({ executable: "x" })],
    ["DENY file/default", file(FileOperation.DELETE, "/data/x")],
    ["DENY network/unknown-peer", connect("", 443)],
    ["ALLOW network/default, would DENY network/default", connect("x.com", 443)],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("keeps no answer, tells the caller nothing and holds nothing", () => {
    const evaluation = evaluate(p, run("/opt/x"));
    expect(evaluation).toMatchObject({ message: "", hold: undefined, cacheScope: CacheScope.NONE });
    expect(evaluation).toMatchObject({ severity: "critical", tags: ["y"] });
    expect(evaluate(p, run("/srv/x"))).toMatchObject({ severity: "info", tags: [], message: "" });
  });
});

describe("times of the week", () => {
  const p = (when: string, action = "allow") =>
    policy(
      `defaults: { exec: deny }\nexec:\n  - { id: r, executable: /a, when: ${when}, action: ${action} }`,
    );
  const at = (when: string, time: string) =>
    said(p(when), run("/a"), { timeMs: Date.parse(time) }) === "ALLOW exec/r";
  const OFFICE = '{ days: [mon-fri], from: "09:00", to: "18:00", timeZone: Europe/Berlin }';
  const NIGHT = '{ days: [fri], from: "22:00", to: "06:00" }';
  test.each([
    // 2026-11-23 is a Monday; Berlin is one hour ahead of UTC then.
    [OFFICE, "2026-11-23T08:00:00Z", true],
    [OFFICE, "2026-11-23T07:59:59Z", false],
    [OFFICE, "2026-11-23T16:59:59Z", true],
    [OFFICE, "2026-11-23T17:00:00Z", false],
    [OFFICE, "2026-11-22T12:00:00Z", false],
    // In summer, two hours.
    [OFFICE, "2026-07-20T07:00:00Z", true],
    [OFFICE, "2026-07-20T16:30:00Z", false],
    [NIGHT, "2026-11-27T22:00:00Z", true],
    [NIGHT, "2026-11-28T05:59:00Z", true],
    [NIGHT, "2026-11-28T06:00:00Z", false],
    [NIGHT, "2026-11-28T22:00:00Z", false],
    [NIGHT, "2026-11-27T05:00:00Z", false],
    ['{ days: [sat], from: "22:00", to: "06:00" }', "2026-11-29T05:00:00Z", true],
    ['{ days: [mon], from: "00:00", to: "24:00" }', "2026-11-23T23:59:59Z", true],
    ['{ days: [mon], from: "00:00", to: "24:00" }', "2026-11-24T00:00:00Z", false],
    [`[${OFFICE}, ${NIGHT}]`, "2026-11-28T01:00:00Z", true],
    [`[${OFFICE}, ${NIGHT}]`, "2026-11-28T12:00:00Z", false],
    // The hour that a clock shows twice is the same hour both times.
    ['{ from: "02:00", to: "03:00", timeZone: Europe/Berlin }', "2026-10-25T00:30:00Z", true],
    ['{ from: "02:00", to: "03:00", timeZone: Europe/Berlin }', "2026-10-25T01:30:00Z", true],
    ['{ from: "02:00", to: "03:00", timeZone: Europe/Berlin }', "2026-10-25T02:30:00Z", false],
  ])("%s at %s: %s", (when, time, expected) => {
    expect(at(when, time)).toBe(expected);
  });

  test("that are not known restrict always and permit never", () => {
    for (const moment of [undefined, { timeMs: Number.NaN }, { timeMs: 1e300 }]) {
      expect(said(p(OFFICE), run("/a"), moment)).toBe("DENY exec/default");
      expect(said(p(OFFICE, "hold"), run("/a"), moment)).toBe("HOLD exec/r");
    }
  });

  test("make answers that hold once, both ways", () => {
    const sunday = { timeMs: Date.parse("2026-11-22T12:00:00Z") };
    expect(evaluate(p(OFFICE), run("/a"), sunday).cacheScope).toBe(CacheScope.NONE);
    expect(evaluate(p(OFFICE), run("/b"), sunday).cacheScope).toBe(CacheScope.FILE);
  });
});

describe("rates", () => {
  const p = policy(`exec:
  - { id: some, executable: /a, rate: { max: 2, per: 1m }, action: allow }
  - { id: ask, executable: /a, rate: { max: 3, per: 1h }, action: hold }
network:
  - { id: few, host: x.com, rate: { max: 2, per: 1m }, action: allow }
`);
  const used = (counts: Record<string, number>): Moment => ({
    timeMs: 0,
    used: (rule, perMs) => (perMs === (rule === "exec/ask" ? 3_600_000 : 60_000) ? (counts[rule] ?? 0) : 99),
  });
  test.each([
    ["ALLOW exec/some", used({})],
    ["ALLOW exec/some", used({ "exec/some": 1 })],
    ["HOLD exec/ask", used({ "exec/some": 2 })],
    ["HOLD exec/ask", used({ "exec/some": 2, "exec/ask": 2 })],
    ["DENY exec/default", used({ "exec/some": 2, "exec/ask": 3 })],
    // Not known: nothing is permitted by it, and what restricts does.
    ["HOLD exec/ask", undefined],
    ["HOLD exec/ask", { timeMs: 0 }],
    ["HOLD exec/ask", { timeMs: 0, used: () => Number.NaN }],
    ["DENY exec/default", { timeMs: 0, used: () => Number.POSITIVE_INFINITY }],
  ] as [string, Moment | undefined][])("%s: %j", (expected, moment) => {
    expect(said(p, run("/a"), moment)).toBe(expected);
  });

  test("count the rules that matched, and no others", () => {
    expect(evaluate(p, run("/a"), used({})).counted).toEqual(["exec/some"]);
    expect(evaluate(p, run("/a"), used({ "exec/some": 2 })).counted).toEqual(["exec/ask"]);
    expect(evaluate(p, run("/b"), used({})).counted).toEqual([]);
    expect(evaluate(p, run("/a"), used({})).cacheScope).toBe(CacheScope.NONE);
  });

  test("are of connections, not of the lookups before them", () => {
    const lookup = connect("x.com", 53, "main", { protocol: NetworkProtocol.DNS });
    expect(evaluate(p, lookup, used({ "network/few": 5 }))).toMatchObject({
      verdict: Verdict.ALLOW,
      counted: [],
    });
    expect(said(p, connect("x.com", 443), used({ "network/few": 5 }))).toBe("DENY network/default");
    expect(evaluate(p, connect("x.com", 443), used({})).counted).toEqual(["network/few"]);
  });
});
