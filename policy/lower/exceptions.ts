// Which rule speaks first of a part of a tree: a static layer cannot leave that part out of a later denial.

import { parent, patternScopes } from "../match/path.js";
import type { FileOperationName, FileRule } from "../model.js";

/** Operations that are one to the kernel, or to the evaluator: an exception from one is an exception from all. */
function group(operation: FileOperationName): string {
  switch (operation) {
    case "read":
    case "open":
      return "open";
    case "exec":
      return "exec";
    default:
      return "write";
  }
}

/**
 * Rules that permit or ask, by their trees. A look-up takes steps in proportion to the depth of the path, however
 * many rules there are.
 */
export class Exceptions {
  /** First rule with this tree, and first rule with a tree at or below this folder; keys are "group path". */
  readonly #at = new Map<string, { rule: FileRule; index: number }>();
  readonly #below = new Map<string, { rule: FileRule; index: number }>();
  #count = 0;

  /** Rules in the order of the policy. Denials and floors make no exceptions: a denial is stricter than any hold. */
  add(rule: FileRule): void {
    if (rule.action === "deny" || rule.locked || rule.mode === "observe") return;
    const entry = { rule, index: this.#count++ };
    for (const name of new Set(rule.operations.map(group))) {
      for (const { tree } of rule.path.flatMap(patternScopes)) {
        if (!this.#at.has(`${name} ${tree}`)) this.#at.set(`${name} ${tree}`, entry);
        for (const folder of upwards(tree)) {
          const key = `${name} ${folder}`;
          // What is above is known already, too.
          if (this.#below.has(key)) break;
          this.#below.set(key, entry);
        }
      }
    }
  }

  /** The first rule so far about a part of the tree, or about a tree around it; undefined when there is none. */
  find(operations: Iterable<FileOperationName>, tree: string): FileRule | undefined {
    let first: { rule: FileRule; index: number } | undefined;
    const consider = (entry: typeof first) => {
      if (entry !== undefined && (first === undefined || entry.index < first.index)) first = entry;
    };
    for (const name of new Set([...operations].map(group))) {
      consider(this.#below.get(`${name} ${tree}`));
      for (const folder of upwards(tree)) consider(this.#at.get(`${name} ${folder}`));
    }
    return first?.rule;
  }
}

/** The path, and all folders above it up to "/". */
function upwards(path: string): string[] {
  const result = [path];
  for (let p = path; p !== "/"; ) {
    p = parent(p);
    result.push(p);
  }
  return result;
}
