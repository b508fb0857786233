import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { REFERENCE, TABLES, tablesOf, withTables } from "./reference.js";

const page = readFileSync(REFERENCE, "utf8");

test("the tables of docs/policy.md are what the schema says", () => {
  // After a change: tsc -p tsconfig.json && node dist/test/docs/reference.js
  expect(page).toBe(withTables(page));
});

test("a table that says something else is found, and one for nothing is refused", () => {
  expect(withTables(page.replace("| `executable` |", "| `executables` |"))).toBe(page);
  expect(() => withTables("<!-- generated from the schema: nobody -->\n<!-- end -->")).toThrow("nobody");
});

test("every mapping of the language has its table there, once", () => {
  expect(tablesOf(page).sort()).toEqual([...TABLES.keys()].sort());
  expect(page.match(/<!-- generated/g)?.length).toBe(TABLES.size);
});
