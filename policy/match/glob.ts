// One small pattern language for paths and for single strings, without regular expressions:
// matching takes time in proportion to pattern x text, whatever the sandbox sends.
//
//   *      any run of characters, also none; in paths it never crosses "/"
//   **     paths only, as a whole segment: any number of segments, also none
//   ?      exactly one character (in paths not "/")
//   {a,b}  one of the alternatives, which may hold patterns; not nested
//   \x     the character x itself
//
// Everything else stands for itself: dots, spaces and newlines are nothing special, and "[" is a plain character
// (file names such as pages/[id].tsx are common).

/** A piece of a compiled pattern: a literal character, "?" or "*". */
type Token =
  | { readonly kind: "char"; readonly char: string }
  | { readonly kind: "one" }
  | { readonly kind: "run" };

/** Alternatives that one pattern may expand to. */
const MAX_ALTERNATIVES = 64;

export class GlobError extends Error {}

/** Escapes a text so that, as a pattern, it matches exactly itself. */
export function escapeGlob(text: string): string {
  return text.replace(/[\\*?{}]/g, "\\$&");
}

/** True when the text has a pattern in it, so that it may match more than one string. */
export function hasPattern(pattern: string): boolean {
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i];
    if (c === "\\") i++;
    else if (c === "*" || c === "?" || c === "{") return true;
  }
  return false;
}

/** The one string that a pattern without `hasPattern` matches. */
export function unescapeGlob(pattern: string): string {
  return pattern.replace(/\\(.)/gsu, "$1");
}

/** Expands `{a,b}`. Throws GlobError on an open brace, a nested one, or too many alternatives. */
export function expandBraces(pattern: string): string[] {
  if (!/[{}\\]/.test(pattern)) return [pattern];
  let results = [""];
  let i = 0;
  while (i < pattern.length) {
    const c = pattern[i] as string;
    if (c === "\\") {
      if (i + 1 >= pattern.length) throw new GlobError('the pattern ends in a lone "\\"');
      const pair = pattern.slice(i, i + 2);
      results = results.map((r) => r + pair);
      i += 2;
    } else if (c === "{") {
      const { alternatives, next } = readAlternatives(pattern, i);
      const expanded: string[] = [];
      for (const r of results) for (const a of alternatives) expanded.push(r + a);
      if (expanded.length > MAX_ALTERNATIVES) {
        throw new GlobError(`the pattern has more than ${MAX_ALTERNATIVES} alternatives`);
      }
      results = expanded;
      i = next;
    } else if (c === "}") {
      throw new GlobError('the pattern has a "}" without its "{"');
    } else {
      results = results.map((r) => r + c);
      i++;
    }
  }
  return results;
}

function readAlternatives(pattern: string, open: number): { alternatives: string[]; next: number } {
  const alternatives: string[] = [];
  let current = "";
  for (let i = open + 1; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === "\\") {
      current += pattern.slice(i, i + 2);
      i++;
    } else if (c === "{") {
      throw new GlobError('the pattern has a "{" inside "{}"');
    } else if (c === ",") {
      alternatives.push(current);
      current = "";
    } else if (c === "}") {
      alternatives.push(current);
      return { alternatives, next: i + 1 };
    } else {
      current += c;
    }
  }
  throw new GlobError('the pattern has a "{" without its "}"');
}

function tokenize(pattern: string): Token[] {
  const tokens: Token[] = [];
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === "\\") {
      i++;
      tokens.push({ kind: "char", char: pattern[i] ?? "\\" });
    } else if (c === "?") {
      tokens.push({ kind: "one" });
    } else if (c === "*") {
      // A second star in a row adds nothing.
      if (tokens.at(-1)?.kind !== "run") tokens.push({ kind: "run" });
    } else {
      tokens.push({ kind: "char", char: c });
    }
  }
  return tokens;
}

/**
 * Matches with one backtracking point: on a mismatch the last "*" takes one character more. Earlier stars never
 * need to be tried again, since the shortest match of each is as good as any.
 */
function matchTokens(tokens: readonly Token[], text: string): boolean {
  let t = 0;
  let i = 0;
  let starToken = -1;
  let starText = 0;
  while (i < text.length) {
    const token = tokens[t];
    if (token?.kind === "run") {
      starToken = t++;
      starText = i;
    } else if (token?.kind === "one") {
      t++;
      // A character is a code point, as for the gates: two units of UTF-16 where it takes two.
      i += (text.codePointAt(i) as number) > 0xffff ? 2 : 1;
    } else if (token?.kind === "char" && token.char === text[i]) {
      t++;
      i++;
    } else if (starToken >= 0) {
      t = starToken + 1;
      i = ++starText;
    } else {
      return false;
    }
  }
  while (tokens[t]?.kind === "run") t++;
  return t === tokens.length;
}

export type Matcher = (text: string) => boolean;

/** Matcher for a whole string in which "/" is nothing special (arguments). */
export function compileText(pattern: string): Matcher {
  const [first, ...others] = expandBraces(pattern).map(compileSegment);
  if (first !== undefined && others.length === 0) return first;
  return (text) => first?.(text) === true || others.some((matches) => matches(text));
}

/** Matcher for one path segment, or another text without "{}". */
export function compileSegment(segment: string): Matcher {
  if (!hasPattern(segment)) {
    const wanted = unescapeGlob(segment);
    return (text) => text === wanted;
  }
  const tokens = tokenize(segment);
  return (text) => matchTokens(tokens, text);
}

/**
 * Matches a sequence where some elements are "any number of elements". The same one-backtracking-point search
 * as for characters, one level up; used for path segments and for argument lists.
 */
export function matchSequence(pattern: readonly (Matcher | "rest")[], items: readonly string[]): boolean {
  let p = 0;
  let i = 0;
  let restPattern = -1;
  let restItem = 0;
  while (i < items.length) {
    const element = pattern[p];
    if (element === "rest") {
      restPattern = p++;
      restItem = i;
    } else if (element?.(items[i] as string)) {
      p++;
      i++;
    } else if (restPattern >= 0) {
      p = restPattern + 1;
      i = ++restItem;
    } else {
      return false;
    }
  }
  while (pattern[p] === "rest") p++;
  return p === pattern.length;
}
