import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { SOLO } from "./solo.js";
import { TABLE_FILE, table } from "./table.js";
import { WAYS } from "./ways.js";

test("docs/escape.md says what is tried", () => {
  // After a change: tsc -p tsconfig.json && node dist/test/escape/table.js
  expect(readFileSync(TABLE_FILE, "utf8")).toBe(table());
});

test("each way has an id of its own", () => {
  const ids = [...WAYS, ...SOLO].map(({ id }) => id);
  expect(ids.filter((id, index) => ids.indexOf(id) !== index)).toEqual([]);
});
