// How a mapping of the language is declared: its keys, what each means and what values it takes. The readers take
// their keys from the declarations, and the JSON Schema is made from them.

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

export type Shape =
  /** Text with variables. `plain`: also a number or a boolean, as it is written. */
  | { readonly kind: "text"; readonly pattern?: RegExp; readonly plain?: boolean; readonly literal?: boolean }
  | { readonly kind: "word"; readonly words: readonly string[]; readonly literal?: boolean }
  | { readonly kind: "bool" }
  | { readonly kind: "integer" | "number"; readonly min: number; readonly max: number }
  /** Nothing: "name:". */
  | { readonly kind: "nothing" }
  | { readonly kind: "list"; readonly item: Shape; readonly min: number }
  | { readonly kind: "either"; readonly of: readonly Shape[] }
  /** A mapping whose keys the policy chooses. */
  | { readonly kind: "names"; readonly key?: RegExp; readonly value: Shape }
  | { readonly kind: "mapping"; readonly mapping: Mapping };

export interface Key {
  /** Sentences, in Markdown. */
  readonly doc: string;
  readonly type: Shape;
  readonly required?: boolean;
  readonly default?: Json;
  readonly example?: Json;
}

export interface Mapping {
  /** Name among the schema's definitions. */
  readonly name: string;
  readonly doc: string;
  readonly keys: Readonly<Record<string, Key>>;
  /** What holds between keys, as JSON Schema. The reader says the same in its own words. */
  readonly constraints?: readonly Json[];
}

/** The keys that a mapping may have. */
export function keysOf(mapping: Mapping): readonly string[] {
  const known = KEYS.get(mapping);
  if (known !== undefined) return known;
  const keys = Object.keys(mapping.keys);
  KEYS.set(mapping, keys);
  return keys;
}

/** The readers ask for each mapping they meet. */
const KEYS = new Map<Mapping, readonly string[]>();

export const text = (pattern?: RegExp): Shape => (pattern ? { kind: "text", pattern } : { kind: "text" });
export const plain = (pattern?: RegExp): Shape => ({ ...text(pattern), plain: true }) as Shape;
/** One of some words, or a variable. */
export const word = (words: readonly string[]): Shape => ({ kind: "word", words });
export const bool: Shape = { kind: "bool" };
export const integer = (min: number, max: number): Shape => ({ kind: "integer", min, max });
export const list = (item: Shape, min = 0): Shape => ({ kind: "list", item, min });
export const either = (...of: readonly Shape[]): Shape => ({ kind: "either", of });
/** One value, or a list of them that is not empty. */
export const some = (item: Shape): Shape => either(item, list(item, 1));
export const names = (value: Shape, key?: RegExp): Shape =>
  key ? { kind: "names", key, value } : { kind: "names", value };
export const mapping = (declared: Mapping): Shape => ({ kind: "mapping", mapping: declared });

/** JSON Schema: when `key` is there, `then` holds. */
export const when = (key: string, then: Json): Json => ({ if: { required: [key] }, then });
/** JSON Schema: the value of `key`, when it is no variable, is one of these. */
export const among = (key: string, words: readonly string[]): Json => ({
  properties: { [key]: { anyOf: [{ enum: [...words] }, { type: "string", pattern: "\\$\\{" }] } },
});
/** JSON Schema: at least one of the keys is there. */
export const anyKey = (keys: readonly string[]): Json => ({
  anyOf: keys.map((key) => ({ required: [key] })),
});
/** JSON Schema: exactly one of the keys is there. */
export const oneKey = (keys: readonly string[]): Json => ({
  oneOf: keys.map((key) => ({ required: [key] })),
});

/** Shapes that many keys have. */
export const duration = text(/^([0-9]{1,10})(ms|s|m|h)$/);
export const size = plain(/^([0-9]{1,15})(Ki|Mi|Gi|Ti)?$/);
export const path = text(/^\//);
export const pathPattern = text(/^(?:\/|\*\*\/)/);
export const port = either(integer(1, 65535), text(/^[0-9]{1,5}(?:-[0-9]{1,5})?$/));
/** A subject's name: which there are, the policy says. */
export const subject = some(text(/^[a-z]/));
