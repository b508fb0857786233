// Every way, by family.

import type { Family, Way } from "./way.js";
import { execFamily } from "./ways/exec.js";
import { filesFamily } from "./ways/files.js";
import { kernelFamily } from "./ways/kernel.js";
import { networkFamily } from "./ways/network.js";
import { packFamily } from "./ways/pack.js";
import { processFamily } from "./ways/process.js";

export const FAMILIES: readonly Family[] = [
  execFamily,
  packFamily,
  processFamily,
  kernelFamily,
  filesFamily,
  networkFamily,
];

export const WAYS: readonly Way[] = FAMILIES.flatMap(({ ways }) => ways);
