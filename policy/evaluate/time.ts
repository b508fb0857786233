// Times of the week and rates. Without a moment, or with one that is no time, a rule that restricts holds at all times
// and one that permits at none.

import type { Moment } from "../evaluate.js";
import type { RuleBase, TimeWindow } from "../model.js";
import { restricts } from "./facts.js";

/** "when" or "rate" if the rule does not hold at this moment, else "". */
export function untimely(rule: RuleBase, moment: Moment | undefined, hasRate: boolean): "" | "when" | "rate" {
  if (rule.when.length > 0 && !rule.when.some((window) => isWithin(window, moment) ?? restricts(rule))) {
    return "when";
  }
  if (rule.rate === undefined || !hasRate) return "";
  const used = moment?.used?.(rule.id, rule.rate.perMs) ?? Number.NaN;
  // A number that is none: not known.
  const isLeft = Number.isNaN(used) ? restricts(rule) : used < rule.rate.max;
  return isLeft ? "" : "rate";
}

/** Undefined when the moment is not known. */
function isWithin(window: TimeWindow, moment: Moment | undefined): boolean | undefined {
  const local = moment === undefined ? undefined : localTime(window.timeZone, moment.timeMs);
  if (local === undefined) return undefined;
  const { day, minute } = local;
  const { days, fromMinute, toMinute } = window;
  if (toMinute > fromMinute) return days.includes(day) && minute >= fromMinute && minute < toMinute;
  // Past midnight: this day's part, or the rest of the day before.
  return (days.includes(day) && minute >= fromMinute) || (days.includes((day + 6) % 7) && minute < toMinute);
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatterFor(timeZone: string): Intl.DateTimeFormat {
  const known = formatters.get(timeZone);
  if (known !== undefined) return known;
  const options = {
    timeZone,
    hourCycle: "h23",
    weekday: "short",
    hour: "numeric",
    minute: "numeric",
  } as const;
  const formatter = new Intl.DateTimeFormat("en-US", options);
  formatters.set(timeZone, formatter);
  return formatter;
}

/** Day of the week (0 is Sunday) and minute of the day on a clock there; undefined for what is no time or no zone. */
function localTime(timeZone: string, timeMs: number): { day: number; minute: number } | undefined {
  try {
    const parts = formatterFor(timeZone).formatToParts(timeMs);
    const part = (type: string) => parts.find((p) => p.type === type)?.value ?? "";
    const day = DAYS.indexOf(part("weekday"));
    const minute = Number(part("hour")) * 60 + Number(part("minute"));
    return day < 0 || Number.isNaN(minute) ? undefined : { day, minute };
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
