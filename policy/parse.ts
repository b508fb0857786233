// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${name} is the policy language's own way to name a variable.

// YAML text to a syntax tree with positions. Bounded, and a smaller language than YAML: no anchors and aliases
// (so nothing can expand), no tags, no merge keys, no second document, no duplicate or non-text keys.

import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  parseAllDocuments,
  type Tags,
  type Node as YamlNode,
} from "yaml";
import type { Diagnostic, Origin } from "./diagnostics.js";
import { hiding, wrongDirective } from "./text.js";

/** Largest policy file, in UTF-16 units. */
const MAX_TEXT = 4 * 1024 * 1024;
/**
 * Most characters that can begin something: line breaks, commas, colons, brackets, quotes, dashes. The YAML library's
 * time goes with them, 6 to 8 us for each; ten thousand rules have 126,000, and a reading stays below a second.
 */
const MAX_MARKS = 130_000;
const CONTROLS = "has control characters, or characters that hide or reorder text";
/** Deepest nesting; a real policy needs 6. */
const MAX_DEPTH = 24;

export interface ScalarNode {
  readonly kind: "scalar";
  readonly value: string | number | boolean | null;
  /** As written, for values that are text whatever YAML makes of them (`PORT: 8080`). */
  readonly text: string;
  readonly origin: Origin;
}
export interface ListNode {
  readonly kind: "list";
  readonly items: readonly Node[];
  readonly origin: Origin;
}
export interface Entry {
  readonly key: string;
  readonly keyOrigin: Origin;
  readonly value: Node;
}
export interface MapNode {
  readonly kind: "map";
  readonly entries: readonly Entry[];
  readonly origin: Origin;
}
export type Node = ScalarNode | ListNode | MapNode;

export interface Parsed {
  readonly root: Node | undefined;
  readonly diagnostics: readonly Diagnostic[];
}

/** A text that was read, with the library's own tree while there is a root. */
export interface ReadText extends Parsed {
  readonly document?: Document.Parsed;
}

/** Turns offsets of one text into origins. */
class Positions {
  readonly #lines: string[];

  constructor(
    readonly file: string,
    text: string,
    readonly counter: LineCounter,
  ) {
    this.#lines = text.split(/\r?\n/);
  }

  at(start: number, end: number): Origin {
    const { line, col } = this.counter.linePos(start);
    const sourceLine = this.#lines[line - 1] ?? "";
    const rest = Math.max(1, sourceLine.length - (col - 1));
    return {
      file: this.file,
      line: Math.max(1, line),
      column: Math.max(1, col),
      length: Math.max(1, Math.min(end - start, rest)),
      sourceLine,
    };
  }
}

const FLAT = "Take out levels: a rule is a list item of a section.";

function finding(code: string, message: string, remedy: string, origin: Origin): Diagnostic {
  return { severity: "error", code, message, remedy, rule: "", layer: "", origin };
}

/** Deepest run of brackets and of indentation: bounds the YAML parser's recursion before it runs. */
function tooDeep(text: string): number | undefined {
  let flow = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x5b || c === 0x7b) {
      // Brackets in quoted text count too: no policy has a hundred of them open.
      if (++flow > 200) return i;
    } else if ((c === 0x5d || c === 0x7d) && flow > 0) flow--;
  }
  // "- - - -" and "? ? ?" nest without brackets or indentation.
  const dashes = /(?:[-?] ){64}/.exec(text) ?? /^ {400}/m.exec(text);
  return dashes?.index;
}

/** What is larger than the YAML library reads within a second; undefined when nothing is. */
function tooLarge(text: string): string | undefined {
  if (text.length > MAX_TEXT) return `the policy is larger than ${MAX_TEXT} characters`;
  let marks = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x2d: // "-" begins an item before a space only; paths are full of others.
      case 0x3f: // "?"
        if (text.charCodeAt(i + 1) === 0x20) marks++;
        break;
      case 0x0a:
      case 0x0d:
      case 0x22: // quotes
      case 0x27:
      case 0x2c: // ,
      case 0x3a: // :
      case 0x5b: // [
      case 0x7b: // {
        marks++;
    }
  }
  return marks > MAX_MARKS ? `the policy has more than ${MAX_MARKS} keys, values and lines` : undefined;
}

