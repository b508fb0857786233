import { expect, test } from "vitest";
import { Hold, HoldChangeKind, HoldOutcome, StatusResponse } from "../proto/gen/clawsec/v1/control.js";
import { SandboxState } from "../proto/gen/clawsec/v1/loader.js";
import { intent, type Keys, settleMs } from "./keymap.js";
import { type Action, initial, reduce, type State } from "./store.js";

const none: Keys = {
  upArrow: false,
  downArrow: false,
  return: false,
  escape: false,
  tab: false,
  backspace: false,
  delete: false,
  ctrl: false,
  meta: false,
};
const later = 10_000;

function status(...names: string[]): StatusResponse {
  const sandboxes = names.map((name) => ({ name, state: SandboxState.RUNNING }));
  return StatusResponse.fromPartial({ sandboxes });
}

function change(id: string, openedUs = 1, outcome = HoldOutcome.OPEN): Action {
  const kind = outcome === HoldOutcome.OPEN ? HoldChangeKind.OPENED : HoldChangeKind.ENDED;
  return {
    kind: "hold",
    now: 0,
    change: { kind, hold: Hold.fromPartial({ id, sandbox: "one", openedUs, outcome }) },
  };
}

function after(...actions: Action[]): State {
  return actions.reduce(reduce, initial);
}

const connected: Action = { kind: "connected", status: status("one", "two") };

test("a approves the selected hold once it has been selected for a moment", () => {
  const state = after(connected, change("h1"));
  expect(intent(state, "a", none, settleMs)).toEqual({ kind: "approve", holdId: "h1" });
  expect(intent(state, "a", none, settleMs - 1)).toMatchObject({ kind: "notice" });
});

test("when the selected hold ends, a key meant for it does not answer its neighbour", () => {
  const state = reduce(after(connected, change("h1", 1), change("h2", 2)), {
    ...(change("h1", 1, HoldOutcome.EXPIRED) as Extract<Action, { kind: "hold" }>),
    now: later,
  });
  expect(state.selectedId).toBe("h2");
  expect(intent(state, "a", none, later + 100)).toMatchObject({ kind: "notice" });
  expect(intent(state, "a", none, later + settleMs)).toEqual({ kind: "approve", holdId: "h2" });
});

test("a new hold moves neither the selection nor the older holds", () => {
  const state = after(connected, change("h1", 1), change("h3", 3), change("h2", 2));
  expect(state.selectedId).toBe("h1");
  expect(state.holds.map(({ id }) => id)).toEqual(["h1", "h2", "h3"]);
});

test("pasted text and letters with Alt or Ctrl answer nothing", () => {
  const state = after(connected, change("h1"));
  expect(intent(state, "aa", none, later)).toBeUndefined();
  expect(intent(state, "a", { ...none, meta: true }, later)).toBeUndefined();
  expect(intent(state, "a", { ...none, ctrl: true }, later)).toBeUndefined();
});

test("nothing is answered while the supervisor is gone, or twice", () => {
  const open = after(connected, change("h1"));
  expect(intent(reduce(open, { kind: "gone", why: "x" }), "a", none, later)).toMatchObject({
    kind: "notice",
  });
  expect(intent(reduce(open, { kind: "answering", holdId: "h1" }), "a", none, later)).toMatchObject({
    kind: "notice",
  });
});

test("only y kills, and only after K; tab goes through the sandboxes to all of them and round", () => {
  let state = after(connected, change("h1"));
  expect(intent(state, "y", none, later)).toBeUndefined();
  state = reduce(state, intent(state, "K", none, later) as Action);
  expect(intent(state, "y", none, later)).toEqual({
    kind: "killNow",
    target: { kind: "sandbox", name: "one" },
  });
  for (const wrong of ["Y", "n", "", "yy", "K"])
    expect(intent(state, wrong, none, later)).toMatchObject({ kind: "mode", mode: { kind: "list" } });
  const asked = [];
  for (let press = 0; press < 3; press += 1) {
    state = reduce(state, intent(state, "", { ...none, tab: true }, later) as Action);
    asked.push(intent(state, "y", none, later));
  }
  expect(asked).toEqual([
    { kind: "killNow", target: { kind: "sandbox", name: "two" } },
    { kind: "killNow", target: { kind: "all" } },
    { kind: "killNow", target: { kind: "sandbox", name: "one" } },
  ]);
});

test("a deny prompt takes a reason, keeps control characters out of it, and can be left", () => {
  let state = after(connected, change("h1"));
  for (const [input, key] of [
    ["d", none],
    ["no\x1b\n", none],
    ["w", none],
    ["x", none],
    ["", { ...none, backspace: true }],
  ] as const)
    state = reduce(state, intent(state, input, key, later) as Action);
  expect(intent(state, "", { ...none, return: true }, later)).toEqual({
    kind: "refuse",
    holdId: "h1",
    reason: "now",
  });
  expect(intent(state, "", { ...none, escape: true }, later)).toMatchObject({ mode: { kind: "list" } });
});

test("a prompt about a hold that ends closes and says how it ended", () => {
  let state = after(connected, change("h1"), change("h2"));
  state = reduce(state, intent(state, "d", none, later) as Action);
  state = reduce(state, change("h1", 1, HoldOutcome.REQUESTER_GONE));
  expect(state.mode).toEqual({ kind: "list" });
  expect(state.notice?.text).toContain("whoever asked is gone");
});

test("a new connection forgets holds that the supervisor no longer has", () => {
  const state = after(connected, change("h1"), { kind: "gone", why: "x" }, connected, change("h2"));
  expect(state.holds.map(({ id }) => id)).toEqual(["h2"]);
  expect(state.selectedId).toBe("h2");
});
