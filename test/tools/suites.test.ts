import { expect, test } from "vitest";
import { lanes } from "./suites.ts";

const crate = (name: string, ...tests: string[]) => ({
  name,
  targets: [{ kind: ["lib"], name }, ...tests.map((test) => ({ kind: ["test"], name: test }))],
});

test("each integration test is in one lane, those of the one crate in the first but for the moved ones", () => {
  const packages = [crate("gate", "hold", "late", "race"), crate("net", "names"), crate("loader", "sandbox")];
  expect(lanes({ packages }, "gate", ["late"])).toEqual([
    ["hold", "race"],
    ["late", "names", "sandbox"],
  ]);
});

test("a name that several crates have is in one lane, once", () => {
  const packages = [crate("gate", "hold", "shared"), crate("net", "shared"), crate("loader", "shared")];
  expect(lanes({ packages }, "gate", [])).toEqual([["hold"], ["shared"]]);
});
