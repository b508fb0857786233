// The language as JSON Schema (draft 2020-12), for editors. It refuses less than the reader does: what depends on other
// files, on the host or on what a variable stands for only the reader can know.

import { POLICY_TEST } from "./actions.js";
import { MAX_ITEMS } from "./names.js";
import { POLICY } from "./policy.js";
import type { Json, Key, Mapping, Shape } from "./shape.js";

interface Schema {
  [key: string]: Json;
}

/** A value that has a variable in it is right or wrong by what the variable stands for. */
const VARIABLE = "\\$\\{[^}]*\\}";
const WITH_VARIABLE: Schema = { type: "string", pattern: VARIABLE };
/** `text` without a limit would hold any length. */
const MAX_TEXT = 8192;

/** The schema of policy files. */
export function policySchema(): Schema {
  const schema = documentSchema("clawsec policy", POLICY);
  return schema;
}

/** The schema of `*.test.yaml`. */
export function policyTestSchema(): Schema {
  return documentSchema("clawsec policy test", POLICY_TEST);
}

function documentSchema(title: string, root: Mapping): Schema {
  const definitions = new Map<string, Schema>();
  const schema = mappingSchema(root, definitions);
  const sorted = [...definitions].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title,
    ...schema,
    $defs: Object.fromEntries(sorted),
  };
}

function mappingSchema(declared: Mapping, definitions: Map<string, Schema>): Schema {
  const keys = Object.entries(declared.keys);
  const required = keys.filter(([, key]) => key.required === true).map(([name]) => name);
  const properties = keys.map(([name, key]) => [name, keySchema(key, definitions)] as const);
  return {
    description: plainText(declared.doc),
    markdownDescription: declared.doc,
    type: "object",
    properties: Object.fromEntries(properties),
    ...(required.length > 0 && { required }),
    additionalProperties: false,
    ...(declared.constraints !== undefined &&
      declared.constraints.length > 0 && { allOf: [...declared.constraints] }),
  };
}

function keySchema(key: Key, definitions: Map<string, Schema>): Schema {
  const usual = key.default === undefined ? "" : `\n\nDefault: \`${JSON.stringify(key.default)}\``;
  const example = key.example === undefined ? "" : `\n\nExample: \`${JSON.stringify(key.example)}\``;
  return {
    description: plainText(key.doc),
    markdownDescription: `${key.doc}${usual}${example}`,
    ...shapeSchema(key.type, definitions),
    ...(key.default !== undefined && { default: key.default }),
    ...(key.example !== undefined && { examples: [key.example] }),
  };
}

/** Without Markdown's marks. */
function plainText(doc: string): string {
  return doc.replaceAll("`", "");
}

function shapeSchema(shape: Shape, definitions: Map<string, Schema>): Schema {
  switch (shape.kind) {
    case "text":
      return textSchema(shape);
    case "word":
      return shape.literal === true
        ? { enum: [...shape.words] }
        : { anyOf: [{ enum: [...shape.words] }, WITH_VARIABLE] };
    case "bool":
      return { type: "boolean" };
    case "integer":
    case "number":
      return {
        anyOf: [{ type: shape.kind, minimum: shape.min, maximum: shape.max }, WITH_VARIABLE],
      };
    case "nothing":
      return { type: "null" };
    case "list":
      return {
        type: "array",
        items: shapeSchema(shape.item, definitions),
        ...(shape.min > 0 && { minItems: shape.min }),
        maxItems: MAX_ITEMS,
      };
    case "either":
      return { anyOf: shape.of.map((one) => shapeSchema(one, definitions)) };
    case "names":
      return {
        type: "object",
        ...(shape.key !== undefined && { propertyNames: { pattern: shape.key.source } }),
        additionalProperties: shapeSchema(shape.value, definitions),
      };
    case "mapping": {
      const { name } = shape.mapping;
      if (!definitions.has(name)) {
        definitions.set(name, {});
        definitions.set(name, mappingSchema(shape.mapping, definitions));
      }
      return { $ref: `#/$defs/${name}` };
    }
  }
}

function textSchema(shape: Shape & { readonly kind: "text" }): Schema {
  const pattern = shape.pattern?.source;
  const either = shape.literal === true ? pattern : pattern && `(?:${pattern})|${VARIABLE}`;
  const limits: Schema = { ...(either !== undefined && { pattern: either }), maxLength: MAX_TEXT };
  if (shape.plain !== true) return { type: "string", ...limits };
  // YAML reads 8080 and true as what they are; the reader takes them as they are written.
  return { type: ["string", "number", "boolean"], ...limits };
}
