// From a bad input to a small one: parts are left out as long as the same thing happens.

import { type Finding, type FuzzOptions, fuzz } from "./run.js";

/** Tries that shrinking may take. Each is a worker of its own. */
const MOST_TRIES = 60;

/** What two findings have in common: the kind, and where it was thrown. */
function sign({ kind, why }: Finding): string {
  const frame = /\n\s+at ([^\n]*)/.exec(why)?.[1]?.replace(/\(.*\//, "(") ?? "";
  return `${kind} ${why.split(":")[0]} ${frame}`;
}

/** A small text with the same finding. */
export async function shrink(
  options: Omit<FuzzOptions, "inputs" | "texts" | "say">,
  finding: Finding,
): Promise<string> {
  const wanted = sign(finding);
  let tries = 0;
  const still = async (text: string): Promise<boolean> => {
    if (tries >= MOST_TRIES) return false;
    tries += 1;
    const { findings } = await fuzz({ ...options, inputs: 1, texts: [text], workers: 1 });
    return findings.some((one) => sign(one) === wanted);
  };
  let best = finding.text;
  for (const separator of ["\n", ""]) {
    for (let size = Math.ceil(best.split(separator).length / 2); size >= 1; size = Math.floor(size / 2)) {
      for (let from = 0; from < best.split(separator).length; ) {
        const parts = best.split(separator);
        parts.splice(from, size);
        const smaller = parts.join(separator);
        if (smaller.length < best.length && (await still(smaller))) best = smaller;
        else from += size;
        if (tries >= MOST_TRIES) return best;
      }
    }
  }
  return best;
}
