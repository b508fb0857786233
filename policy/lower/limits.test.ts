// Limits of cgroups on a host that cannot set one of them.

import { describe, expect, test } from "vitest";
import { type CompileResult, compile } from "../compile.js";
import { renderDiagnostics } from "../diagnostics.js";
import { capabilities, SYSTEM, tableHost } from "../testing/host.js";
import { policy } from "../testing/policy.js";

const host = tableHost([...SYSTEM, "/srv/data/", "/srv/home/"]);

/** On a host without these, and without AppArmor. */
function lower(sections: string, ...without: string[]): CompileResult {
  return compile(policy(sections), {
    host,
    capabilities: capabilities({ without: ["apparmor", ...without] }),
  });
}

/** The limits that runc is told to set. */
function limits({ artefacts, diagnostics }: CompileResult): string[] {
  if (artefacts === undefined) throw new Error(renderDiagnostics(diagnostics));
  const oci = JSON.parse(artefacts.ociConfig.toString()) as { linux: { resources: object } };
  return Object.keys(oci.linux.resources).filter((kind) => kind !== "devices");
}

const ALL = ["memory", "cpu", "pids"];

describe.each(ALL)("a host without the %s controller", (missing) => {
  const name = `cgroup.${missing}`;
  const waive = `waive: [{ name: ${name}, reason: an old host }]\n`;

  test("runs no sandbox, and says what it lacks and what can be done", () => {
    const { artefacts, diagnostics } = lower("", name);
    expect(artefacts).toBe(undefined);
    expect(renderDiagnostics(diagnostics)).toContain(
      `sandbox.limits cannot be enforced: this host has no ${name} (it was tried and did not work)`,
    );
    expect(renderDiagnostics(diagnostics)).toContain(`Install ${name}.`);
    expect(limits(lower(""))).toEqual(ALL);
  });

  test("runs one whose policy waives that limit, and keeps the others", () => {
    const waived = lower(waive, name);
    expect(waived.diagnostics.map((d) => `${d.severity} ${d.code} ${d.rule}`)).toEqual([
      "warning waived sandbox.limits",
    ]);
    expect(limits(waived)).toEqual(ALL.filter((kind) => kind !== missing));
  });

  test("is not taken for one that has it: there the limit is set in spite of the waiver", () => {
    expect(limits(lower(waive))).toEqual(ALL);
  });

  test("is refused where another limit is waived", () => {
    const other = `cgroup.${missing === "cpu" ? "pids" : "cpu"}`;
    expect(lower(waive.replace(name, other), name).artefacts).toBe(undefined);
  });
});
