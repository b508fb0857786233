// Explain rows as a table for people.

import type { ExplainRow } from "./lower/report.js";

/** Columns: rule, action, layer, where it is written, why. One line a row, no trailing spaces. */
export function renderExplain(rows: readonly ExplainRow[]): string {
  const table = [
    ["RULE", "ACTION", "LAYER", "WRITTEN AT", "WHY"],
    ...rows.map((r) => [r.rule, r.action, r.layer, r.origin, r.why]),
  ];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  return table
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
