// A way that needs a start, an end or a sandbox of its own.

import type { Stage } from "../setup.js";

export interface Solo {
  readonly id: string;
  readonly tries: string;
  readonly layer: string;
  /** Who tries it, for people. */
  readonly who: string;
  /** True when the effect was seen where clawsec is not, or where the policy allows it. */
  control(stage: Stage, folder: string): Promise<boolean>;
  /** True when the effect was seen under clawsec. `folder` is new and empty, and gone afterwards. */
  sandbox(stage: Stage, folder: string): Promise<boolean>;
}
