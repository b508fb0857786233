import { expect, test } from "vitest";
import { notRoot } from "./process.js";

test("whoever is not root is told so before anything is made, and root is not", () => {
  expect(notRoot(1000)).toMatch(/^Only root can start the loader.*sudo/);
  expect(notRoot(0)).toBeUndefined();
});
