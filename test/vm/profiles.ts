// Hand-written profiles of the shape that clawsec uses: everything allowed, then denials.

import type { Job, Operation, Through } from "./operations.ts";

/** Everything that a sandbox's program may do as far as AppArmor is concerned; the other layers say more. */
const allowAll = ["file,", "network,", "unix,", "signal,", "ptrace,", "capability,", "mount,", "umount,"];

/** A profile that allows all but what the rules deny. */
export function allowAllBut(name: string, denials: readonly string[]): string {
  const rules = [...allowAll, ...denials].map((rule) => `  ${rule}\n`).join("");
  return `profile ${name} flags=(attach_disconnected,mediate_deleted) {\n${rules}}\n`;
}

/** What is expected of each operation under a profile. */
export interface Case {
  readonly title: string;
  readonly denials: readonly string[];
  /** Whole text instead of "all but the denials". */
  readonly profile?: string;
  readonly through?: Through;
  readonly denied?: readonly Operation[];
  readonly allowed?: readonly Operation[];
}

/** The case's operations, denied ones first. */
export function operations(one: Case): Operation[] {
  return [...(one.denied ?? []), ...(one.allowed ?? [])];
}

/** The job that finds out. */
export function jobOf(one: Case): Job {
  return {
    profile: one.profile ?? allowAllBut("clawsec-test", one.denials),
    profileName: "clawsec-test",
    through: one.through ?? "pivot_root",
    operations: operations(one),
  };
}

/** One line for each operation of a case: "denied write /x/f". */
export function expected(one: Case): string[] {
  const lines = (verdict: string, list: readonly Operation[] = []) =>
    list.map((operation) => `${verdict} ${describe(operation)}`);
  return [...lines("denied", one.denied), ...lines("allowed", one.allowed)];
}

/** An operation in words. */
export function describe({ op, path, to, before = [] }: Operation): string {
  const words = to === undefined ? [op, path] : [op, path, to];
  return [...before.map((step) => `${describe(step)}, then`), ...words].join(" ");
}
