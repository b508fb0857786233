// Readers of single values. Each reports what is wrong and returns undefined then; none throws.

import { DURATION, SHA256, SIZE } from "../language/names.js";
import { argumentPatternError } from "../match/argv.js";
import { formatCidr, parseCidr } from "../match/cidr.js";
import { escapeGlob } from "../match/glob.js";
import { hostPatternError, normalizeHost } from "../match/host.js";
import { isCanonical, pathPatternError } from "../match/path.js";
import type { Ports } from "../model.js";
import { type Context, describe, didYouMean, type Fields, type Node } from "./context.js";

export { list, oneOrMore } from "./context.js";

/** Longest text value. */
const MAX_TEXT = 8192;

const DECLARE = 'Declare it under "variables".';

interface TextOptions {
  /** Makes a variable's value stand for itself, where the text is a pattern. */
  readonly escape?: (value: string) => string;
  /** Numbers and booleans are taken as they are written. */
  readonly plain?: boolean;
}

/** Text with its variables filled in. */
export function text(
  context: Context,
  node: Node,
  what: string,
  options: TextOptions = {},
): string | undefined {
  const isText = node.kind === "scalar" && typeof node.value === "string";
  const isPlain = node.kind === "scalar" && node.value !== null && options.plain === true;
  if (!isText && !isPlain) {
    return context.error(
      node.origin,
      "type",
      `${what} must be text, not ${describe(node)}`,
      node.kind === "scalar" && node.value !== null ? "Put it in quotes." : "",
    );
  }
  const expansion = context.variables.expand(node.text, options.escape);
  for (const name of expansion.unknown) {
    const known = context.variables.names();
    const remedy = known.length === 0 ? DECLARE : `${didYouMean(name, known)} Else: ${DECLARE}`;
    context.error(node.origin, "unknown-variable", `unknown variable "${name}"`, remedy);
  }
  for (const name of expansion.unset) {
    context.error(
      node.origin,
      "unset-variable",
      `the variable "${name}" has no value`,
      `Give one: --var ${name}=VALUE.`,
    );
  }
  if (expansion.unknown.length + expansion.unset.length > 0) return undefined;
  if (expansion.text.length > MAX_TEXT) {
    return context.error(node.origin, "value", `${what} is longer than ${MAX_TEXT} characters`);
  }
  return expansion.text;
}

/** Text that must not be empty. */
export function nonEmpty(
  context: Context,
  node: Node,
  what: string,
  options: TextOptions = {},
): string | undefined {
  const value = text(context, node, what, options);
  if (value === "")
    return context.error(
      node.origin,
      "value",
      `${what} must not be empty`,
      "Write something, or leave it out.",
    );
  return value;
}

export function matching(
  context: Context,
  node: Node,
  what: string,
  grammar: RegExp,
  remedy: string,
): string | undefined {
  const value = text(context, node, what);
  if (value === undefined) return undefined;
  if (!grammar.test(value))
    return context.error(node.origin, "value", `${what} "${value}" is not one`, remedy);
  return value;
}

export function oneOf<T extends string>(
  context: Context,
  node: Node,
  what: string,
  known: readonly T[],
): T | undefined {
  const value = text(context, node, what);
  if (value === undefined) return undefined;
  const found = known.find((k) => k === value);
  if (found === undefined)
    return context.error(node.origin, "value", `${what} cannot be "${value}"`, didYouMean(value, known));
  return found;
}

export function bool(context: Context, node: Node, what: string): boolean | undefined {
  if (node.kind === "scalar" && typeof node.value === "boolean") return node.value;
  return context.error(node.origin, "type", `${what} must be true or false, not ${describe(node)}`, UNQUOTED);
}

const UNQUOTED = "Write it without quotes.";

/** A number, or text that became one through a variable. */
function number(context: Context, node: Node, what: string): number | undefined {
  if (node.kind === "scalar" && typeof node.value === "number") return node.value;
  if (node.kind === "scalar" && typeof node.value === "string" && node.value.includes("${")) {
    const value = text(context, node, what);
    if (value === undefined) return undefined;
    if (/^[0-9]+(?:\.[0-9]+)?$/.test(value)) return Number(value);
  }
  return context.error(node.origin, "type", `${what} must be a number, not ${describe(node)}`, UNQUOTED);
}

export function integer(
  context: Context,
  node: Node,
  what: string,
  min: number,
  max: number,
): number | undefined {
  const value = number(context, node, what);
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || value < min || value > max) {
    const limit = value < min ? `The least is ${min}.` : `The most is ${max}.`;
    const remedy = Number.isInteger(value) ? limit : "Round it.";
    const message = `${what} must be a whole number from ${min} to ${max}, not ${value}`;
    return context.error(node.origin, "value", message, remedy);
  }
  return value;
}

/** cpus, in thousandths. */
export function milliCpus(context: Context, node: Node, what: string): number | undefined {
  const value = number(context, node, what);
  if (value === undefined) return undefined;
  const milli = Math.round(value * 1000);
  if (!(milli >= 10 && milli <= 1_024_000))
    return context.error(node.origin, "value", `${what} must be from 0.01 to 1024`, "1 is one processor.");
  return milli;
}

const UNITS: Readonly<Record<string, number>> = { "": 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 };

