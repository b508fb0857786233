// What lowering has to say: findings about rules that cannot be enforced, and rows for `clawsec policy explain`.

import { type Capability, CapabilityState } from "../../proto/gen/clawsec/v1/loader.js";
import type { Diagnostic, Origin } from "../diagnostics.js";

/** One rule, and the layer that enforces it on this host. */
export interface ExplainRow {
  readonly rule: string;
  readonly action: string;
  readonly layer: string;
  /** How that layer enforces it. */
  readonly why: string;
  /** Why no cheaper layer does; "" when there is none. */
  readonly notCheaper: string;
  /** file:line */
  readonly origin: string;
}

export class Report {
  readonly diagnostics: Diagnostic[] = [];
  readonly rows: ExplainRow[] = [];

  error(code: string, rule: string, layer: string, origin: Origin, message: string, remedy: string): void {
    this.diagnostics.push({ severity: "error", code, message, remedy, rule, layer, origin });
  }

  warning(code: string, rule: string, origin: Origin, message: string, remedy: string): void {
    this.diagnostics.push({ severity: "warning", code, message, remedy, rule, layer: "", origin });
  }

  explain(rule: string, action: string, layer: string, why: string, origin: Origin, notCheaper = ""): void {
    this.rows.push({ rule, action, layer, why, notCheaper, origin: `${origin.file}:${origin.line}` });
  }

  get failed(): boolean {
    return this.diagnostics.some((d) => d.severity === "error");
  }
}

/** Mechanisms of the host, by name. What is not in the list is missing. */
export class Capabilities {
  readonly #known: ReadonlyMap<string, Capability>;

  constructor(capabilities: readonly Capability[]) {
    this.#known = new Map(capabilities.map((c) => [c.name, c]));
  }

  has(name: string): boolean {
    return this.#known.get(name)?.state === CapabilityState.PRESENT;
  }

  /** A level such as Landlock's ABI; 0 when the mechanism is missing or has none. */
  level(name: string): number {
    const level = Number(this.#known.get(name)?.level ?? "");
    return this.has(name) && Number.isInteger(level) ? level : 0;
  }

  /** Reports each missing mechanism; true when all are there. */
  need(report: Report, names: readonly string[], rule: string, origin: Origin): boolean {
    const missing = names.filter((name) => !this.has(name));
    for (const name of missing) {
      const capability = this.#known.get(name);
      const why = capability?.detail ? ` (${capability.detail})` : "";
      const remedy = capability?.remedy || "Run clawsec doctor for what this host lacks, or drop the rule.";
      report.error(
        "missing-layer",
        rule,
        name,
        origin,
        `${rule} cannot be enforced: this host has no ${name}${why}`,
        remedy,
      );
    }
    return missing.length === 0;
  }
}
