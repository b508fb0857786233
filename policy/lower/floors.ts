// Locked rules against waivers of mechanisms. A waiver by a rule's id is refused when the policy is read; what a mechanism
// carries is known only here, where rules go to layers.

import type { Policy, RuleBase, Waiver } from "../model.js";

export class Floors {
  readonly #policy: Policy | undefined;
  readonly #locked: ReadonlyMap<string, RuleBase>;

  constructor(policy: Policy | undefined) {
    this.#policy = policy;
    const rules = policy === undefined ? [] : [...policy.exec, ...policy.file, ...policy.network];
    this.#locked = new Map(rules.filter((rule) => rule.locked).map((rule) => [rule.id, rule]));
  }

  /**
   * The locked rule that the waiver of a mechanism must not weaken; undefined when there is none. `needs`: what was found
   * to need the mechanism, a rule's id or a part of the sandbox.
   */
  against(waiver: Waiver, needs: string): RuleBase | undefined {
    const own = this.#locked.get(needs);
    // No network rule goes to nftables, and all stand on it: it is what sees to it that nothing leaves but by the gate.
    const rules = waiver.name === "nftables" ? (this.#policy?.network ?? []) : [];
    const candidates = own === undefined ? rules.filter((rule) => rule.locked) : [own];
    return candidates.find((rule) => !this.#mayWaive(waiver, rule));
  }

  /**
   * True where the waiver is of the file that locks the rule, or of one that this file extends. What stands beside it, or
   * extends it, has no say: else a policy could put its waivers into a file of their own, before the base.
   */
  #mayWaive(waiver: Waiver, rule: RuleBase): boolean {
    const layers = this.#policy?.layers ?? [];
    const at = layers.findIndex(({ file }) => file === rule.origin.file);
    const from = layers.findIndex(({ file }) => file === waiver.origin.file);
    if (at < 0 || from < 0) return rule.origin.file === waiver.origin.file;
    return from <= at && from >= (layers[at]?.first ?? at);
  }
}
