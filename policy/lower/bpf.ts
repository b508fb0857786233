// What goes into BPF maps: for each subject the loopback ports that it may connect and send to. The programs that
// read them hang on the subject's cgroup.

import type { Subject } from "../../proto/gen/clawsec/v1/loader.js";
import type { SubjectModel } from "../model.js";

export type LoopbackTable = Pick<Subject, "loopbackPorts" | "loopbackAny">;

/** The ports of one subject, ascending, each once. With `loopbackAny` the list is empty and has no meaning. */
export function loopbackTable({ loopback }: SubjectModel): LoopbackTable {
  return {
    loopbackPorts: loopback === "any" ? [] : [...new Set(loopback)].sort((a, b) => a - b),
    loopbackAny: loopback === "any",
  };
}
