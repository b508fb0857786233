// What lowering has to say: findings about rules that cannot be enforced, and rows for `clawsec policy explain`.

import { type Capability, CapabilityState } from "../../proto/gen/clawsec/v1/loader.js";
import type { Diagnostic, Origin } from "../diagnostics.js";
import type { Policy, RuleBase, Waiver } from "../model.js";
import { Floors } from "./floors.js";

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

/** Mechanisms that a policy can do without, if it says so. */
export const WAIVABLE: readonly string[] = [
  "landlock",
  "nftables",
  "tmpfs.noswap",
  "apparmor",
  "fanotify.perm",
  "cgroup.memory",
  "cgroup.pids",
  "cgroup.cpu",
];
/** Mechanisms that every sandbox stands on. */
export const REQUIRED: readonly string[] = ["runc", "seccomp.notify", "bpf.exec_verify", "netns.sk_lookup"];

/** Every mechanism that a host can have. */
const EVERYTHING: readonly string[] = [...REQUIRED, ...WAIVABLE, "bpf.lsm", "ptrace.hold", "file.names"];
/** A Landlock ABI that has all that is made use of (landlock(7)). */
const LANDLOCK_ABI = 7;

/** What a host has that lacks nothing. */
export function everyCapability(): Capability[] {
  return EVERYTHING.map((name) => ({
    name,
    state: CapabilityState.PRESENT,
    detail: "",
    remedy: "",
    level: name === "landlock" ? String(LANDLOCK_ABI) : "",
    required: false,
  }));
}

interface WaivedItem {
  readonly waiver: Waiver;
  readonly origin: Origin;
  readonly message: string;
}

export class Report {
  readonly diagnostics: Diagnostic[] = [];
  readonly #rows: ExplainRow[] = [];
  readonly #waivers: ReadonlyMap<string, Waiver>;
  /** Waivers that something was refused for. */
  readonly #used = new Set<string>();
  /** What was waived, and by which waiver. */
  readonly #waived = new Map<string, WaivedItem>();

  readonly #floors: Floors;

  /** Without a policy, nothing is waived. */
  constructor(policy?: Policy) {
    this.#waivers = new Map((policy?.waive ?? []).map((waiver) => [waiver.name, waiver]));
    this.#floors = new Floors(policy);
  }

  error(code: string, rule: string, layer: string, origin: Origin, message: string, remedy: string): void {
    this.diagnostics.push({ severity: "error", code, message, remedy, rule, layer, origin });
  }

  warning(code: string, rule: string, origin: Origin, message: string, remedy: string, layer = ""): void {
    this.diagnostics.push({ severity: "warning", code, message, remedy, rule, layer, origin });
  }

  explain(rule: string, action: string, layer: string, why: string, origin: Origin, notCheaper = ""): void {
    this.#rows.push({ rule, action, layer, why, notCheaper, origin: place(origin) });
  }

  /**
   * What cannot be enforced here: an error, or a warning when the policy waives the rule by its id, or the mechanism
   * that is missing (code "missing-layer", layer: its name) by its own. A mechanism that a locked rule needs is not waived
   * from outside: that is an error, too (code "locked"). True when it is waived.
   */
  refuse(
    code: string,
    rule: string,
    layer: string,
    origin: Origin,
    message: string,
    remedy: string,
  ): boolean {
    const byMechanism =
      code === "missing-layer" && WAIVABLE.includes(layer) ? this.#waivers.get(layer) : undefined;
    const waiver = this.#waivers.get(rule) ?? byMechanism;
    if (waiver === undefined) {
      this.error(code, rule, layer, origin, message, remedy);
      return false;
    }
    this.#used.add(waiver.name);
    const floor = waiver === byMechanism ? this.#floors.against(waiver, rule) : undefined;
    if (floor !== undefined) {
      this.#refuseLocked(floor, waiver);
      return false;
    }
    // A rule of many paths says it once; a mechanism is waived for each that needs it.
    const what = /^(exec|file|network)\//.test(rule) ? rule : layer;
    if (!this.#waived.has(what)) {
      this.#waived.set(what, { waiver, origin, message });
      this.warning("waived", rule, origin, `${message}. It is waived: ${waiver.reason}`, "", layer);
    }
    return true;
  }

