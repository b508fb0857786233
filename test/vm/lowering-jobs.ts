// Policies through the real compiler, as jobs of the AppArmor harness.

import { type CompileResult, compile } from "../../policy/compile.ts";
import { renderDiagnostics } from "../../policy/diagnostics.ts";
import { capabilities, SYSTEM, tableHost } from "../../policy/testing/host.ts";
import { policy } from "../../policy/testing/policy.ts";
import type { DenyRule } from "./meaning.ts";
import type { Job, Operation, Through } from "./operations.ts";

// The view has these, too: a home folder that can be written, a folder in it, and another mount.
const host = tableHost([...SYSTEM, "/srv/home/state/deep/", "/srv/bound/"]);
const sandbox = `sandbox:
  command: [/bin/sh]
  home: /home/agent
  workspace: /home/agent
  mounts:
    - { source: /usr }
    - { source: /srv/home, target: /home/agent, mode: rw }
    - { source: /srv/bound, target: /bound, mode: rw }
`;

/** Compiles rules that deny. */
export function lower(rules: readonly DenyRule[]): CompileResult {
  const lines = rules.map(
    ({ path, operations }, index) =>
      `  - { id: r${index}, path: ${JSON.stringify(path)}, operations: [${operations.join(", ")}], action: deny }\n`,
  );
  return compile(policy(`${sandbox}file:\n${lines.join("")}`), {
    host,
    capabilities: capabilities(),
    name: "lowered",
  });
}

/** Mount points of a compiled policy that the view needs to have, outer ones first. */
export function mountsOf({ artefacts }: CompileResult): string[] {
  const { mounts } = JSON.parse(artefacts?.ociConfig.toString() ?? '{"mounts":[]}') as {
    mounts: { destination: string }[];
  };
  return mounts.map((m) => m.destination).filter((path) => `${path}/`.startsWith("/home/agent/"));
}

/**
 * The job that tries operations under what the compiler made of the rules.
 *
 * @throws Error where it made no profile of them.
 */
export function lowered(
  rules: readonly DenyRule[],
  operations: readonly Operation[],
  through: Through = "pivot_root",
): Job {
  const result = lower(rules);
  const profile = result.artefacts?.apparmor;
  if (profile === undefined)
    throw new Error(`no profile of ${JSON.stringify(rules)}: ${renderDiagnostics(result.diagnostics)}`);
  return { profile: profile.text, profileName: profile.name, through, operations, mounts: mountsOf(result) };
}
