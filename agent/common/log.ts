/** The log: pino, one JSON object a line, or lines for people on a terminal. Text from a sandbox is escaped by JSON. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import pino, { type Logger } from "pino";
import { escapeText } from "./escape.js";

export type { Logger };

/** Where the log goes. */
export type LogTarget = { kind: "stderr" } | { kind: "file"; path: string } | { kind: "none" };

/** Makes a logger. Level from $CLAWSEC_LOG_LEVEL, default info. */
export function makeLog(target: LogTarget, environment: NodeJS.ProcessEnv = process.env): Logger {
  const level = environment.CLAWSEC_LOG_LEVEL || "info";
  const options = { level: level in pino.levels.values ? level : "info", base: null };
  switch (target.kind) {
    case "none":
      return pino({ level: "silent" });
    case "file":
      mkdirSync(dirname(target.path), { recursive: true, mode: 0o700 });
      return pino(options, destination({ dest: target.path, sync: true, mode: 0o600 }));
    case "stderr":
      return pino(
        options,
        process.stderr.isTTY
          ? { write: (line) => process.stderr.write(forPeople(line)) }
          : destination({ dest: 2, sync: true }),
      );
  }
}

/** A log that cannot be written (its disk is full) is no reason to end. */
function destination(options: Parameters<typeof pino.destination>[0]): ReturnType<typeof pino.destination> {
  const stream = pino.destination(options);
  stream.on("error", () => undefined);
  return stream;
}

/** `12:34:56 warn  message key=value`, escaped. */
function forPeople(line: string): string {
  const { level, time, msg, ...rest } = JSON.parse(line) as { level: number; time: number; msg?: string };
  const name = (pino.levels.labels[level] ?? String(level)).padEnd(5);
  const clock = new Date(time).toISOString().slice(11, 19);
  const fields = Object.entries(rest).map(([key, value]) => {
    return `${key}=${escapeText(typeof value === "string" ? value : JSON.stringify(value))}`;
  });
  return `${[clock, name, escapeText(msg ?? ""), ...fields].join(" ")}\n`;
}
