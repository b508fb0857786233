/** Times on the command line. */
import { InvalidArgumentError } from "commander";

const UNITS_US: Record<string, number> = { s: 1e6, m: 60e6, h: 3600e6, d: 86_400e6 };

/** "10m" ago, or an ISO time, as microseconds since the epoch. */
export function instantUs(value: string, _before?: unknown, nowMs = Date.now()): number {
  const ago = /^(\d+)([smhd])$/.exec(value);
  if (ago !== null) return Math.max(1, nowMs * 1000 - Number(ago[1]) * (UNITS_US[ago[2] ?? "s"] ?? 1e6));
  const instant = /^\d{4}-\d{2}-\d{2}/.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(instant))
    throw new InvalidArgumentError("Say 10m, 2h or 3d for so long ago, or an ISO time.");
  return instant * 1000;
}
