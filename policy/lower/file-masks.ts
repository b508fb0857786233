// What lies below a mask: nothing. Who expects something there is told when the policy is compiled.

import { isWithin } from "../match/path.js";
import type { FileReport } from "./file-report.js";
import type { FileLayers } from "./files.js";

/**
 * Refuses a mask over mounts, and over trees that are left to a subject. A mask is empty, so what lies below it is not
 * there when the sandbox starts, and Landlock's trees must be: without them the shim refuses to run anything.
 */
export function checkBelowMask(tree: string, { view, policy }: FileLayers, say: FileReport): void {
  const isBelow = (path: string) => path !== tree && isWithin(path, tree);
  const inner = view.mounts.find(({ target }) => isBelow(target));
  if (inner !== undefined) {
    say.refuse(
      "cannot-enforce",
      "mounts",
      `the mount ${inner.target} lies below ${tree}, which the rule masks for everybody`,
      "Move the mount, take it out, or deny reading of narrower paths.",
    );
  }
  for (const { name, files } of policy.subjects) {
    const trees = files === undefined ? [] : [...files.read, ...files.write, ...files.exec];
    const granted = trees.find(({ path, optional }) => !optional && isBelow(path));
    if (granted === undefined) continue;
    say.refuse(
      "cannot-enforce",
      "landlock",
      `${granted.path} under "files" of the subject ${name} lies below ${tree}, which the rule masks for everybody`,
      "Take it out of the subject's files, or deny reading of narrower paths.",
    );
  }
}
