import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { PAGE, page, recipes } from "./recipes.js";

test("docs/recipes.md says what the recipes are", () => {
  // After a change: tsc -p tsconfig.json && node dist/test/docs/recipes.js
  expect(readFileSync(PAGE, "utf8")).toBe(page());
});

test("each recipe has a title of its own", () => {
  const titles = recipes().map(({ title }) => title);
  expect(titles.length).toBeGreaterThanOrEqual(20);
  expect(new Set(titles).size).toBe(titles.length);
  expect(titles.filter((title) => !/^[A-Z][^.]+$/i.test(title))).toEqual([]);
});
