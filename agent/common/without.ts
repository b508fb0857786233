/** Mechanisms of the kernel that the loader can leave unused, by the names of its own --without. */

export const WITHOUT: readonly string[] = [
  "tp_btf",
  "raw_tp",
  "wait-killable",
  "cgroup.memory",
  "cgroup.pids",
  "cgroup.cpu",
];

/** The names of a list with commas between them, sorted, each once. Throws a sentence for a name that there is not. */
export function readWithout(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !WITHOUT.includes(name));
  if (unknown !== undefined) {
    throw new Error(`"${unknown}" cannot be left unused. One or more of ${WITHOUT.join(", ")}.`);
  }
  return [...new Set(names)].sort();
}
