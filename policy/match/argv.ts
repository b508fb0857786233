// What a rule says about arguments.
//
// Argument patterns: one pattern an element, matched against the whole argv.
//
//   "**"   any number of arguments, also none
//   "*"    exactly one argument, whatever it is
//   else   a text pattern for one argument (see glob.ts); "/" is nothing special in it
//
// argv[0] is chosen by the caller and need not be the program's name, which is why patterns usually start with "*".
// All else (literal lists, expressions, flags) speaks of the arguments after it.

import { RE2JS } from "re2js";
import type { ArgvPattern } from "../model.js";
import { type FlagReading, readFlags } from "./flags.js";
import { compileText, expandBraces, GlobError, type Matcher, matchSequence } from "./glob.js";

/** Why a text is no argument pattern; undefined when it is. */
export function argumentPatternError(pattern: string): string | undefined {
  try {
    expandBraces(pattern);
    return undefined;
  } catch (error) {
    if (error instanceof GlobError) return error.message;
    throw error;
  }
}

export type ArgvMatcher = (argv: readonly string[]) => boolean;

export function compileArgv(patterns: readonly string[]): ArgvMatcher {
  const compiled: (Matcher | "rest")[] = patterns.map((p) => (p === "**" ? "rest" : compileText(p)));
  return (argv) => matchSequence(compiled, argv);
}

/**
 * Matcher for everything that a pattern says. `restricts`: whether the rule takes something away. What could be a
 * flag is one where that makes the rule stricter, and only what is one for certain where it makes it laxer; the "." of an
 * expression matches line breaks, too, where the rule restricts.
 * Throws what re2js throws for an expression that is none; the reader lets none through.
 */
export function compileArgvPattern(pattern: ArgvPattern, restricts: boolean): ArgvMatcher {
  const { exact, prefix, flags, without } = pattern;
  const glob = pattern.glob === undefined ? undefined : compileArgv(pattern.glob);
  // A line break in an argument must not hide the rest of it from a rule that restricts.
  const expressions = pattern.regex.map((text) => RE2JS.compile(text, restricts ? RE2JS.DOTALL : 0));
  const reading = (kind: FlagReading) => (args: readonly string[]) => readFlags(args, pattern, kind);
  const wanted = reading(restricts ? "possible" : "certain");
  const unwanted = reading(restricts ? "certain" : "possible");
  return (argv) => {
    if (glob !== undefined && !glob(argv)) return false;
    const args = argv.slice(1);
    if (exact !== undefined && (exact.length !== args.length || !startsWith(args, exact))) return false;
    if (prefix !== undefined && !startsWith(args, prefix)) return false;
    if (!expressions.every((expression) => args.some((arg) => expression.test(arg)))) return false;
    if (flags.length > 0) {
      const present = wanted(args);
      if (!flags.every((names) => names.some((name) => present.has(name)))) return false;
    }
    if (without.length === 0) return true;
    const present = unwanted(args);
    return !without.some((names) => names.some((name) => present.has(name)));
  };
}

function startsWith(args: readonly string[], first: readonly string[]): boolean {
  return first.length <= args.length && first.every((text, i) => args[i] === text);
}
