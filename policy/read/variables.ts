// The sections "variables" of all layers: one set of names, of which a nearer file's value wins.

import type { Origin } from "../diagnostics.js";
import { hiding } from "../text.js";
import { VARIABLE_NAME } from "../variables.js";
import { type Context, describe, didYouMean, type Node } from "./context.js";
import { type Layer, sections } from "./layers.js";
import * as v from "./values.js";

interface Declaration {
  readonly name: string;
  readonly keyOrigin: Origin;
  readonly value: Node;
  readonly layer: number;
}

/** Where the values of variables come from. */
export interface DeclaredVariables {
  /**
   * What a variable has, or is made of, whose value is another than in some files alone. `own`: indices of these files, in
   * their order. `by`: index of the file that gives the other value. Undefined when there is nothing, when these files leave
   * it open, or when the value was given from outside.
   */
  moved(name: string, own: readonly number[]): { readonly name: string; readonly by: number } | undefined;
}

/**
 * Declares the variables in the order of the files, furthest first. A value may use variables declared above it, in its
 * file or in one further away. Given values win over all.
 */
export function declareVariables(
  context: Context,
  layers: readonly Layer[],
  given: Readonly<Record<string, string>>,
): DeclaredVariables {
  const all = new Map<string, Declaration[]>();
  for (const declaration of declarations(context, layers)) {
    const same = all.get(declaration.name);
    if (same === undefined) all.set(declaration.name, [declaration]);
    else same.push(declaration);
  }
  const done = new Set<string>();
  const open = new Set<string>();
  const resolve = (name: string, same: readonly Declaration[]): void => {
    if (done.has(name)) return;
    done.add(name);
    open.add(name);
    const valued = same.filter((d) => !isNothing(d.value));
    const winner = valued.at(-1) ?? same.at(-1);
    const override = Object.hasOwn(given, name) ? given[name] : undefined;
    if (winner === undefined) return;
    if (override !== undefined) context.variables.declare(name, checked(context, winner, override));
    else if (isNothing(winner.value)) context.variables.declare(name, undefined);
    else {
      // A nearer file can change what a further one's value is made of, so those come first, wherever they stand.
      for (const needed of references(winner.value)) {
        const other = all.get(needed);
        if (other === undefined || !above(other, winner)) continue;
        if (open.has(needed)) cycle(context, winner, needed);
        else resolve(needed, other);
      }
      const value = v.text(context, winner.value, `the variable "${name}"`, { plain: true }) ?? "";
      context.variables.declare(name, value);
    }
    open.delete(name);
  };
  for (const [name, same] of all) resolve(name, same);
  checkGiven(context, layers, given);
  return { moved: (name, own) => moved(all, given, name, own, new Set()) };
}

function moved(
  all: ReadonlyMap<string, readonly Declaration[]>,
  given: Readonly<Record<string, string>>,
  name: string,
  own: readonly number[],
  seen: Set<string>,
): { name: string; by: number } | undefined {
  if (seen.has(name) || Object.hasOwn(given, name)) return undefined;
  seen.add(name);
  const valued = (all.get(name) ?? []).filter((d) => !isNothing(d.value));
  const mine = own.flatMap((layer) => valued.filter((d) => d.layer === layer)).at(-1);
  const winner = valued.at(-1);
  if (mine === undefined || winner === undefined) return undefined;
  if (mine !== winner) return { name, by: winner.layer };
  for (const needed of references(mine.value)) {
    const found = moved(all, given, needed, own, seen);
    if (found !== undefined) return found;
  }
  return undefined;
}

function declarations(context: Context, layers: readonly Layer[]): Declaration[] {
  return sections(layers, "variables").flatMap(({ node, layer }) => {
    if (node.kind !== "map") {
      context.error(node.origin, "type", `variables must be a mapping, not ${describe(node)}`);
      return [];
    }
    return node.entries.flatMap(({ key, keyOrigin, value }) => {
      if (VARIABLE_NAME.test(key)) return [{ name: key, keyOrigin, value, layer }];
      context.error(
        keyOrigin,
        "value",
        `"${key}" is not a name for a variable`,
        'Use letters, digits, "-" and "_".',
      );
      return [];
    });
  });
}

function isNothing(node: Node): boolean {
  return node.kind === "scalar" && node.value === null;
}

/** Names of the variables in a text. */
export function references(node: Node): string[] {
  if (node.kind !== "scalar") return [];
  return [...node.text.matchAll(/\$\$|\$\{([^}]*)\}/g)].flatMap((match) => match[1] ?? []);
}

/** True when some declaration of the other stands above this one. */
function above(others: readonly Declaration[], one: Declaration): boolean {
  return others.some(
    (other) =>
      other.layer < one.layer ||
      (other.layer === one.layer &&
        (other.keyOrigin.line < one.keyOrigin.line ||
          (other.keyOrigin.line === one.keyOrigin.line && other.keyOrigin.column < one.keyOrigin.column))),
  );
}

function cycle(context: Context, one: Declaration, needed: string): void {
  context.error(
    one.keyOrigin,
    "variable-cycle",
    `the variable "${one.name}" is made from "${needed}", which is made from it`,
    "Give one of the two a value of its own.",
  );
  context.variables.declare(needed, "");
}

function checked(context: Context, declared: Declaration, value: string): string {
  if (/[\t\n]/.test(value) || hiding(value)) {
    context.error(
      declared.keyOrigin,
      "control-character",
      `the value given for "${declared.name}" has control characters`,
      "Remove them.",
    );
  }
  return value;
}

function checkGiven(
  context: Context,
  layers: readonly Layer[],
  given: Readonly<Record<string, string>>,
): void {
  const last = layers.at(-1)?.fields;
  for (const name of Object.keys(given)) {
    if (last === undefined || context.variables.has(name)) continue;
    const known = context.variables.names();
    context.error(
      last.get("variables")?.origin ?? last.origin,
      "unknown-variable",
      `a value was given for "${name}", which is not a variable of the policy`,
      known.length === 0 ? "The policy declares no variables." : didYouMean(name, known),
    );
  }
}
