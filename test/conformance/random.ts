// Choices from a seed. The same seed makes the same policies and the same actions, on every host.

/** xorshift32 (Marsaglia, "Xorshift RNGs", 2003): plenty for choosing among examples. */
export class Random {
  #state: number;

  /** @param seed any number; its lower 32 bits count. */
  constructor(seed: number) {
    // Neighbouring seeds must not begin alike, and the state must not be 0.
    this.#state = Math.imul((seed | 0) ^ 0x5bd1e995, 0x9e3779b1) || 1;
    for (let i = 0; i < 8; i++) this.#next();
  }

  #next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** A whole number from 0 up to, not including, `limit`. */
  below(limit: number): number {
    return this.#next() % limit;
  }

  /** True with a probability of `percent` in 100. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(list: readonly T[]): T {
    const item = list[this.below(list.length)];
    if (item === undefined) throw new Error("There is nothing to pick from.");
    return item;
  }

  /** One to `most` different items, in the order of the list. */
  some<T>(list: readonly T[], most: number): T[] {
    const wanted = 1 + this.below(Math.min(most, list.length));
    const left = new Set(list.keys());
    while (left.size > wanted) left.delete(this.pick([...left]));
    return [...left].flatMap((index) => list.slice(index, index + 1));
  }

  /** One of several makers, each as often as its weight says. */
  weighted<T>(makers: readonly (readonly [weight: number, make: () => T])[]): T {
    let left = this.below(makers.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, make] of makers) {
      left -= weight;
      if (left < 0) return make();
    }
    throw new Error("There is no maker to choose.");
  }
}
