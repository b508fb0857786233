// Ways that need a start, an end or a sandbox of their own.

import { againSolo } from "./solo/again.js";
import { borderSolo } from "./solo/border.js";
import { fullSolo } from "./solo/full.js";
import { heldSolo } from "./solo/held.js";
import { laterSolo } from "./solo/later.js";
import { policySolo } from "./solo/policy.js";
import { reloadSolo } from "./solo/reload.js";
import { scriptSolo } from "./solo/scripts.js";
import { surviveSolo } from "./solo/survive.js";
import type { Solo } from "./solo/way.js";

/** In this order: the last one kills the loader. */
export const SOLO: readonly Solo[] = [
  ...policySolo,
  ...reloadSolo,
  ...heldSolo,
  ...scriptSolo,
  ...laterSolo,
  ...surviveSolo,
  ...againSolo,
  ...fullSolo,
  ...borderSolo,
];
