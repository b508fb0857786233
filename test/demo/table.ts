// What the demo prints: a line for each step, and the table at its end.

import { stripVTControlCharacters } from "node:util";

/** One thing that was tried, and what came of it. */
export interface StepResult {
  readonly number: string;
  readonly what: string;
  readonly expected: string;
  readonly verdict: string;
  readonly rule: string;
  readonly layer: string;
  readonly ms: number;
  readonly asExpected: boolean;
  /** Why it is not as expected, or what was seen. */
  readonly note: string;
}

const COLUMNS = [
  ["#", "number"],
  ["tried", "what"],
  ["verdict", "verdict"],
  ["rule", "rule"],
  ["layer", "layer"],
  ["ms", "ms"],
  ["as expected", "asExpected"],
] as const satisfies readonly (readonly [string, keyof StepResult])[];

/** The table as text, aligned, without trailing spaces. */
export function table(steps: readonly StepResult[]): string {
  const rows = [
    COLUMNS.map(([title]) => title as string),
    ...steps.map((step) => COLUMNS.map(([, key]) => cell(step[key]))),
  ];
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((text, column) => text.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function cell(value: string | number | boolean): string {
  if (typeof value === "boolean") return value ? "yes" : "NO";
  if (typeof value === "number") return value.toFixed(1);
  return oneLine(value, 48);
}

/** Text of the sandbox on one line, harmless to a terminal. */
export function oneLine(text: string, most: number): string {
  const flat = stripVTControlCharacters(text).replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]+/g,
    " ",
  );
  return flat.length > most ? `${flat.slice(0, most - 1)}…` : flat.trim();
}
