// Locked rules against the other files of a policy. A floor means what its file says alone: together with what that file
// extends, in that order. No other file, whether it extends that one or stands beside it, can change what the rule takes
// from elsewhere: its variables, the subjects it names, the workspace, the sandbox's user.

import type { Origin } from "../diagnostics.js";
import type { RuleBase } from "../model.js";
import { Context, type Node } from "./context.js";
import { type Layer, sections } from "./layers.js";
import { place } from "./merge.js";
import { DEFAULT_HOME, DEFAULT_UID } from "./sandbox.js";
import * as v from "./values.js";
import { type DeclaredVariables, references } from "./variables.js";

/** What a rule can take from the section "sandbox". */
export type SandboxPart = "workspace" | "user";

interface Chosen {
  readonly node: Node;
  readonly layer: number;
}

/** How each part is found: the keys of which the first that is there counts, the usual value, and its reader. */
const PARTS: Readonly<
  Record<
    SandboxPart,
    {
      readonly paths: readonly (readonly string[])[];
      readonly usual: string | number;
      readonly read: (context: Context, node: Node) => string | number | undefined;
      readonly why: string;
    }
  >
> = {
  workspace: {
    paths: [["workspace"], ["home"]],
    usual: DEFAULT_HOME,
    read: (context, node) => v.path(context, node, "the workspace"),
    why: "inWorkspace",
  },
  user: {
    paths: [["user", "uid"]],
    usual: DEFAULT_UID,
    read: (context, node) => v.integer(context, node, "the uid", 0, Number.MAX_SAFE_INTEGER),
    why: "owner: user",
  },
};

/** Reports into `context`, with the code "locked". Layers are furthest first. */
export class FloorCheck {
  constructor(
    readonly context: Context,
    readonly layers: readonly Layer[],
    readonly variables: DeclaredVariables,
  ) {}

  /** A locked rule of a layer that was read with these variables. */
  checkVariables(rule: RuleBase, layer: number, used: readonly string[]): void {
    for (const name of new Set(used)) {
      const moved = this.variables.moved(name, this.#own(layer));
      if (moved === undefined) continue;
      this.context.error(
        rule.origin,
        "locked",
        `the rule ${rule.id} is locked, and ${this.layers[moved.by]?.file} gives another value to its variable "${moved.name}"`,
        `Use another variable there, or give it when the policy is run: --var ${moved.name}=VALUE.`,
        rule.id,
      );
    }
  }

  /**
   * A locked rule of a layer that takes a part of the sandbox. A file that neither has a section "sandbox" nor extends one
   * that has leaves the part open, as it leaves open a variable without a value.
   */
  checkSandbox(rule: RuleBase, layer: number, part: SandboxPart): void {
    const own = this.#own(layer);
    if (!own.some((index) => this.layers[index]?.fields.has("sandbox"))) return;
    const { usual, read, why } = PARTS[part];
    const mine = this.#chosen(own, part);
    const last = this.#chosen([...this.layers.keys()], part);
    if (mine !== undefined) this.checkVariables(rule, layer, referencesIn(mine.node));
    if (last === undefined || mine?.node === last.node) return;
    // What is wrong with a value is reported where the sandbox is read.
    const quiet = new Context(this.context.variables);
    const value = (chosen: Chosen | undefined) => (chosen === undefined ? usual : read(quiet, chosen.node));
    if (value(mine) === value(last)) return;
    this.#refuse(
      last.node.origin,
      rule,
      `with "${why}", so ${value(mine)} cannot become ${value(last)} here`,
      `Leave sandbox.${part} as ${place(rule).replace(/:\d+$/, "")} has it, or change it in that file.`,
    );
  }

  /** Locked rules that name subjects bind only as long as nobody else changes who is in them. */
  checkSubjects(rules: readonly RuleBase[]): void {
    for (const rule of rules) {
      if (!rule.locked || rule.subjects.length === 0) continue;
      const layer = this.layers.findIndex(({ file }) => file === rule.origin.file);
      const own = this.#own(layer).filter((index) => this.layers[index]?.fields.has("subjects"));
      const all = sections(this.layers, "subjects");
      const because = `for the subject "${rule.subjects[0]}", so the subjects cannot be changed here`;
      const remedy = 'Leave the subjects as they are, or let the rule hold for all: leave out its "subject".';
      for (const other of all) {
        const fields = this.layers[other.layer]?.fields;
        if (own.includes(other.layer) || fields === undefined) continue;
        this.#refuse(fields.originOf("subjects"), rule, because, remedy);
      }
      const order = all.map((each) => each.layer).filter((index) => own.includes(index));
      const main = this.layers.at(-1)?.fields;
      if (main !== undefined && own.some((index, i) => order[i] !== index))
        this.#refuse(main.originOf("extends"), rule, because, "Extend that file before those it extends.");
      this.checkVariables(
        rule,
        layer,
        all.filter((each) => own.includes(each.layer)).flatMap(({ node }) => referencesIn(node)),
      );
    }
  }

  #own(layer: number): readonly number[] {
    return this.layers[layer]?.own ?? [];
  }

  /** What counts of the sandboxes of these layers, furthest first; undefined for the usual. */
  #chosen(order: readonly number[], part: SandboxPart): Chosen | undefined {
    for (const path of PARTS[part].paths) {
      for (const layer of [...order].reverse()) {
        let node = this.layers[layer]?.fields.get("sandbox");
        for (const key of path) {
          node = node?.kind === "map" ? node.entries.find((entry) => entry.key === key)?.value : undefined;
        }
        if (node !== undefined) return { node, layer };
      }
    }
    return undefined;
  }

  #refuse(origin: Origin, rule: RuleBase, because: string, remedy: string): void {
    const message = `the rule ${rule.id} is locked by ${place(rule)} ${because}`;
    this.context.error(origin, "locked", message, remedy, rule.id);
  }
}

/** Names of the variables in a node and all below it. */
function referencesIn(node: Node): string[] {
  switch (node.kind) {
    case "scalar":
      return references(node);
    case "list":
      return node.items.flatMap(referencesIn);
    case "map":
      return node.entries.flatMap(({ value }) => referencesIn(value));
  }
}
