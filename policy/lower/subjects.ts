// Subjects: who they are for the loader. How a process comes into one is the evaluator's (`enterSubject`).

import type { Subject } from "../../proto/gen/clawsec/v1/loader.js";
import type { Policy } from "../model.js";
import { loopbackTable } from "./bpf.js";
import type { View } from "./host.js";
import { entryLandlock, programExists } from "./landlock.js";
import type { Capabilities, Report } from "./report.js";

export function lowerSubjects(
  policy: Policy,
  view: View,
  abi: number,
  capabilities: Capabilities,
  report: Report,
): Subject[] {
  return policy.subjects.map((subject, index) => {
    const { entry } = subject;
    const name = `subject ${subject.name}`;
    if (index > 0) capabilities.need(report, ["seccomp.notify", "bpf.exec_verify"], name, subject.origin);
    if (entry !== undefined && !programExists(entry.exec, view)) {
      report.error(
        "missing-path",
        name,
        "mounts",
        entry.origin,
        `the program ${entry.exec} of the entry ${entry.path} does not exist in the sandbox`,
        "Mount it, or name another.",
      );
    }
    if (entry !== undefined && !subject.enters.some((way) => way.executable.includes(entry.path))) {
      report.error(
        "unreachable",
        name,
        "exec gate",
        entry.origin,
        `the entry ${entry.path} leads nowhere: no way into ${subject.name} has it as its executable`,
        `Add "executable: ${entry.path}" to an item of its "enters".`,
      );
    }
    if (entry !== undefined && subject.enters.some((way) => !way.executable.every((e) => e === entry.path))) {
      report.error(
        "way-round-entry",
        name,
        "exec gate",
        entry.origin,
        `a process could come into ${subject.name} without passing its entry ${entry.path}, which narrows it`,
        'Have the entry as the only executable under "enters".',
      );
    }
    const how =
      entry === undefined
        ? "the exec gate moves it into its own cgroup at a matching exec"
        : `only through the shim at ${entry.path}, which adds a Landlock layer`;
    report.explain(
      name,
      index === 0 ? "main" : "enter",
      index === 0 ? "cgroup" : "exec gate",
      index === 0 ? "the main command starts in it" : how,
      subject.origin,
      index === 0 ? "" : "only an exec shows who a process becomes; a cgroup changes nothing by itself",
    );
    return {
      name: subject.name,
      entryPath: entry?.path ?? "",
      entryExec: entry?.exec ?? "",
      entryLandlock: abi === 0 ? undefined : entryLandlock(subject, view, abi, report),
      ...loopbackTable(subject),
    };
  });
}
