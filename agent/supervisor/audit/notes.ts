/** What policies say about their rules, for the audit: found by the hash of the policy and the id of the rule. */

/** Of one rule. */
export interface RuleNote {
  readonly severity: string;
  readonly tags: readonly string[];
}

/** Of all rules of a policy, by their ids. */
export type RuleNotes = ReadonlyMap<string, RuleNote>;

/** Policies that are remembered: events arrive after their policy was replaced. */
const REMEMBERED = 32;

export class NoteBook {
  /** By the hash of the policy, the last one told last. */
  readonly #byHash: Map<string, RuleNotes>;

  constructor(known: Iterable<readonly [string, RuleNotes]> = []) {
    this.#byHash = new Map(known);
  }

  remember(policyHash: string, notes: RuleNotes): void {
    this.#byHash.delete(policyHash);
    this.#byHash.set(policyHash, notes);
    for (const hash of this.#byHash.keys()) {
      if (this.#byHash.size <= REMEMBERED) break;
      this.#byHash.delete(hash);
    }
  }

  /** The note of a rule; undefined when the policy or the rule is not known. */
  noteOf(policyHash: string, rule: string): RuleNote | undefined {
    return this.#byHash.get(policyHash)?.get(rule);
  }

  /** All that is remembered, to make another book of it. */
  entries(): [string, RuleNotes][] {
    return [...this.#byHash];
  }
}
