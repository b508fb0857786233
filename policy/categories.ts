// The catalogue of risk categories, as far as the language needs it: which names there are, and which of them a
// command has. The catalogue is empty for now, so a policy that names a category is refused.

import type { ExecAction } from "../proto/gen/clawsec/v1/loader.js";

/** Names that `category` of an exec rule may have. */
export const CATEGORIES: readonly string[] = [];

/**
 * Categories of a command, in the catalogue's order. They may depend on these facts only: answers are kept for the
 * same file with the same arguments, script and folder.
 */
export function categoriesOf(
  _exec: Pick<ExecAction, "executable" | "script" | "argv" | "cwd">,
): readonly string[] {
  return [];
}
