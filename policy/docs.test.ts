import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { renderDiagnostics } from "./diagnostics.js";
import { parsePolicy } from "./schema.js";
import { policyText } from "./testing/policy.js";

const reference = readFileSync(new URL("../docs/policy.md", import.meta.url), "utf8");
// "```yaml fragment" is a section that stands on other files, "```yaml test" a test file.
const examples = [...reference.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? "");

test("the reference has examples", () => {
  expect(examples.length).toBeGreaterThanOrEqual(3);
});

test.each(examples)("an example of the reference is a policy, or a part of one: %s", (example) => {
  const text = /^apiVersion/m.test(example) ? example : policyText(example);
  expect(renderDiagnostics(parsePolicy(text, "docs/policy.md").diagnostics)).toBe("");
});
