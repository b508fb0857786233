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
// be its value). That a flag unknown to the pattern takes the next argument as its value, nobody can see: name such
// flags under `valued`.

import type { ArgvPattern } from "../model.js";

export type FlagReading = "possible" | "certain";

/** Names of the pattern's flags that the arguments (those after argv[0]) have. */
export function readFlags(
  args: readonly string[],
  pattern: Pick<ArgvPattern, "flags" | "without" | "valued">,
  reading: FlagReading,
): ReadonlySet<string> {
  const names = new Set([...pattern.flags.flat(), ...pattern.without.flat(), ...pattern.valued]);
  const valued = new Set(pattern.valued);
  const found = new Set<string>();
  /** What the next argument is to the one before it. */
  let next: "free" | "value" | "perhaps a value" = "free";
  for (const arg of args) {
    const here = next;
    next = "free";
    if (here === "value") continue;
    if (here === "perhaps a value" && reading === "certain") {
      // As a value it is no flag; as no value, "--" ends the flags.
      if (arg === "--") break;
      continue;
    }
    if (arg === "--") {
      if (here === "perhaps a value") continue;
      break;
    }
    if (arg.startsWith("--")) next = readLong(arg);
    else if (arg.startsWith("-") && arg.length > 1) next = readCluster(arg);
  }
  return found;

  function readLong(arg: string): typeof next {
    const equals = arg.indexOf("=");
    const name = equals < 0 ? arg : arg.slice(0, equals);
    if (names.has(name)) {
      found.add(name);
      return equals < 0 && valued.has(name) ? "value" : "free";
    }
    const meant = [...names].filter((full) => full.startsWith(name) && full.startsWith("--"));
    if (reading === "possible") for (const full of meant) found.add(full);
    return equals < 0 && meant.some((full) => valued.has(full)) ? "perhaps a value" : "free";
  }

  function readCluster(arg: string): typeof next {
    const letters = [...arg.slice(1)];
    for (const [i, letter] of letters.entries()) {
      const name = `-${letter}`;
      const known = names.has(name);
      if (known) found.add(name);
      if (valued.has(name)) return i === letters.length - 1 ? "value" : "free";
      if (!known && reading === "certain") return "free";
    }
    return "free";
  }
}
