// Whether anything in the sandbox could change what a path pattern matches.

import { isWithin, patternScopes } from "../match/path.js";
import type { Mount } from "../model.js";
import type { View } from "./host.js";

/** True when all that the pattern can match lies on read-only mounts whose sources no writable mount shows. */
export function readOnly(pattern: string, view: View): boolean {
  return patternScopes(pattern).every(({ tree }) => {
    const around = view.mountOf(tree);
    const inside = view.mounts.filter((mount) => mount.target !== tree && isWithin(mount.target, tree));
    const mounts = around === undefined ? inside : [around, ...inside];
    // Outside all mounts is the root file system, which is read-only and holds nothing that could run.
    return mounts.length > 0 && mounts.every((mount) => mount.mode === "ro" && !isShownWritable(mount, view));
  });
}

function isShownWritable(mount: Mount, view: View): boolean {
  const source = view.source(mount);
  return view.mounts.some(
    (m) =>
      m.kind === "bind" &&
      m.mode === "rw" &&
      (isWithin(source, view.source(m)) || isWithin(view.source(m), source)),
  );
}
