// `extends`: the files that make up a policy, read depth first.

import { POLICY } from "../language/policy.js";
import { keysOf } from "../language/shape.js";
import { parseYaml } from "../parse.js";
import { Context, Fields, type Node, nodeUnder } from "./context.js";
import * as v from "./values.js";

/** One file of a policy as it was read: enough to read the policy again without the file. */
export interface PolicySource {
  /** As it was asked for: "builtin:openclaw", "./team.yaml"; the file itself as given to the parser. */
  readonly reference: string;
  /** What `Origin.file` says for it. */
  readonly file: string;
  readonly text: string;
}

/**
 * The text that a reference in `extends` stands for, or a sentence why there is none. `from` is the `Origin.file` of the
 * file that extends; the same file must get the same name each time.
 */
export type ReadBase = (
  reference: string,
  from: string,
) => { readonly file: string; readonly text: string } | { readonly error: string };

/** A file whose syntax, version and kind are right. */
export interface Layer {
  readonly reference: string;
  readonly file: string;
  readonly fields: Fields;
  /** Index of the furthest file that it extends; its own when it extends none. */
  readonly first: number;
  /** Indices of the files that make up this one alone, in the order in which it would be read: furthest first, itself last. */
  readonly own: readonly number[];
}

export interface Layers {
  /** Furthest first, the file itself last. Without it when it cannot be read. */
  readonly layers: readonly Layer[];
  readonly sources: readonly PolicySource[];
  /** False when a file is missing or no policy, so that what the others say is not the whole. */
  readonly complete: boolean;
}

export const MAX_DEPTH = 8;
export const MAX_FILES = 32;
/** All texts together, in UTF-16 units. */
const MAX_TEXTS = 8 * 1024 * 1024;

/** Reads a file and all that it extends. Reports into `context`; never throws, as long as `base` does not. */
export function readLayers(context: Context, text: string, file: string, base: ReadBase | undefined): Layers {
  const reader = new LayerReader(context, base);
  reader.read({ reference: file, file, text });
  const layers = reader.layers.map((layer) => ({ ...layer, own: ownOrder(reader, layer.file) }));
  return { layers, sources: reader.sources, complete: reader.complete };
}

/** As `Layer.own`. What could not be read is left out. */
function ownOrder({ layers, bases }: LayerReader, file: string): number[] {
  const index = new Map(layers.map((layer, i) => [layer.file, i]));
  const order: number[] = [];
  const seen = new Set<string>();
  const visit = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    for (const base of bases.get(name) ?? []) visit(base);
    const at = index.get(name);
    if (at !== undefined) order.push(at);
  };
  visit(file);
  return order;
}

class LayerReader {
  readonly layers: Omit<Layer, "own">[] = [];
  readonly sources: PolicySource[] = [];
  /** What each file names under "extends", by file, in that order. */
  readonly bases = new Map<string, string[]>();
  complete = true;
  /** Files that are being read, the outermost first. */
  readonly #open: string[] = [];
  readonly #seen = new Set<string>();
  #length = 0;

  constructor(
    readonly context: Context,
    readonly base: ReadBase | undefined,
  ) {}

  read(source: PolicySource): void {
    const { reference, file, text } = source;
    this.#seen.add(file);
    this.#length += text.length;
    const first = this.layers.length;
    const fields = readHead(this.context, text, file);
    if (fields === undefined) this.complete = false;
    else {
      this.#open.push(file);
      const bases = fields.get("extends");
      if (bases !== undefined) {
        for (const node of references(this.context, bases)) this.#extend(node.reference, node.node, file);
      }
      this.#open.pop();
      this.layers.push({ reference, file, fields, first });
    }
    this.sources.push(source);
  }

