// Ways that need a start, an end or a sandbox of their own.

import type { Solo } from "./solo/way.js";

export const SOLO: readonly Solo[] = [];
