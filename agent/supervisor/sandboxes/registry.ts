/** The sandboxes of this supervisor: the policy each runs under, and what the loader last said of it. */
import type { Policy } from "../../../policy/index.js";
import type { SandboxInfo } from "../../../proto/gen/clawsec/v1/loader.js";
import { isLive } from "../../../proto/words.js";
import { sentence } from "../../common/grpc.js";
import type { RuleNotes } from "../audit/notes.js";
import { storedPolicy } from "./compile.js";
import type { SandboxRecord, SandboxStore } from "./store.js";

/** A sandbox and its policy. */
export interface Sandbox {
  readonly record: SandboxRecord;
  /** A sentence instead when the stored policy could not be read again: every question is then denied with it. */
  readonly policy: Policy | { readonly unreadable: string };
  /** As the loader said last; undefined before it said anything. */
  readonly info: SandboxInfo | undefined;
  /** True while the loader is away: what is known may be out of date. */
  readonly lost: boolean;
}

export class SandboxRegistry {
  readonly #store: SandboxStore;
  readonly #sandboxes = new Map<string, Sandbox>();
  readonly #ended = new Set<string>();
  #onPolicy: (hash: string, notes: RuleNotes) => void = () => {};

  readonly #changed: (name: string) => void;

  /** Reloads what `store` has. `changed` is called after each change of what is known of a sandbox. */
  constructor(store: SandboxStore, changed: (name: string) => void = () => undefined) {
    this.#store = store;
    this.#changed = changed;
    for (const record of store.all()) {
      const policy = reparse(record);
      this.#sandboxes.set(record.name, { record, policy, info: undefined, lost: true });
    }
  }

  get(name: string): Sandbox | undefined {
    return this.#sandboxes.get(name);
  }

  all(): Sandbox[] {
    return [...this.#sandboxes.values()];
  }

  /** A new sandbox, or a new policy for one. On disk when this returns. */
  put(record: SandboxRecord, policy: Policy, info?: SandboxInfo): void {
    this.#store.put(record);
    this.#onPolicy(policy.hash, notesOf(policy));
    const before = this.#sandboxes.get(record.name);
    this.#ended.delete(record.name);
    this.#sandboxes.set(record.name, { record, policy, info: info ?? before?.info, lost: false });
    this.#changed(record.name);
  }

  /** Tells what each policy says about its rules: those that are in force now, and each one before it comes into force. */
  tellPolicies(listener: (hash: string, notes: RuleNotes) => void): void {
    this.#onPolicy = listener;
    for (const { policy } of this.#sandboxes.values()) {
      if (!("unreadable" in policy)) listener(policy.hash, notesOf(policy));
    }
  }

  /** What the loader says of a sandbox now. */
  seen(info: SandboxInfo): void {
    const sandbox = this.#sandboxes.get(info.name);
    if (sandbox === undefined) return;
    this.#sandboxes.set(info.name, { ...sandbox, info, lost: false });
    this.#changed(info.name);
  }

  /** Its end is recorded: a later supervisor need not know it. Kept here for who asks about it. */
  ended(info: SandboxInfo): void {
    this.seen(info);
    this.#store.remove(info.name);
    this.#ended.add(info.name);
  }

  /** True when the end of a sandbox was recorded. */
  hasEnded(name: string): boolean {
    return this.#ended.has(name);
  }

  remove(name: string): void {
    this.#store.remove(name);
    this.#sandboxes.delete(name);
    this.#ended.delete(name);
    this.#changed(name);
  }

  /** The loader is away. Returns the names of the sandboxes that were live. */
  markLost(): string[] {
    const live: string[] = [];
    for (const [name, sandbox] of this.#sandboxes) {
      if (!sandbox.lost && sandbox.info !== undefined && isLive(sandbox.info.state)) live.push(name);
      this.#sandboxes.set(name, { ...sandbox, lost: true });
    }
    return live;
  }

  /** Compares with the loader's list. Returns which of the `expected` it does not have, though their end is not recorded. */
  reconcile(infos: readonly SandboxInfo[], expected: readonly string[]): string[] {
    for (const info of infos) this.seen(info);
    const known = new Set(infos.map(({ name }) => name));
    const missing = expected.filter((name) => !known.has(name) && this.#sandboxes.has(name));
    const gone = missing.filter((name) => !this.#ended.has(name));
    for (const name of missing) this.remove(name);
    return gone;
  }

  close(): void {
    this.#store.close();
  }
}

function notesOf(policy: Policy): RuleNotes {
  const rules = [...policy.exec, ...policy.file, ...policy.network];
  return new Map(rules.map(({ id, severity, tags }) => [id, { severity, tags }]));
}

function reparse(record: SandboxRecord): Sandbox["policy"] {
  try {
    return storedPolicy(record).policy;
  } catch (error) {
    return { unreadable: `the stored policy of ${record.name} could not be read again: ${sentence(error)}` };
  }
}
