// `when`: times of the week in which a rule holds.

import { CLOCK, DAYS } from "../language/names.js";
import { WINDOW } from "../language/parts.js";
import { keysOf } from "../language/shape.js";
import type { TimeWindow } from "../model.js";
import { type Context, didYouMean, Fields, type Node } from "./context.js";
import * as v from "./values.js";

export const ALL_DAYS: readonly number[] = [0, 1, 2, 3, 4, 5, 6];
const MINUTES_OF_DAY = 24 * 60;

/** One window, or a list of them. */
export function readWindows(context: Context, node: Node): TimeWindow[] {
  return v.oneOrMore(context, node, '"when"', (n) => readWindow(context, n));
}

function readWindow(context: Context, node: Node): TimeWindow | undefined {
  const fields = Fields.of(context, node, '"when"', keysOf(WINDOW));
  if (fields === undefined) return undefined;
  const before = context.diagnostics.length;
  const days = fields.has("days")
    ? fields.each("days", "days", (n) => readDays(context, n)).flat()
    : ALL_DAYS;
  const from = fields.read("from", (n) => clock(context, n, MINUTES_OF_DAY - 1)) ?? 0;
  const to = fields.read("to", (n) => clock(context, n, MINUTES_OF_DAY)) ?? MINUTES_OF_DAY;
  const timeZone = fields.read("timeZone", (n) => readTimeZone(context, n)) ?? "UTC";
  if (context.diagnostics.length > before) return undefined;
  return {
    days: ALL_DAYS.filter((day) => days.includes(day)),
    fromMinute: from,
    // Midnight as an end is the end of the day.
    toMinute: to === 0 ? MINUTES_OF_DAY : to,
    timeZone,
  };
}

/** "mon", or "fri-mon" with all days from the one to the other. */
function readDays(context: Context, node: Node): number[] | undefined {
  const value = v.text(context, node, "a day");
  if (value === undefined) return undefined;
  const [first = "", last = first, ...rest] = value.split("-");
  const known: readonly string[] = DAYS;
  const from = known.indexOf(first);
  const to = known.indexOf(last);
  if (from < 0 || to < 0 || rest.length > 0) {
    return context.error(
      node.origin,
      "value",
      `"${value}" is not a day of the week`,
      from < 0 && rest.length === 0 ? didYouMean(first, known) : 'Write "mon", or "mon-fri".',
    );
  }
  return Array.from({ length: ((to - from + 7) % 7) + 1 }, (_, i) => (from + i) % 7);
}

/** Minutes after midnight of "09:30". */
function clock(context: Context, node: Node, latest: number): number | undefined {
  const value = v.text(context, node, "a time of day");
  if (value === undefined) return undefined;
  const parts = CLOCK.exec(value);
  const minutes = Number(parts?.[1]) * 60 + Number(parts?.[2]);
  if (parts === null || minutes > latest) {
    return context.error(
      node.origin,
      "value",
      `"${value}" is not a time of day`,
      'Write it like "09:00"; a window may end at "24:00".',
    );
  }
  return minutes;
}

/** Making a formatter is slow, and a policy uses few time zones. */
const knownZones = new Map<string, boolean>();

function isTimeZone(name: string): boolean {
  const known = knownZones.get(name);
  if (known !== undefined) return known;
  let valid = /^[A-Za-z][A-Za-z0-9_+/-]*$/.test(name);
  try {
    if (valid) new Intl.DateTimeFormat("en", { timeZone: name });
  } catch {
    valid = false;
  }
  if (knownZones.size < 1000) knownZones.set(name, valid);
  return valid;
}

function readTimeZone(context: Context, node: Node): string | undefined {
  const value = v.text(context, node, "the time zone");
  if (value === undefined) return undefined;
  if (!isTimeZone(value)) {
    return context.error(
      node.origin,
      "value",
      `"${value}" is not a time zone`,
      'Use a name of the IANA database such as "Europe/Berlin", or "UTC".',
    );
  }
  return value;
}