  #extend(reference: string, node: Node, from: string): void {
    const found = this.#find(reference, from);
    if (found === undefined) return;
    if ("code" in found) {
      this.complete = false;
      this.context.error(node.origin, found.code, found.message, found.remedy);
    } else this.read({ reference, ...found });
  }

  /** The file that a reference means; undefined when it is there already. */
  #find(
    reference: string,
    from: string,
  ): { file: string; text: string } | { code: string; message: string; remedy: string } | undefined {
    if (this.base === undefined) {
      const message = `"${reference}" cannot be read from here`;
      return { code: "extends", message, remedy: 'Give one file without "extends".' };
    }
    const found = this.base(reference, from);
    if ("error" in found) {
      const message = `"${reference}" cannot be extended: ${found.error}`;
      return { code: "extends", message, remedy: "" };
    }
    const at = this.#open.indexOf(found.file);
    if (at >= 0) {
      const chain = [...this.#open.slice(at), found.file].join(" -> ");
      const message = `a policy cannot extend itself: ${chain}`;
      return { code: "extends-cycle", message, remedy: "Take one of these out." };
    }
    this.bases.set(from, [...(this.bases.get(from) ?? []), found.file]);
    // What two files extend stands once, where it is met first.
    if (this.#seen.has(found.file)) return undefined;
    if (this.#open.length > MAX_DEPTH) {
      const chain = [...this.#open, found.file].join(" -> ");
      const message = `policies extend each other more than ${MAX_DEPTH} deep: ${chain}`;
      return { code: "extends-depth", message, remedy: "Let the file extend the last ones directly." };
    }
    if (this.#seen.size >= MAX_FILES || this.#length + found.text.length > MAX_TEXTS) {
      const message = `a policy is made of at most ${MAX_FILES} files and ${MAX_TEXTS} characters`;
      return { code: "extends-files", message, remedy: "Put some of them together." };
    }
    return found;
  }
}

function references(context: Context, node: Node): { reference: string; node: Node }[] {
  return v.oneOrMore(context, node, "extends", (n) => {
    if (n.kind === "scalar" && n.text.includes("${")) {
      return context.error(
        n.origin,
        "value",
        'variables are not filled in under "extends": they are not known yet',
        "Write the path, or the name, itself.",
      );
    }
    const reference = v.nonEmpty(context, n, "a reference");
    return reference === undefined ? undefined : { reference, node: n };
  });
}

/** The mapping of one file; undefined when it is none, or of another version or kind, which is reported. */
function readHead(context: Context, text: string, file: string): Fields | undefined {
  const parsed = parseYaml(text, file);
  if (parsed.root === undefined || parsed.diagnostics.length > 0) {
    context.add(parsed.diagnostics);
    return undefined;
  }
  // Versions first: a file of another version is not worth a hundred messages about its keys.
  const version = nodeUnder(parsed.root, "apiVersion");
  const kind = nodeUnder(parsed.root, "kind");
  const other = new Context(context.variables);
  if (version !== undefined) v.oneOf(other, version, "apiVersion", ["clawsec/v1"] as const);
  if (version !== undefined && other.diagnostics.length > 0) {
    context.add(other.diagnostics);
    return undefined;
  }
  if (kind?.kind === "scalar" && kind.value === "PolicyTest") {
    const message = "this is a test of a policy, and not a policy";
    return context.error(kind.origin, "value", message, "Give the policy; policy test runs its tests.");
  }
  const fields = Fields.of(context, parsed.root, "a policy", keysOf(POLICY));
  fields?.require("apiVersion", 'A policy begins with "apiVersion: clawsec/v1".');
  fields?.require("kind", 'Write "kind: Policy".');
  if (kind !== undefined) v.oneOf(context, kind, "kind", ["Policy"] as const);
  return fields;
}

/** The nodes of one section in all layers, furthest first, with the layer's index. */
export function sections(layers: readonly Layer[], key: string): { node: Node; layer: number }[] {
  return layers.flatMap(({ fields }, layer) => {
    const node = fields.get(key);
    return node === undefined ? [] : [{ node, layer }];
  });
}