/** Reads one policy text. Never throws. */
export function parseYaml(text: string, file: string): Parsed {
  const { root, diagnostics } = readYaml(text, file);
  return { root, diagnostics };
}

/** Reads one policy text, `customTags` as the YAML library takes them. Never throws. */
export function readYaml(
  text: string,
  file: string,
  customTags: (tags: Tags) => Tags = (tags) => tags,
): ReadText {
  const counter = new LineCounter();
  const large = tooLarge(text);
  if (large !== undefined) {
    const origin: Origin = { file, line: 1, column: 1, length: 1, sourceLine: "" };
    return {
      root: undefined,
      diagnostics: [finding("too-large", large, "Split it, or drop what is not used.", origin)],
    };
  }
  const deep = tooDeep(text);
  if (deep !== undefined) {
    for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1)) counter.lineStarts.push(i + 1);
    counter.lineStarts.unshift(0);
    const origin = new Positions(file, text, counter).at(deep, deep + 1);
    return {
      root: undefined,
      diagnostics: [finding("too-deep", "the policy is nested too deeply", FLAT, origin)],
    };
  }
  let documents: Document.Parsed[];
  try {
    const parsed = parseAllDocuments(text, {
      version: "1.2",
      schema: "core",
      // Checked below: the library's own check takes quadratic time.
      uniqueKeys: false,
      merge: false,
      strict: true,
      prettyErrors: false,
      lineCounter: counter,
      customTags,
    });
    documents = "empty" in parsed ? [] : parsed;
  } catch (error) {
    // The bound above keeps the parser off the stack's end; should it get there in a way not foreseen, it is an
    // error of the file, not of the program.
    const origin: Origin = { file, line: 1, column: 1, length: 1, sourceLine: text.split("\n", 1)[0] ?? "" };
    const why =
      error instanceof RangeError
        ? "the policy is nested too deeply"
        : `the policy cannot be read: ${String(error)}`;
    return { root: undefined, diagnostics: [finding("yaml", why, FLAT, origin)] };
  }
  const parsed = new Converter(new Positions(file, text, counter), text).run(documents);
  const [document] = documents;
  return parsed.root === undefined || document === undefined ? parsed : { ...parsed, document };
}

class Converter {
  readonly #diagnostics: Diagnostic[] = [];

  constructor(
    readonly positions: Positions,
    readonly text: string,
  ) {}

