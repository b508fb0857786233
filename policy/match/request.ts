// The path of an HTTP request: everything up to "?", as it was written. Servers do not agree on what some paths mean
// (one resolves "/a/../b", another decodes "%2f"), so that a rule about such a path would decide about something else
// than what is served. The egress gate reads paths the same way (bpf/net-gate/src/request.rs).

import { compileSegment, escapeGlob, expandBraces, matchSequence } from "./glob.js";

/** What a server may take a path for. */
export type PathReading =
  /** These different forms: as written, with the digits of escapes in capitals, and decoded. Never empty. */
  | { readonly forms: readonly string[] }
  /** Nobody can tell. */
  | "doubtful";

/** Escapes that servers differ on: of ".", "/", "%", "\", ";" and control characters. */
const DOUBTFUL_ESCAPE = /%(?:2[eEfF5]|5[cC]|3[bB]|[01]|7[fF])/;

/** What a server may take `path` for: the target of a request up to "?", as it was written. */
export function readRequestPath(path: string): PathReading {
  // Some servers cut off what follows ";" in a segment, others serve it as a part of the name.
  if (!/^[\x21-\x7e]*$/.test(path) || /[\\;]/.test(path)) return "doubtful";
  if (/%(?![0-9a-fA-F]{2})/.test(path) || DOUBTFUL_ESCAPE.test(path)) return "doubtful";
  const decoded = decode(path);
  if (decoded === undefined) return "doubtful";
  const parts = partsOf(path);
  const last = parts.length - 1;
  if (parts.some((part, i) => part === "." || part === ".." || (part === "" && i < last))) return "doubtful";
  return { forms: [...new Set([path, upperCaseEscapes(path), decoded])] };
}

/** Undefined where the escapes are not UTF-8. */
function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Of a path or a pattern; a pair such as "\\" of a pattern is passed over. */
function upperCaseEscapes(text: string): string {
  return text.replace(/\\[^%]|%[0-9a-fA-F]{2}/gsu, (match) =>
    match.startsWith("%") ? match.toUpperCase() : match,
  );
}

/** What is decoded stands for itself: "%2A" is no wildcard. Escapes that no path may have stay, and match nothing. */
function decodePattern(pattern: string): string {
  return pattern.replace(/\\[^%]|(?:\\?%[0-9a-fA-F]{2})+/gsu, (match) => {
    if (!match.includes("%")) return match;
    const escapes = match.replaceAll("\\", "");
    const decoded = DOUBTFUL_ESCAPE.test(escapes) ? undefined : decode(escapes);
    return decoded === undefined ? match : escapeGlob(decoded);
  });
}

/**
 * The patterns without braces that a pattern for paths stands for: in each form that a path is read in, so that
 * "/caf%C3%A9" is about "/café", too, and "/a/[x]" about "/a/%5Bx%5D". Throws GlobError as `expandBraces` does.
 */
export function requestPathAlternatives(pattern: string): string[] {
  const forms = expandBraces(pattern).flatMap((one) => [one, upperCaseEscapes(one), decodePattern(one)]);
  return [...new Set(forms)];
}

/** Matcher for the path of a request. As for files, but a "/" at the end is a part of the path: an empty segment. */
export function compileRequestPath(pattern: string): (path: string) => boolean {
  const compiled = requestPathAlternatives(pattern).map((alternative) => {
    const parts = partsOf(alternative).map((part) => (part === "**" ? "rest" : compileSegment(part)));
    return parts.at(-1) === "rest" ? [...parts, compileSegment("*")] : parts;
  });
  return (path) => path.startsWith("/") && compiled.some((parts) => matchSequence(parts, partsOf(path)));
}

function partsOf(path: string): string[] {
  return path.replace(/^\//, "").split("/");
}
