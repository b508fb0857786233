import type { Key } from "ink";
import type { Hold } from "../proto/gen/clawsec/v1/control.js";
import { SandboxState } from "../proto/gen/clawsec/v1/loader.js";
import { type Action, type KillTarget, type Mode, type State, selectedHold } from "./store.js";

/** What a key asks for. Effects are carried out by the screen's owner. */
export type Intent =
  | Action
  | { readonly kind: "approve"; readonly holdId: string }
  | { readonly kind: "refuse"; readonly holdId: string; readonly reason: string }
  | { readonly kind: "killNow"; readonly target: KillTarget }
  | { readonly kind: "quit" };

export type Keys = Pick<
  Key,
  "upArrow" | "downArrow" | "return" | "escape" | "tab" | "backspace" | "delete" | "ctrl" | "meta"
>;

/**
 * After the selection moved by itself, answers wait this long: a key that was meant for the hold which just
 * went away must not decide about its neighbour. A person needs about 300 ms to react to what they see.
 */
export const settleMs = 600;

/** The longest reason that can be typed. */
const longestReason = 200;

export const help: readonly (readonly [string, string])[] = [
  ["up, k / down, j", "select a hold"],
  ["enter", "show all of the selected hold"],
  ["a", "approve it, this once"],
  ["d", "deny it, with a reason if you like"],
  ["K", "kill a sandbox, or all; asks first"],
  ["?", "this page"],
  ["q, Ctrl-C", "quit; holds stay open until their deadline"],
];

/** Pure: the same key in the same state at the same time (`now`, ms) asks for the same thing. */
export function intent(state: State, input: string, key: Keys, now: number): Intent | undefined {
  if (key.ctrl) return input === "c" ? { kind: "quit" } : undefined;
  // Alt and a letter is not that letter. Escape alone counts as meta too.
  if (key.meta && !key.escape) return undefined;
  switch (state.mode.kind) {
    case "list":
      return inList(state, input, key, now);
    case "help":
      return toList;
    case "details":
      return inDetails(state, state.mode, input, key, now);
    case "deny":
      return inDeny(state.mode, input, key);
    case "kill":
      return inKill(state.mode, input, key);
  }
}

const toList: Intent = { kind: "mode", mode: { kind: "list" } };

function inList(state: State, input: string, key: Keys, now: number): Intent | undefined {
  const hold = selectedHold(state);
  if (key.upArrow || input === "k") return { kind: "select", by: -1 };
  if (key.downArrow || input === "j") return { kind: "select", by: 1 };
  if (key.return && hold) return { kind: "mode", mode: { kind: "details", holdId: hold.id, top: 0 } };
  switch (input) {
    case "a":
    case "d":
      return answer(state, hold, input, now);
    case "K":
      return askKill(state);
    case "?":
      return { kind: "mode", mode: { kind: "help" } };
    case "q":
      return { kind: "quit" };
    default:
      return undefined;
  }
}

function inDetails(
  state: State,
  mode: Extract<Mode, { kind: "details" }>,
  input: string,
  key: Keys,
  now: number,
): Intent | undefined {
  if (key.upArrow || input === "k")
    return { kind: "mode", mode: { ...mode, top: Math.max(0, mode.top - 1) } };
  if (key.downArrow || input === "j") return { kind: "mode", mode: { ...mode, top: mode.top + 1 } };
  if (input === "a" || input === "d") {
    const hold = state.holds.find(({ id }) => id === mode.holdId);
    return answer(state, hold, input, now);
  }
  if (key.escape || key.return || input === "q") return toList;
  return undefined;
}

function answer(state: State, hold: Hold | undefined, input: "a" | "d", now: number): Intent {
  if (hold === undefined) return info("no hold is selected");
  if (state.connection.kind !== "connected")
    return info("the supervisor is not connected, so nothing can be answered now");
  if (state.answering.has(hold.id)) return info("the answer to this hold is on its way");
  if (now - state.movedAt < settleMs) return info("the selection has just moved; look, and press again");
  if (input === "a") return { kind: "approve", holdId: hold.id };
  return { kind: "mode", mode: { kind: "deny", holdId: hold.id, reason: "" } };
}

function inDeny(mode: Extract<Mode, { kind: "deny" }>, input: string, key: Keys): Intent | undefined {
  if (key.escape) return toList;
  if (key.return) return { kind: "refuse", holdId: mode.holdId, reason: mode.reason.trim() };
  const { reason } = mode;
  const next = key.backspace || key.delete ? [...reason].slice(0, -1).join("") : reason + typed(input);
  return { kind: "mode", mode: { ...mode, reason: next.slice(0, longestReason) } };
}

/** The printable part of what was typed or pasted. */
function typed(input: string): string {
  return input.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, "");
}

function askKill(state: State): Intent {
  if (state.connection.kind !== "connected")
    return info("the supervisor is not connected; `clawsec kill` works without it");
  const first = selectedHold(state)?.sandbox;
  const live = (state.status?.sandboxes ?? [])
    .filter(({ state }) => state === SandboxState.CREATED || state === SandboxState.RUNNING)
    .map(({ name }) => name);
  const names = [...new Set(first === undefined ? live : [first, ...live])];
  if (names.length === 0) return info("no sandbox is running");
  const targets: KillTarget[] = [
    ...names.map((name) => ({ kind: "sandbox" as const, name })),
    { kind: "all" },
  ];
  return { kind: "mode", mode: { kind: "kill", targets, index: 0 } };
}

function inKill(mode: Extract<Mode, { kind: "kill" }>, input: string, key: Keys): Intent {
  const by = key.tab || key.downArrow ? 1 : key.upArrow ? -1 : 0;
  if (by !== 0) {
    const count = mode.targets.length;
    return { kind: "mode", mode: { ...mode, index: (mode.index + by + count) % count } };
  }
  const target = mode.targets[mode.index];
  if (input === "y" && target) return { kind: "killNow", target };
  return { kind: "mode", mode: { kind: "list" }, notice: { text: "nothing was killed", level: "info" } };
}

function info(text: string): Intent {
  return { kind: "notice", notice: { text, level: "info" } };
}
