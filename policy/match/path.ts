// Absolute paths and path patterns. A path here is text that the loader has already resolved: no symlink,
// no "..", no doubled slash is left in it; one that has any of these matches nothing.

import {
  compileSegment,
  expandBraces,
  GlobError,
  hasPattern,
  type Matcher,
  matchSequence,
  unescapeGlob,
} from "./glob.js";

/** Longest path the kernel takes (PATH_MAX). */
const MAX_PATH = 4096;

/** True for an absolute path in its one canonical spelling. */
export function isCanonical(path: string): boolean {
  if (path === "/") return true;
  // A segment of at most two dots is empty, "." or "..".
  return (
    path.startsWith("/") && path.length <= MAX_PATH && !path.includes("\0") && !/\/\.{0,2}(?:\/|$)/.test(path)
  );
}

/** Segments of a canonical path; none for "/". */
export function segments(path: string): string[] {
  return path === "/" ? [] : path.slice(1).split("/");
}

/** True when `path` is `tree` itself or lies below it. */
export function isWithin(path: string, tree: string): boolean {
  return tree === "/" || path === tree || path.startsWith(`${tree}/`);
}

/** Folder that holds a path; "/" for "/". */
export function parent(path: string): string {
  const cut = path.lastIndexOf("/");
  return cut <= 0 ? "/" : path.slice(0, cut);
}

/** Joins a tree and a path that is relative to it. */
export function join(tree: string, relative: string): string {
  if (relative === "") return tree;
  return tree === "/" ? `/${relative}` : `${tree}/${relative}`;
}

/** The part of `path` below `tree`, without a leading slash. `path` must be within `tree`. */
export function below(path: string, tree: string): string {
  if (path === tree) return "";
  return tree === "/" ? path.slice(1) : path.slice(tree.length + 1);
}

/** Folders strictly between `tree` and `path`, outermost first. */
export function between(tree: string, path: string): string[] {
  const between: string[] = [];
  for (let p = parent(path); p !== tree && isWithin(p, tree); p = parent(p)) between.unshift(p);
  return between;
}

/** Why a pattern is not a path pattern; undefined when it is. */
export function pathPatternError(pattern: string): string | undefined {
  if (!pattern.startsWith("/") && !pattern.startsWith("**/"))
    return 'it must be absolute, or start with "**/"';
  try {
    for (const alternative of expandBraces(pattern)) {
      const parts = splitPattern(alternative);
      if (parts.length === 0) continue;
      for (const part of parts) {
        if (part === "") return 'it has an empty segment ("//" or a "/" at the end)';
        if (part === "." || part === "..") return `it has "${part}" as a segment`;
        if (part !== "**" && part.includes("**")) return '"**" must be a whole segment';
      }
    }
  } catch (error) {
    if (error instanceof GlobError) return error.message;
    throw error;
  }
  return undefined;
}

function splitPattern(pattern: string): string[] {
  const relative = pattern.startsWith("/") ? pattern.slice(1) : pattern;
  return relative === "" ? [] : relative.split("/");
}

/** Matcher for canonical paths. With `subtree`, a pattern without "*", "?" or "{}" also stands for all below it. */
export function compilePath(pattern: string, options: { subtree: boolean }): Matcher {
  if (options.subtree && !hasPattern(pattern)) {
    const tree = unescapeGlob(pattern);
    return (path) => isCanonical(path) && isWithin(path, tree);
  }
  const alternatives = expandBraces(pattern).map(splitPattern);
  const [first, ...others] = alternatives;
  if (first !== undefined && others.length === 0 && !hasPattern(pattern)) {
    const wanted = `/${first.map(unescapeGlob).join("/")}`;
    return isCanonical(wanted) ? (path) => path === wanted : () => false;
  }
  const compiled = alternatives.map((alternative) => {
    const parts = alternative.map((part) => (part === "**" ? "rest" : compileSegment(part)));
    // "/x/**" is what lies below /x: "**" at the end takes at least one segment.
    return parts.at(-1) === "rest" ? [...parts, compileSegment("*")] : parts;
  });
  return (path) => {
    if (!isCanonical(path)) return false;
    const names = segments(path);
    return compiled.some((parts) => matchSequence(parts, names));
  };
}

/** How far a pattern is fixed: the folder in which everything it matches lies, and whether it is exactly that tree. */
export interface PatternScope {
  readonly tree: string;
  /** The pattern means the tree with all below it, so a static layer can express it. */
  readonly exact: boolean;
}

/** Scope of one pattern (after brace expansion). */
export function patternScopes(pattern: string): PatternScope[] {
  return expandBraces(pattern).map((alternative) => {
    if (!hasPattern(alternative)) return { tree: unescapeGlob(alternative), exact: true };
    const parts = splitPattern(alternative);
    const fixed: string[] = [];
    for (const part of parts) {
      if (hasPattern(part)) break;
      fixed.push(unescapeGlob(part));
    }
    return {
      tree: fixed.length === 0 ? "/" : `/${fixed.join("/")}`,
      exact: fixed.length === parts.length - 1 && parts.at(-1) === "**",
    };
  });
}
