// How long a held action waits, and what then.

import { HOLD } from "../language/parts.js";
import { keysOf } from "../language/shape.js";
import type { HoldTerms } from "../model.js";
import { type Context, Fields, type Node } from "./context.js";
import * as v from "./values.js";

/** `{ timeout, default }`, with what is not said taken from `base`. */
export function holdTerms(context: Context, node: Node, what: string, base: HoldTerms): HoldTerms {
  return { ...base, ...partialHoldTerms(context, node, what) };
}

/** What of `{ timeout, default }` is said. */
export function partialHoldTerms(context: Context, node: Node, what: string): Partial<HoldTerms> {
  const fields = Fields.of(context, node, what, keysOf(HOLD));
  const timeoutMs = fields?.read("timeout", (n) => v.duration(context, n, `the timeout of ${what}`));
  const onTimeout = fields?.read("default", (n) =>
    v.oneOf(context, n, `the default of ${what}`, ["deny", "allow"] as const),
  );
  return { ...(timeoutMs !== undefined && { timeoutMs }), ...(onTimeout !== undefined && { onTimeout }) };
}
