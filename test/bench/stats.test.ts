import { expect, test } from "vitest";
import { figure, spread } from "./stats.js";

test("percentiles are values of the series, by nearest rank", () => {
  const series = Array.from({ length: 200 }, (_, index) => 200 - index);
  expect(spread(series)).toEqual({ p50: 100, p99: 198, n: 200 });
  expect(spread([7])).toEqual({ p50: 7, p99: 7, n: 1 });
});

test("an empty series is an error, not a figure", () => {
  expect(() => spread([])).toThrow("no percentiles");
});

test("a ratio is ours over the baseline", () => {
  expect(figure("x", "us", "bare", [100, 100], [150, 150]).ratio).toBe(1.5);
});
