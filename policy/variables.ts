// ${name} in values. Plain text replacement, once, by values that are already complete: no recursion.
// "$$" is a "$"; any other "$" stands for itself.

export const VARIABLE_NAME = /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/;
const NONE: readonly string[] = [];
const REFERENCE = /\$\$|\$\{([^}]*)\}/g;

export interface Expansion {
  readonly text: string;
  /** Names that are not declared. */
  readonly unknown: readonly string[];
  /** Names that are declared, but have no value. */
  readonly unset: readonly string[];
}

/** Declared variables in their order. */
export class Variables {
  /** Undefined: must be given by whoever runs the policy. */
  readonly #variables = new Map<string, string | undefined>();
  #recording: Set<string> | undefined;

  declare(name: string, value: string | undefined): void {
    this.#variables.set(name, value);
  }

  names(): string[] {
    return [...this.#variables.keys()];
  }

  has(name: string): boolean {
    return this.#variables.has(name);
  }

  /** Runs `read` and says which variables it filled in. */
  recorded<T>(read: () => T): { value: T; used: string[] } {
    const before = this.#recording;
    const used = new Set<string>();
    this.#recording = used;
    try {
      return { value: read(), used: [...used] };
    } finally {
      this.#recording = before;
    }
  }

  /** Fills in a text. `quote` is for patterns: a "*" in a folder's name then matches that folder only. */
  expand(text: string, quote: (value: string) => string = (value) => value): Expansion {
    if (!text.includes("$")) return { text, unknown: NONE, unset: NONE };
    const unknown: string[] = [];
    const unset: string[] = [];
    const expanded = text.replace(REFERENCE, (whole, name: string | undefined) => {
      if (name === undefined) return "$";
      this.#recording?.add(name);
      const value = this.#variables.get(name);
      if (!this.#variables.has(name)) unknown.push(name);
      else if (value === undefined) unset.push(name);
      return value === undefined ? whole : quote(value);
    });
    return { text: expanded, unknown, unset };
  }
}
