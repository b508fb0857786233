// The JSON Schema against the reader. After a wanted change of the language:
//   CLAWSEC_UPDATE_GOLDEN=1 npx vitest run policy/language/json-schema.test.ts && npm run format      and read the difference.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { policyText } from "../testing/policy.js";
import { POLICY_TEST } from "./actions.js";
import { policySchema, policyTestSchema } from "./json-schema.js";
import { POLICY } from "./policy.js";
import type { Mapping } from "./shape.js";
import { errors, isPolicy, isTest, mappingsOf } from "./testing.js";

const here = (path: string) => new URL(path, import.meta.url);

describe("the published schema", () => {
  test.each([
    ["clawsec.schema.json", policySchema()],
    ["clawsec-test.schema.json", policyTestSchema()],
  ])("%s is what the language declares", (name, schema) => {
    const file = here(`../schema/${name}`);
    const text = `${JSON.stringify(schema, null, 2)}\n`;
    if (process.env.CLAWSEC_UPDATE_GOLDEN === "1") writeFileSync(file, text);
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(schema);
  });

  test.each([
    ["policies", policySchema()],
    ["tests", policyTestSchema()],
  ])("for %s is a schema of draft 2020-12", (_, schema) => {
    const ajv = new Ajv2020();
    expect(ajv.validateSchema(schema), JSON.stringify(ajv.errors)).toBe(true);
  });

  test("has a text for every key", () => {
    const walk = (value: unknown, path: string): void => {
      if (typeof value !== "object" || value === null) return;
      const properties = "properties" in value && "additionalProperties" in value ? value.properties : {};
      for (const [key, one] of Object.entries(properties ?? {}))
        expect(one, `${path}/${key}`).toHaveProperty("markdownDescription");
      for (const [key, one] of Object.entries(value)) walk(one, `${path}/${key}`);
    };
    walk(policySchema(), "");
  });
});

describe("the schema takes", () => {
  const yaml = (folder: string) =>
    readdirSync(here(`../${folder}`)).flatMap((name) =>
      name.endsWith(".yaml") ? [`${folder}/${name}`] : [],
    );

  test.each([...yaml("packs"), ...yaml("recipes")])("%s", (name) => {
    const value = parse(readFileSync(here(`../${name}`), "utf8"));
    expect(errors(name.endsWith(".test.yaml") ? isTest : isPolicy, value)).toEqual([]);
  });

  const reference = readFileSync(here("../../docs/policy.md"), "utf8");
  const examples = [...reference.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? "");

  test.each(examples)("the example of the reference: %s", (example) => {
    const value = parse(example.includes("apiVersion") ? example : policyText(example));
    expect(errors(value.kind === "PolicyTest" ? isTest : isPolicy, value)).toEqual([]);
  });

  test("the examples and defaults that it gives itself", () => {
    const ajv = new Ajv2020({ strict: false });
    ajv.addSchema(policySchema(), "policy").addSchema(policyTestSchema(), "test");
    const places = new Map([
      [POLICY, "policy#"],
      [POLICY_TEST, "test#"],
    ]);
    const check = (mapping: Mapping, seen: Set<Mapping>): void => {
      if (seen.has(mapping)) return;
      seen.add(mapping);
      for (const [name, key] of Object.entries(mapping.keys)) {
        const valid = ajv.compile({ $ref: `${places.get(mapping)}/properties/${name}` });
        for (const value of [key.default, key.example]) {
          if (value !== undefined) expect(errors(valid, value), `${mapping.name}.${name}`).toEqual([]);
        }
        for (const inner of mappingsOf(key.type)) {
          const root = places.get(mapping)?.split("#")[0];
          if (!places.has(inner)) places.set(inner, `${root}#/$defs/${inner.name}`);
          check(inner, seen);
        }
      }
    };
    const seen = new Set<Mapping>();
    check(POLICY, seen);
    check(POLICY_TEST, seen);
    expect(seen.size).toBeGreaterThan(25);
  });
});
