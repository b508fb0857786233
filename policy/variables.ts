// ${name} in values. Plain text replacement, once, by values that are already complete: no recursion.
// "$$" is a "$"; any other "$" stands for itself.

import type { Origin } from "./diagnostics.js";

export const VARIABLE_NAME = /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/;
const NONE: readonly string[] = [];
const REFERENCE = /\$\$|\$\{([^}]*)\}/g;

export interface Expansion {
  readonly text: string;
  /** True when a variable was put in. */
  readonly changed: boolean;
  /** Names that are not declared. */
  readonly unknown: readonly string[];
  /** Names that are declared, but have no value. */
  readonly unset: readonly string[];
}

/** Declared variables in the order of the file; undefined is "must be given by whoever runs the policy". */
export class Variables {
  readonly #values = new Map<string, string | undefined>();

  declare(name: string, value: string | undefined): void {
    this.#values.set(name, value);
  }

  names(): string[] {
    return [...this.#values.keys()];
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** Fills in a text. `quote` is for patterns: a "*" in a folder's name then matches that folder only. */
  expand(text: string, quote: (value: string) => string = (value) => value): Expansion {
    if (!text.includes("$")) return { text, changed: false, unknown: NONE, unset: NONE };
    const unknown: string[] = [];
    const unset: string[] = [];
    let changed = false;
    const expanded = text.replace(REFERENCE, (whole, name: string | undefined) => {
      if (name === undefined) return "$";
      changed = true;
      const value = this.#values.get(name);
      if (!this.#values.has(name)) unknown.push(name);
      else if (value === undefined) unset.push(name);
      if (value === undefined) return whole;
      return quote(value);
    });
    return { text: expanded, changed, unknown, unset };
  }
}

/** Where a variable is declared, for messages about it. */
export interface Declared {
  readonly name: string;
  readonly origin: Origin;
}
