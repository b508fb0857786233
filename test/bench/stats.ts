// One figure, one method: baseline and ours, interleaved in the same run; p50, p99 and n of each, and the ratio of the p50s.

/** Spread of one series. */
export interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly n: number;
}

/** One figure of a run. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly baselineIs: string;
  readonly baseline: Spread;
  readonly ours: Spread;
  /** ours.p50 / baseline.p50 */
  readonly ratio: number;
  /** ours.p99 / baseline.p99 */
  readonly ratioP99: number;
}

/**
 * The spread of a series by the nearest-rank method.
 * @throws for an empty series: no measurement is no figure.
 */
export function spread(series: readonly number[]): Spread {
  if (series.length === 0) throw new Error("A series without a single measurement has no percentiles.");
  const sorted = series.toSorted((a, b) => a - b);
  return { p50: rank(sorted, 50), p99: rank(sorted, 99), n: sorted.length };
}

function rank(sorted: readonly number[], percent: number): number {
  const index = Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1);
  return round(sorted[index] ?? Number.NaN);
}

/** Puts a figure together. */
export function figure(
  name: string,
  unit: string,
  baselineIs: string,
  baseline: readonly number[],
  ours: readonly number[],
): Figure {
  const [before, after] = [spread(baseline), spread(ours)];
  const ratio = round(after.p50 / before.p50);
  return {
    name,
    unit,
    baselineIs,
    baseline: before,
    ours: after,
    ratio,
    ratioP99: round(after.p99 / before.p99),
  };
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
