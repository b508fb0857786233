import {
  type AuditRecord,
  type Hold,
  type HoldChange,
  HoldChangeKind,
  HoldOutcome,
  type StatusResponse,
} from "../proto/gen/clawsec/v1/control.js";

/** What the screen shows, and nothing else. All times are milliseconds since the Unix epoch. */
export interface State {
  readonly connection: Connection;
  readonly status: StatusResponse | undefined;
  /** Open holds, the oldest first: a new one never moves those that are there. */
  readonly holds: readonly Hold[];
  readonly selectedId: string | undefined;
  /** When the selection last moved without a key: a key meant for another hold may be on its way. */
  readonly movedAt: number;
  /** Holds whose answer is on its way. */
  readonly answering: ReadonlySet<string>;
  /** The newest records, oldest first. */
  readonly events: readonly AuditRecord[];
  readonly mode: Mode;
  readonly notice: Notice | undefined;
}

export type Connection =
  | { readonly kind: "connecting" }
  | { readonly kind: "connected" }
  /** `why` is one sentence. */
  | { readonly kind: "gone"; readonly why: string };

export type Mode =
  | { readonly kind: "list" }
  | { readonly kind: "help" }
  /** All of one hold, from line `top` on. */
  | { readonly kind: "details"; readonly holdId: string; readonly top: number }
  | { readonly kind: "deny"; readonly holdId: string; readonly reason: string }
  /** Which of `targets` is asked about. */
  | { readonly kind: "kill"; readonly targets: readonly KillTarget[]; readonly index: number };

export type KillTarget = { readonly kind: "sandbox"; readonly name: string } | { readonly kind: "all" };

export interface Notice {
  readonly text: string;
  readonly level: "info" | "error";
}

export type Action =
  | { readonly kind: "connected"; readonly status: StatusResponse }
  | { readonly kind: "gone"; readonly why: string }
  | { readonly kind: "status"; readonly status: StatusResponse }
  | { readonly kind: "hold"; readonly change: HoldChange; readonly now: number }
  | { readonly kind: "audit"; readonly records: readonly AuditRecord[] }
  | { readonly kind: "select"; readonly by: number }
  | { readonly kind: "mode"; readonly mode: Mode; readonly notice?: Notice }
  | { readonly kind: "answering"; readonly holdId: string }
  | { readonly kind: "answered"; readonly holdId: string; readonly notice: Notice }
  | { readonly kind: "notice"; readonly notice: Notice };

/** Events kept for the screen; the audit keeps all. */
const keptEvents = 200;

export const initial: State = {
  connection: { kind: "connecting" },
  status: undefined,
  holds: [],
  selectedId: undefined,
  movedAt: 0,
  answering: new Set(),
  events: [],
  mode: { kind: "list" },
  notice: undefined,
};

export function selectedHold(state: State): Hold | undefined {
  return state.holds.find(({ id }) => id === state.selectedId);
}

export function reduce(state: State, action: Action): State {
  switch (action.kind) {
    case "connected":
      // The supervisor sends every open hold again; one that ended in between must not stay.
      return {
        ...initial,
        connection: { kind: "connected" },
        status: action.status,
        events: state.events,
      };
    case "gone":
      return { ...state, connection: { kind: "gone", why: action.why } };
    case "status":
      return { ...state, status: action.status };
    case "hold":
      return changeHold(state, action.change, action.now);
    case "audit":
      return {
        ...state,
        events: [...state.events, ...newer(state.events, action.records)].slice(-keptEvents),
      };
    case "select":
      return select(state, action.by);
    case "mode":
      return { ...state, mode: action.mode, notice: action.notice };
    case "answering":
      return { ...state, answering: new Set([...state.answering, action.holdId]), notice: undefined };
    case "answered": {
      const answering = new Set(state.answering);
      answering.delete(action.holdId);
      return { ...state, answering, notice: action.notice };
    }
    case "notice":
      return { ...state, notice: action.notice };
  }
}

function changeHold(state: State, { kind, hold }: HoldChange, now: number): State {
  if (hold === undefined) return state;
  const open = kind !== HoldChangeKind.ENDED && hold.outcome === HoldOutcome.OPEN;
  return open ? putHold(state, hold, now) : endHold(state, hold, now);
}

function putHold(state: State, hold: Hold, now: number): State {
  const others = state.holds.filter(({ id }) => id !== hold.id);
  const holds = [...others, hold].sort((a, b) => a.openedUs - b.openedUs || (a.id < b.id ? -1 : 1));
  if (state.selectedId !== undefined) return { ...state, holds };
  return { ...state, holds, selectedId: hold.id, movedAt: now };
}

function endHold(state: State, hold: Hold, now: number): State {
  const index = state.holds.findIndex(({ id }) => id === hold.id);
  const holds = state.holds.filter(({ id }) => id !== hold.id);
  const next: State = { ...leaveModeOf(state, hold), holds };
  if (state.selectedId !== hold.id) return next;
  return { ...next, selectedId: holds[Math.min(Math.max(index, 0), holds.length - 1)]?.id, movedAt: now };
}

/** A prompt about a hold that has ended closes and says so; an answer would be an error. */
function leaveModeOf(state: State, hold: Hold): State {
  const { mode } = state;
  if (!(mode.kind === "deny" || mode.kind === "details") || mode.holdId !== hold.id) return state;
  return {
    ...state,
    mode: { kind: "list" },
    notice: { text: `the hold ended meanwhile: ${outcomeText(hold)}`, level: "info" },
  };
}

/** How a hold ended, for people. The caller escapes `answeredBy` before it draws it. */
export function outcomeText({ outcome, answeredBy }: Hold): string {
  const by = answeredBy === "" ? "" : ` by ${answeredBy}`;
  switch (outcome) {
    case HoldOutcome.ALLOWED:
      return `allowed${by}`;
    case HoldOutcome.DENIED:
      return `denied${by}`;
    case HoldOutcome.EXPIRED:
      return "nobody answered in time";
    case HoldOutcome.REQUESTER_GONE:
      return "whoever asked is gone";
    case HoldOutcome.OPEN:
    case HoldOutcome.UNSPECIFIED:
      return "open";
  }
}

function select(state: State, by: number): State {
  if (state.holds.length === 0) return state;
  const index = state.holds.findIndex(({ id }) => id === state.selectedId);
  const next = Math.min(Math.max(index + by, 0), state.holds.length - 1);
  return { ...state, selectedId: state.holds[next]?.id, notice: undefined };
}

function newer(known: readonly AuditRecord[], records: readonly AuditRecord[]): AuditRecord[] {
  const last = known.at(-1)?.id ?? 0;
  return records.filter(({ id }) => id > last);
}