  #refuseLocked(floor: RuleBase, { name, origin }: Waiver): void {
    // A rule of many paths says it once.
    if (this.diagnostics.some((d) => d.code === "locked" && d.rule === floor.id && d.layer === name)) return;
    this.error(
      "locked",
      floor.id,
      name,
      origin,
      `${name} cannot be waived here: the rule ${floor.id}, which is locked by ${place(floor.origin)}, needs it, and this host has no ${name}`,
      "Run it on a host that has it; only the file with the locked rule, and those that it extends, can waive it.",
    );
  }

  /** True when the rule, or the mechanism where no rule needs it by itself, was refused and the policy waives it. */
  isWaived(name: string): boolean {
    return this.#waived.has(name);
  }

  /** All rows: what was waived has one row, which says so, where its first one stood. */
  get rows(): readonly ExplainRow[] {
    const rest = new Set(this.#waived.keys());
    const rows = this.#rows.flatMap((row) => {
      if (!this.#waived.has(row.rule)) return [row];
      return rest.delete(row.rule) ? [this.#waivedRow(row.rule, row.action)] : [];
    });
    return [...rows, ...[...rest].map((rule) => this.#waivedRow(rule, ""))];
  }

  #waivedRow(rule: string, action: string): ExplainRow {
    const { waiver, origin, message } = this.#waived.get(rule) as WaivedItem;
    return {
      rule,
      action: action || "waive",
      layer: "waived",
      why: waiver.reason,
      notCheaper: message,
      origin: place(origin),
    };
  }

  /** Checks the waivers themselves, once everything is lowered. `rules`: ids of the policy's rules. */
  checkWaivers(rules: ReadonlySet<string>): void {
    for (const { name, origin } of this.#waivers.values()) {
      if (REQUIRED.includes(name)) {
        this.error(
          "waiver-refused",
          name,
          name,
          origin,
          `${name} cannot be waived: every sandbox stands on it`,
          "Remove the waiver, and run clawsec doctor for how this host can have it.",
        );
      } else if (!rules.has(name) && !WAIVABLE.includes(name)) {
        this.error(
          "waiver-unknown",
          name,
          "",
          origin,
          `nothing of the name ${name} can be waived`,
          `Name a rule by its id, e.g. file/ID, or one of ${WAIVABLE.join(", ")}.`,
        );
      } else if (!this.#used.has(name)) {
        this.warning(
          "waiver-unused",
          name,
          origin,
          `${name} is waived, but nothing had to be left out for want of it: all is enforced`,
          "Remove the waiver, or keep it for hosts that need it.",
        );
      }
    }
  }

  get failed(): boolean {
    return this.diagnostics.some((d) => d.severity === "error");
  }
}

function place(origin: Origin): string {
  return `${origin.file}:${origin.line}`;
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

  /** Reports each missing mechanism; true when all are there (false also for one that is waived). */
  need(report: Report, names: readonly string[], rule: string, origin: Origin): boolean {
    const missing = names.filter((name) => !this.has(name));
    for (const name of missing) {
      const why = this.detail(name);
      report.refuse(
        "missing-layer",
        rule,
        name,
        origin,
        `${rule} cannot be enforced: this host has no ${name}${why === "" ? "" : ` (${why})`}`,
        this.remedy(name),
      );
    }
    return missing.length === 0;
  }

  /** What was found when it was tried; "" when nothing is known. */
  detail(name: string): string {
    return this.#known.get(name)?.detail ?? "";
  }

  /** What can be done about a missing one. */
  remedy(name: string): string {
    return this.#known.get(name)?.remedy || "Run clawsec doctor for what this host lacks, or drop the rule.";
  }
}
