// Explain rows as a table for people.

import type { ExplainRow } from "./lower/report.js";

/**
 * Columns: rule, action, layer, where it is written, why. Below a row, indented, why no cheaper layer decides it,
 * where there is a cheaper one. No trailing spaces.
 */
export function renderExplain(rows: readonly ExplainRow[]): string {
  const table = [
    ["RULE", "ACTION", "LAYER", "WRITTEN AT", "WHY"],
    ...rows.map((r) => [r.rule, r.action, r.layer, r.origin, r.why]),
  ];
  const below = ["", ...rows.map((r) => (r.notCheaper === "" ? "" : `\n    not cheaper: ${r.notCheaper}`))];
  const widths = [0, 1, 2, 3].map((column) =>
    table.reduce((widest, row) => Math.max(widest, row[column]?.length ?? 0), 0),
  );
  return table
    .map((row, line) => {
      const cells = row.map((cell, i) => cell.padEnd(widths[i] ?? 0));
      return cells.join("  ").trimEnd() + below[line];
    })
    .join("\n");
}