/** Bytes: 1048576, 512Ki, 512Mi, 2Gi. */
export function bytes(context: Context, node: Node, what: string, min: number): number | undefined {
  const value = text(context, node, what, { plain: true });
  if (value === undefined) return undefined;
  const parts = SIZE.exec(value);
  const size = parts === null ? Number.NaN : Number(parts[1]) * (UNITS[parts[2] ?? ""] ?? Number.NaN);
  if (!Number.isSafeInteger(size) || size < min) {
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not a size of at least ${min} bytes`,
      "Write it like 512Mi or 2Gi.",
    );
  }
  return size;
}

const DURATIONS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** Longest duration, in days: what a timer of Node can wait (2^31 - 1 ms), rounded down. */
const MAX_DURATION_DAYS = 24;
const MAX_DURATION_MS = MAX_DURATION_DAYS * 24 * 3_600_000;

/** Milliseconds: 500ms, 30s, 5m, 1h. */
export function duration(context: Context, node: Node, what: string): number | undefined {
  const value = text(context, node, what, { plain: true });
  if (value === undefined) return undefined;
  const parts = DURATION.exec(value);
  const ms = parts === null ? Number.NaN : Number(parts[1]) * (DURATIONS[parts[2] ?? ""] ?? Number.NaN);
  if (!(ms > 0 && ms <= MAX_DURATION_MS)) {
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not a duration`,
      `Write it like 30s, 5m or 1h; the longest is ${24 * MAX_DURATION_DAYS}h.`,
    );
  }
  return ms;
}

/** Text in which a SHA-256 is written, hex; lower case. */
export function sha256(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what, { plain: true });
  if (value === undefined) return undefined;
  if (!SHA256.test(value))
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not a SHA-256`,
      "Write its 64 hexadecimal digits, as sha256sum prints them.",
    );
  return value.toLowerCase();
}

const FROM_ROOT = 'Write it whole, from "/" on.';

/** An absolute path without patterns. A slash at the end is dropped. */
export function path(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what);
  if (value === undefined) return undefined;
  const trimmed = value.length > 1 && value.endsWith("/") ? value.slice(0, -1) : value;
  if (!isCanonical(trimmed)) {
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not an absolute path without ".", ".." and "//"`,
      FROM_ROOT,
    );
  }
  return trimmed;
}

export function pathPattern(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what, { escape: escapeGlob });
  if (value === undefined) return undefined;
  const trimmed =
    value.length > 1 && value.endsWith("/") && !value.endsWith("\\/") ? value.slice(0, -1) : value;
  const why = pathPatternError(trimmed);
  if (why !== undefined)
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not a path pattern: ${why}`,
      value.startsWith("/") ? LITERAL : FROM_ROOT,
    );
  return trimmed;
}

/** One path pattern or more under a key; none when the key is not there. */
export function pathPatterns(context: Context, fields: Fields, key: string): readonly string[] {
  return fields.each(key, `"${key}"`, (n) => pathPattern(context, n, `"${key}"`));
}

const LITERAL = 'Put "\\" before a character that stands for itself.';

export function argumentPattern(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what, { escape: escapeGlob, plain: true });
  if (value === undefined) return undefined;
  const why = argumentPatternError(value);
  if (why !== undefined)
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not an argument pattern: ${why}`,
      LITERAL,
    );
  return value;
}

/** A pattern for the path of an HTTP request. Unlike a file's, it can end in "/". */
export function httpPath(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what, { escape: escapeGlob });
  if (value === undefined) return undefined;
  if (value.length > 1 && value.endsWith("/")) {
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" ends in "/"`,
      `Write "${value}**" for what is below it.`,
    );
  }
  const why = pathPatternError(value);
  if (why !== undefined)
    return context.error(
      node.origin,
      "value",
      `${what} "${value}" is not a path pattern: ${why}`,
      value.startsWith("/") ? LITERAL : FROM_ROOT,
    );
  return value;
}

const HOST = 'Write a name like "api.example.com", or "*.example.com" for all names below it.';

export function hostPattern(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what);
  if (value === undefined) return undefined;
  const host = normalizeHost(value);
  const why = hostPatternError(host);
  if (why !== undefined)
    return context.error(node.origin, "value", `${what} "${value}" is not a host pattern: ${why}`, HOST);
  return host;
}

const CIDR = "Write an address and the length of its prefix, like 203.0.113.0/24.";

export function cidr(context: Context, node: Node, what: string): string | undefined {
  const value = text(context, node, what);
  if (value === undefined) return undefined;
  const parsed = parseCidr(value);
  if ("error" in parsed)
    return context.error(node.origin, "value", `${what} "${value}" is wrong: ${parsed.error}`, CIDR);
  return formatCidr(parsed);
}

/** 443, "8000-8080". */
export function ports(context: Context, node: Node, what: string): Ports | undefined {
  if (node.kind === "scalar" && typeof node.value === "string" && !/^\$\{[^}]*\}$/.test(node.value)) {
    const value = text(context, node, what);
    if (value === undefined) return undefined;
    const parts = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(value);
    const first = Number(parts?.[1]);
    const last = Number(parts?.[2] ?? parts?.[1]);
    if (parts === null || first < 1 || last > 65535 || first > last) {
      return context.error(
        node.origin,
        "value",
        `${what} "${value}" is not a port or a range of ports`,
        'Write 443 or "8000-8080".',
      );
    }
    return { first, last };
  }
  const port = integer(context, node, what, 1, 65535);
  return port === undefined ? undefined : { first: port, last: port };
}