  run(documents: readonly Document.Parsed[]): Parsed {
    const [document, second] = documents;
    const directive = wrongDirective(this.text);
    if (directive !== undefined) {
      this.#error(
        "directive",
        "directives are not part of the policy language, but for %YAML 1.2",
        "Remove it.",
        directive.start,
        directive.end,
      );
      return { root: undefined, diagnostics: this.#diagnostics };
    }
    if (document === undefined || document.contents === null) {
      this.#error("empty", "the policy is empty", 'A policy begins with "apiVersion: clawsec/v1".', 0, 1);
      return { root: undefined, diagnostics: this.#diagnostics };
    }
    for (const each of documents) {
      for (const problem of [...each.errors, ...each.warnings]) {
        const [start, end] = problem.pos;
        this.#error("yaml", sentence(problem.message), this.#syntaxRemedy(start), start, end);
        // What follows a syntax error is mostly its echo.
        return { root: undefined, diagnostics: this.#diagnostics };
      }
    }
    if (second !== undefined) {
      const start = second.range?.[0] ?? 0;
      this.#error(
        "second-document",
        "a policy file holds one document",
        'Remove what follows the "---".',
        start,
        start + 1,
      );
    }
    if (this.#diagnostics.length > 0) return { root: undefined, diagnostics: this.#diagnostics };
    const root = this.#convert(document.contents, 0);
    return { root, diagnostics: this.#diagnostics };
  }

  #error(code: string, message: string, remedy: string, start: number, end: number): void {
    this.#diagnostics.push(finding(code, message, remedy, this.positions.at(start, end)));
  }

  /** Slips that YAML's own words do not explain. */
  #syntaxRemedy(offset: number): string {
    const reference = this.text.slice(Math.max(0, offset - 2), offset + 2).includes("${");
    if (reference) return "Inside { } and [ ], quote a value that has ${...} in it.";
    const line =
      this.text.slice(this.text.lastIndexOf("\n", Math.max(0, offset - 1)) + 1).split("\n", 1)[0] ?? "";
    if (/^ *\t/.test(line)) return "Indent with spaces: YAML takes no tabs for it.";
    return "Quote text with special characters (: # { } [ ] , & * ! | > % @ `), and indent what belongs together alike.";
  }

  #convert(node: unknown, depth: number): Node | undefined {
    if (!isNode(node)) return undefined;
    const [start, end] = node.range ?? [0, 1];
    const origin = this.positions.at(start, end);
    if (depth > MAX_DEPTH) {
      this.#error("too-deep", "the policy is nested too deeply", FLAT, start, end);
      return undefined;
    }
    if (!this.#isPlain(node, start, end)) return undefined;
    if (isScalar(node)) return this.#scalar(node.value, node.source, origin, start, end);
    if (isSeq(node)) {
      const items: Node[] = [];
      for (const item of node.items) {
        const value = this.#convert(item, depth + 1);
        if (value !== undefined) items.push(value);
      }
      return { kind: "list", items, origin };
    }
    if (!isMap(node)) return undefined;
    const entries: Entry[] = [];
    // Most mappings are small; a table for each would cost more than it saves.
    const table = node.items.length > 16 ? new Map<string, Entry>() : undefined;
    for (const pair of node.items) {
      const key = isScalar(pair.key) ? pair.key : undefined;
      const [keyStart, keyEnd] = key?.range ?? [start, start + 1];
      if (key === undefined || (typeof key.value !== "string" && key.source === undefined)) {
        this.#error("key", "a key must be plain text", "Quote it.", keyStart, keyEnd);
        continue;
      }
      if (!this.#isPlain(key, keyStart, keyEnd)) continue;
      const keyOrigin = this.positions.at(keyStart, keyEnd);
      const name = typeof key.value === "string" ? key.value : String(key.source);
      if (/[\t\n]/.test(name) || hiding(name)) {
        this.#error("control-character", `the key ${CONTROLS}`, "Remove them.", keyStart, keyEnd);
        continue;
      }
      const first = table === undefined ? entries.find((e) => e.key === name) : table.get(name);
      if (first !== undefined) {
        const message = `the key "${name}" is already there in line ${first.keyOrigin.line}`;
        this.#error("duplicate-key", message, "Keep one of the two.", keyStart, keyEnd);
        continue;
      }
      const value = pair.value === null ? nothing(keyOrigin) : this.#convert(pair.value, depth + 1);
      if (value === undefined) continue;
      const entry = { key: name, keyOrigin, value };
      entries.push(entry);
      table?.set(name, entry);
    }
    return { kind: "map", entries, origin };
  }

  /** Without anchor and tag; says so otherwise. Only a tag that is written is one. */
  #isPlain(node: YamlNode, start: number, end: number): boolean {
    if (isAlias(node) || node.anchor !== undefined) {
      this.#error(
        "alias",
        "anchors and aliases are not part of the policy language",
        'Use "variables" for what repeats.',
        start,
        end,
      );
      return false;
    }
    if (node.tag === undefined) return true;
    this.#error("tag", "tags are not part of the policy language", "Remove it.", start, end);
    return false;
  }

  #scalar(
    value: unknown,
    source: string | undefined,
    origin: Origin,
    start: number,
    end: number,
  ): Node | undefined {
    switch (typeof value) {
      case "string":
        // Nothing that a policy names has them; they would only hide something from its reader.
        if (hiding(value)) {
          this.#error("control-character", `the text ${CONTROLS}`, "Remove them.", start, end);
          return undefined;
        }
        return { kind: "scalar", value, text: value, origin };
      case "number":
      case "boolean":
        return { kind: "scalar", value, text: source ?? String(value), origin };
      default:
        if (value === null) return { kind: "scalar", value, text: "", origin };
        this.#error(
          "value",
          "this kind of value is not part of the policy language",
          "Quote it, if text is meant.",
          start,
          end,
        );
        return undefined;
    }
  }
}

function nothing(origin: Origin): ScalarNode {
  return { kind: "scalar", value: null, text: "", origin };
}

/** The YAML library's messages, as they go into our sentences: lower case, no full stop, one line. */
function sentence(message: string): string {
  const line = message.split("\n", 1)[0] ?? "";
  const first = line.charAt(0).toLowerCase() + line.slice(1);
  return first.replace(/[.:]$/, "");
}
