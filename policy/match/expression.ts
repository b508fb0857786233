// Path patterns as RE2 expressions, for the gates that match them in the kernel's way of speed. The expression matches
// exactly the paths that `compilePath` matches, and nothing that is not a canonical path: a test holds the two to it.
//
// Only what RE2, re2js and Rust's regex crate read alike is written: literals, classes, alternatives, "*", "+", "?".
// No "." and no "$" that a newline in a name could fool: classes are spelt out, and "^" and "$" are those of the text.

import { expandBraces, hasPattern, unescapeGlob } from "./glob.js";
import { requestPathAlternatives } from "./request.js";

/** A character of a name. */
const CHAR = "[^/\\x00]";
const NOT_DOT = "[^/.\\x00]";
/** A whole segment: not empty, neither "." nor "..". */
const SEGMENT = `(?:\\.?${NOT_DOT}${CHAR}*|\\.\\.${CHAR}+)`;
/** Matches no text at all. */
const NOTHING = "[^\\x00-\\x{10FFFF}]";

/** Any canonical path. */
export const ANY_PATH = `^(?:/|(?:/${SEGMENT})+)$`;

/** A piece of a segment's pattern: a code point as itself, "?" or "*". */
type Token = string | { readonly any: "one" | "run" };

/**
 * One expression for a list of path patterns: it matches the whole path when one of them does.
 * `subtree`: a pattern without "*", "?" or "{}" also stands for all below it (as for `compilePath`).
 */
export function pathExpression(patterns: readonly string[], options: { subtree: boolean }): string {
  const alternatives = [...new Set(patterns.flatMap((pattern) => alternativesOf(pattern, options.subtree)))];
  const [first = NOTHING] = alternatives;
  return alternatives.length <= 1 ? `^${first}$` : `^(?:${alternatives.join("|")})$`;
}

/**
 * One expression for a list of patterns for the paths of requests, as `compileRequestPath` reads them: a segment may
 * be empty, as the last one of "/v1/" is.
 */
export function requestPathExpression(patterns: readonly string[]): string {
  const alternatives = [
    ...new Set(patterns.flatMap((pattern) => requestPathAlternatives(pattern).map(requestSequence))),
  ];
  return `^(?:${alternatives.length === 0 ? NOTHING : alternatives.join("|")})$`;
}

/** One expression for a list of patterns for a name, as `compileText` reads them: "*" is any text. */
export function textExpression(patterns: readonly string[]): string {
  const names = patterns.flatMap(expandBraces).map((pattern) => plain(tokenize(pattern), "[^\\x00]"));
  return `^${group(names)}$`;
}

function requestSequence(pattern: string): string {
  const parts = pattern.replace(/^\//, "").split("/");
  return parts
    .map((part, i) => {
      if (part !== "**") return `/${plain(tokenize(part), "[^/]")}`;
      return `(?:/[^/]*)${i === parts.length - 1 ? "+" : "*"}`;
    })
    .join("");
}

function alternativesOf(pattern: string, subtree: boolean): string[] {
  if (subtree && !hasPattern(pattern)) {
    const tree = unescapeGlob(pattern);
    const below = `(?:/${SEGMENT})`;
    return [tree === "/" ? `(?:/|${below}+)` : `${sequence(pattern)}${below}*`];
  }
  return expandBraces(pattern).map(sequence);
}

/** A pattern without braces. "**" at the end takes at least one segment, elsewhere also none. */
function sequence(pattern: string): string {
  const relative = pattern.startsWith("/") ? pattern.slice(1) : pattern;
  if (relative === "") return "/";
  const parts = relative.split("/");
  return parts
    .map((part, i) => {
      if (part !== "**") return `/${segment(part)}`;
      return `(?:/${SEGMENT})${i === parts.length - 1 ? "+" : "*"}`;
    })
    .join("");
}

function tokenize(part: string): Token[] {
  const tokens: Token[] = [];
  const chars = [...part];
  for (let i = 0; i < chars.length; i++) {
    const char = chars[i] as string;
    if (char === "\\") tokens.push(chars[++i] ?? "\\");
    else if (char === "?") tokens.push({ any: "one" });
    else if (char === "*") tokens.push({ any: "run" });
    else tokens.push(char);
  }
  return tokens;
}

function literal(char: string): string {
  const code = char.codePointAt(0) as number;
  // Half a surrogate pair is in no text that came as UTF-8; as U+FFFD it would match another name.
  if (code >= 0xd800 && code <= 0xdfff) return NOTHING;
  if (code <= 0x20 || code >= 0x7f) return `\\x{${code.toString(16).toUpperCase()}}`;
  // Nothing else is escaped: a backslash before "<" is the beginning of a word to the regex crate.
  return /[\\.+*?()|[\]{}^$]/.test(char) ? `\\${char}` : char;
}

function plain(tokens: readonly Token[], char = CHAR): string {
  return tokens
    .map((token) => (typeof token === "string" ? literal(token) : token.any === "one" ? char : `${char}*`))
    .join("");
}

function segment(part: string): string {
  const tokens = tokenize(part);
  if (tokens.every((token) => typeof token !== "string" && token.any === "run")) return SEGMENT;
  // Most patterns have something in them that no empty segment, "." or ".." has.
  if (tokens.some((token) => typeof token === "string" && token !== ".")) return plain(tokens);
  return group(named(tokens));
}

function group(alternatives: readonly string[]): string {
  const different = [...new Set(alternatives)];
  if (different.length === 0) return NOTHING;
  return different.length === 1 ? (different[0] as string) : `(?:${different.join("|")})`;
}

/**
 * What the tokens match, less "", "." and "..", which are no names: by what the first characters are, since RE2
 * cannot subtract.
 */
function named(tokens: readonly Token[]): string[] {
  const afterOne = afterDot(tokens);
  const afterTwo = afterOne.flatMap(afterDot);
  return [
    ...beginningWithoutDot(tokens),
    ...afterOne.flatMap((rest) => beginningWithoutDot(rest).map((text) => `\\.${text}`)),
    ...afterTwo.flatMap((rest) => atLeastOne(rest).map((text) => `\\.\\.${text}`)),
  ];
}

/** What is left to match once a dot was read: one list of tokens for each way to read it. */
function afterDot(tokens: readonly Token[]): (readonly Token[])[] {
  const [first, ...rest] = tokens;
  if (first === undefined) return [];
  if (first === ".") return [rest];
  if (typeof first === "string") return [];
  return first.any === "one" ? [rest] : [tokens, ...afterDot(rest)];
}

function beginningWithoutDot(tokens: readonly Token[]): string[] {
  const [first, ...rest] = tokens;
  if (first === undefined || first === ".") return [];
  if (typeof first === "string") return [plain(tokens)];
  if (first.any === "one") return [`${NOT_DOT}${plain(rest)}`];
  return [`${NOT_DOT}${plain(tokens)}`, ...beginningWithoutDot(rest)];
}

function atLeastOne(tokens: readonly Token[]): string[] {
  return [...beginningWithoutDot(tokens), ...afterDot(tokens).map((rest) => `\\.${plain(rest)}`)];
}
