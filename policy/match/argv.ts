// Argument patterns: one pattern an element, matched against the whole argv.
//
//   "**"   any number of arguments, also none
//   "*"    exactly one argument, whatever it is
//   else   a text pattern for one argument (see glob.ts); "/" is nothing special in it
//
// argv[0] is chosen by the caller and need not be the program's name, which is why patterns usually start with "*".

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
