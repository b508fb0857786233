// What rules and subjects are made of: terms of a hold, times, rates, arguments.

import * as n from "./names.js";
import {
  duration,
  either,
  integer,
  list,
  type Mapping,
  mapping,
  plain,
  type Shape,
  some,
  text,
  word,
} from "./shape.js";

export const HOLD: Mapping = {
  name: "hold",
  doc: "What happens to an action that waits for a person.",
  keys: {
    timeout: { doc: "How long it waits.", type: duration, default: "5m", example: "10m" },
    default: {
      doc: "What happens when nobody answers in time.",
      type: word(["deny", "allow"]),
      default: "deny",
    },
  },
};

const DAY = text(new RegExp(`^(?:${n.DAYS.join("|")})(?:-(?:${n.DAYS.join("|")}))?$`));

export const WINDOW: Mapping = {
  name: "window",
  doc: "A time of the week. A window that ends before it begins goes on past midnight and belongs to the day it begins on.",
  keys: {
    days: { doc: "Days, or ranges of them.", type: some(DAY), default: "sun-sat", example: "mon-fri" },
    from: { doc: "When it begins.", type: text(n.CLOCK), default: "00:00", example: "09:00" },
    to: {
      doc: "When it ends; `24:00` is the end of the day.",
      type: text(n.CLOCK),
      default: "24:00",
      example: "18:00",
    },
    timeZone: {
      doc: "A name of the IANA time zone database.",
      type: text(/^[A-Za-z]/),
      default: "UTC",
      example: "Europe/Berlin",
    },
  },
};

export const RATE: Mapping = {
  name: "rate",
  doc: "The rule matches at most `max` times within any `per`; what is beyond goes on to the next rule.",
  keys: {
    max: { doc: "How many times.", type: integer(1, n.MAX_RATE), required: true, example: 30 },
    per: { doc: "Within what time.", type: duration, required: true, example: "1m" },
  },
};

const FLAG_NAMES = text(
  new RegExp(`^(?:${n.FLAG.source.slice(1, -1)})(?:\\|(?:${n.FLAG.source.slice(1, -1)}))*$`),
);
const ARGUMENTS = list(plain(), 1);

export const ARGV: Mapping = {
  name: "argv",
  doc: "What the arguments must be. All that is said must hold. Arguments are those after the program's own name, which the caller chooses.",
  keys: {
    glob: {
      doc: "Patterns matched one by one against all arguments, the program's own name included. `*` is one, `**` any number. A list in place of the mapping means this.",
      type: ARGUMENTS,
      example: ["*", "push", "**"],
    },
    exact: {
      doc: "These arguments and no others, as they are written. An empty list means none.",
      type: list(plain()),
      example: ["status"],
    },
    prefix: { doc: "These arguments first, as they are written.", type: ARGUMENTS, example: ["push"] },
    regex: {
      doc: "RE2 expressions, each found in some argument; use `^` and `$` for the whole of it. They cannot backtrack. In a rule that restricts, `.` is a line break, too, as with `(?s)`; in one that permits, only where the expression says so.",
      type: some(text(/^[\s\S]{1,1000}$/)),
      example: "^--upload-pack=",
    },
    flags: {
      doc: "Flags that must all be there; `-r|-R|--recursive` names one flag with its spellings. `-rf` is `-r` and `-f`.",
      type: some(FLAG_NAMES),
      example: "-r|-R|--recursive",
    },
    without: { doc: "Flags none of which may be there.", type: some(FLAG_NAMES), example: "--dry-run|-n" },
    valued: {
      doc: "Flags that take a value in the same or the next argument, so that the value is not taken for a flag.",
      type: some(FLAG_NAMES),
      example: ["-C", "--git-dir"],
    },
  },
  constraints: [{ minProperties: 1 }, { not: { required: ["valued"], maxProperties: 1 } }],
};

/** A list of argument patterns, or the mapping. */
export const ARGV_SHAPE: Shape = either(ARGUMENTS, mapping(ARGV));
