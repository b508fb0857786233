// `sandbox.healthCheck`: a command that says whether the main command does what it should.

import { MAX_RETRIES } from "../language/names.js";
import { HEALTH_CHECK } from "../language/sandbox.js";
import { keysOf } from "../language/shape.js";
import type { HealthCheck } from "../model.js";
import { type Context, Fields, type Node } from "./context.js";
import * as v from "./values.js";

/** What Docker takes where nothing is said; `startPeriod` is none there, too. */
const DEFAULT_INTERVAL_MS = 30_000;
const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_RETRIES = 3;

/** Undefined for an empty command, too: nothing is checked. `subjects` are the policy's, the main command's first. */
export function readHealthCheck(
  context: Context,
  node: Node,
  subjects: readonly string[],
): HealthCheck | undefined {
  const fields = Fields.of(context, node, "the health check", keysOf(HEALTH_CHECK));
  if (fields === undefined) return undefined;
  const commandNode = fields.require(
    "command",
    "Say what is run, e.g. [/usr/bin/curl, -f, http://127.0.0.1:8080/].",
  );
  const command = commandNode && readCommand(context, commandNode);
  const milliseconds = (key: "interval" | "timeout" | "startPeriod") =>
    fields.read(key, (n) => v.duration(context, n, `the ${key} of the health check`));
  const check = {
    subject:
      fields.read("subject", (n) => v.oneOf(context, n, "the subject of the health check", subjects)) ??
      subjects[0] ??
      "",
    intervalMs: milliseconds("interval") ?? DEFAULT_INTERVAL_MS,
    timeoutMs: milliseconds("timeout") ?? DEFAULT_TIMEOUT_MS,
    retries:
      fields.read("retries", (n) =>
        v.integer(context, n, "the retries of the health check", 1, MAX_RETRIES),
      ) ?? DEFAULT_RETRIES,
    startPeriodMs: milliseconds("startPeriod") ?? 0,
  };
  return command === undefined || command.length === 0 ? undefined : { command, ...check };
}

function readCommand(context: Context, node: Node): string[] {
  const command = v.list(context, node, "the command of the health check", (n) =>
    v.text(context, n, "an argument", { plain: true }),
  );
  if (command[0] === "")
    context.error(node.origin, "value", "the program of the health check must not be empty");
  return command;
}
