// Texts that a pattern matches, and texts that it nearly matches: for probes and for tests of what is said of patterns.

import { expandBraces, hasPattern, unescapeGlob } from "../match/glob.js";
import { compilePath } from "../match/path.js";

/** What stands for "*", "?" and "**", in this order; nothing is left to chance, so that results can be compared. */
const RUNS = ["x", "probe", "a.b", ""] as const;
const ONES = ["x", "q", "."] as const;
const RESTS = [[], ["probe"], ["probe", "deeper"]] as const;

/** Texts of one piece without braces; `variant` picks what stands for its wildcards. */
function fill(pattern: string, variant: number): string {
  let text = "";
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === "\\") text += pattern[++i] ?? "\\";
    else if (c === "*") text += RUNS[variant % RUNS.length];
    else if (c === "?") text += ONES[variant % ONES.length];
    else text += c;
  }
  return text;
}

/** Up to `limit` canonical paths that the pattern matches. */
export function samplePaths(pattern: string, options: { subtree: boolean }, limit: number): string[] {
  const matches = compilePath(pattern, options);
  const found = new Set<string>();
  if (!hasPattern(pattern)) {
    const path = unescapeGlob(pattern);
    found.add(path);
    if (options.subtree) found.add(path === "/" ? "/probe" : `${path}/probe`);
    return [...found].filter(matches).slice(0, limit);
  }
  for (let variant = 0; variant < 4 && found.size < limit; variant++) {
    for (const alternative of expandBraces(pattern)) {
      const parts = (alternative.startsWith("/") ? alternative.slice(1) : alternative).split("/");
      if (parts.at(-1) === "**") parts.push("*");
      const filled = parts.flatMap((part) =>
        part === "**" ? [...(RESTS[variant % RESTS.length] ?? [])] : [fill(part, variant)],
      );
      const path = `/${filled.join("/")}`;
      if (matches(path)) found.add(path);
      if (found.size >= limit) break;
    }
  }
  return [...found];
}

/** Up to `limit` paths beside those: one segment more or less, another name in the same folder. */
export function nearPaths(pattern: string, options: { subtree: boolean }, limit: number): string[] {
  const matches = compilePath(pattern, options);
  const found = new Set<string>();
  for (const path of samplePaths(pattern, options, limit)) {
    const folder = path.slice(0, path.lastIndexOf("/"));
    for (const near of [
      `${path}-near`,
      `${folder}/other`,
      folder === "" ? "/other" : folder,
      `${path}/below`,
    ]) {
      if (!matches(near)) found.add(near);
    }
  }
  return [...found].slice(0, limit);
}

/** Up to `limit` texts that the pattern matches. */
export function sampleTexts(pattern: string, limit: number): string[] {
  const found = new Set<string>();
  for (let variant = 0; variant < RUNS.length && found.size < limit; variant++) {
    for (const alternative of expandBraces(pattern)) {
      found.add(fill(alternative, variant));
      if (found.size >= limit) break;
    }
  }
  return [...found];
}

/** Up to `limit` argument lists that the patterns match. */
export function sampleArgv(patterns: readonly string[], limit: number): string[][] {
  const found: string[][] = [];
  for (let variant = 0; variant < 4 && found.length < limit; variant++) {
    found.push(
      patterns.flatMap((pattern) => {
        if (pattern === "**") return [...(RESTS[variant % RESTS.length] ?? [])];
        const texts = sampleTexts(pattern, 4);
        return [texts[variant % Math.max(1, texts.length)] ?? ""];
      }),
    );
  }
  return found;
}

/** Names that a host pattern names. */
export function sampleHosts(pattern: string): string[] {
  if (pattern === "*") return ["probe.example", "probe"];
  return pattern.startsWith("*.") ? [`probe.${pattern.slice(2)}`, `a.b.${pattern.slice(2)}`] : [pattern];
}

/** Names beside those. */
export function nearHosts(pattern: string): string[] {
  if (pattern === "*") return [];
  const name = pattern.startsWith("*.") ? pattern.slice(2) : pattern;
  return pattern.startsWith("*.") ? [name, `near${name}`] : [`near${name}`, `below.${name}`];
}
