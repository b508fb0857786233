// Which flags a list of arguments has, as getopt_long(3) reads them.
//
//   -r             the flag -r               -rf            the flags -r and -f
//   --recursive    itself, with =value too   --rec          an abbreviation of it, for GNU programs
//   --             nothing after it is a flag
//   -C x, -Cx, --opt x, --opt=x   a flag that takes a value, when the pattern names it under `valued`
//
// Nobody can know how a program reads its arguments, so there are two readings. "possible" has every flag that could
// be there; "certain" only those that are there however the arguments are read: no abbreviations, nothing after what
// could end the flags, and of a cluster only what stands before a letter that the pattern does not name (the rest may
// be its value). What follows a flag that the pattern does not name may be its value: in "possible" a "--" there does
// not end the flags, and in "certain" it does. Another argument there counts as a flag in both: name the flags that
// take values under `valued`.

import type { ArgvPattern } from "../model.js";

export type FlagReading = "possible" | "certain";

/**
 * What the next argument is to the one before it. "perhaps a value": of a flag that takes one, if that argument is the
 * flag at all. "of a stranger": it follows a flag that the pattern does not name.
 */
type Next = "free" | "value" | "perhaps a value" | "of a stranger";

/**
 * Names of the pattern's flags that the arguments (those after argv[0]) have.
 *
 * @returns the names as the pattern spells them. For any way in which a program could read the arguments with the flags
 * of `valued` taking values and the pattern's others none, "possible" has at least what that way has.
 */
export function readFlags(
  args: readonly string[],
  pattern: Pick<ArgvPattern, "flags" | "without" | "valued">,
  reading: FlagReading,
): ReadonlySet<string> {
  const names = new Set([...pattern.flags.flat(), ...pattern.without.flat(), ...pattern.valued]);
  const valued = new Set(pattern.valued);
  const possible = reading === "possible";
  const found = new Set<string>();
  let next: Next = "free";
  for (const arg of args) {
    const here: Next = next;
    next = "free";
    if (here === "value") continue;
    if (arg === "--") {
      // As a value it ends nothing.
      if (possible && here !== "free") continue;
      break;
    }
    // As a value it is no flag, and takes no value either.
    const counts = possible || here !== "perhaps a value";
    const after = read(arg, counts);
    next = after === "value" && here !== "free" ? "perhaps a value" : after;
  }
  return found;

  function read(arg: string, counts: boolean): Next {
    if (arg.startsWith("--")) return readLong(arg, counts);
    return arg.startsWith("-") && arg.length > 1 ? readCluster(arg, counts) : "free";
  }

  function readLong(arg: string, counts: boolean): Next {
    const equals = arg.indexOf("=");
    const name = equals < 0 ? arg : arg.slice(0, equals);
    if (names.has(name)) {
      if (counts) found.add(name);
      return equals < 0 && valued.has(name) ? "value" : "free";
    }
    const meant = [...names].filter((full) => full.startsWith(name) && full.startsWith("--"));
    if (possible) for (const full of meant) found.add(full);
    if (equals >= 0) return "free";
    return meant.some((full) => valued.has(full)) ? "perhaps a value" : "of a stranger";
  }

  function readCluster(arg: string, counts: boolean): Next {
    const letters = [...arg.slice(1)];
    const last = letters.length - 1;
    /** The letters so far are all the pattern's, so that this one is no value of theirs. */
    let known = true;
    for (const [i, letter] of letters.entries()) {
      const name = `-${letter}`;
      const named = names.has(name);
      if (named && counts && (known || possible)) found.add(name);
      if (valued.has(name)) return i < last ? "free" : known ? "value" : "perhaps a value";
      known &&= named;
      if (i === last && !named) return "of a stranger";
    }
    return "free";
  }
}
