// The path of an HTTP request: everything up to "?", as it was written. Servers do not agree on what some paths mean
// (one resolves "/a/../b", another decodes "%2f"), so that a rule about such a path would decide about something else
// than what is served. The egress gate reads paths the same way (bpf/net-gate/src/request.rs).

import { compileSegment, expandBraces, matchSequence } from "./glob.js";

/** What a server may take a path for. */
export type PathReading =
  /** These forms: as written, and decoded where that needs no encoding. Never empty. */
  | { readonly forms: readonly string[] }
  /** Nobody can tell. */
  | "doubtful";

/** Characters that a path may hold as they are (RFC 3986, 3.3, pchar). */
const PCHAR = /[A-Za-z0-9._~!$&'()*+,;=:@-]/;

export function readRequestPath(path: string): PathReading {
  if (!/^[\x21-\x7e]*$/.test(path) || path.includes("\\")) return "doubtful";
  if (/%(?![0-9a-fA-F]{2})/.test(path)) return "doubtful";
  // Encoded: ".", "/", "\", "%", control characters.
  if (/%(?:2[eEfF5]|5[cC]|[01]|7[fF])/.test(path)) return "doubtful";
  const decoded = path.replace(/%([0-9a-fA-F]{2})/g, (written, digits: string) => {
    const char = String.fromCharCode(Number.parseInt(digits, 16));
    return PCHAR.test(char) ? char : written;
  });
  const parts = decoded.replace(/^\//, "").split("/");
  const last = parts.length - 1;
  const unclear = parts.some((part, i) => {
    // Some servers cut parameters off before they look: "/..;x/" is "/../" to them.
    const name = part.split(";", 1)[0];
    return name === "." || name === ".." || (name === "" && (i < last || part !== ""));
  });
  if (unclear) return "doubtful";
  return { forms: decoded === path ? [path] : [path, decoded] };
}

/** Matcher for the path of a request. As for files, but a "/" at the end is a part of the path: an empty segment. */
export function compileRequestPath(pattern: string): (path: string) => boolean {
  const compiled = expandBraces(pattern).map((alternative) => {
    const parts = partsOf(alternative).map((part) => (part === "**" ? "rest" : compileSegment(part)));
    return parts.at(-1) === "rest" ? [...parts, compileSegment("*")] : parts;
  });
  return (path) => path.startsWith("/") && compiled.some((parts) => matchSequence(parts, partsOf(path)));
}

function partsOf(path: string): string[] {
  return path.replace(/^\//, "").split("/");
}
