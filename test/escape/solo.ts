// Ways that need a start, an end or a sandbox of their own.

import { borderSolo } from "./solo/border.js";
import { policySolo } from "./solo/policy.js";
import { surviveSolo } from "./solo/survive.js";
import type { Solo } from "./solo/way.js";

/** In this order: the last one kills the loader. */
export const SOLO: readonly Solo[] = [...policySolo, ...surviveSolo, ...borderSolo];
