/** Option values that several commands share. */
import { InvalidArgumentError } from "commander";
import { sentence } from "../common/grpc.js";
import { readWithout } from "../common/without.js";

/** Collects `--var name=value`. */
export function variable(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("Write it as name=value.");
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

/** Collects a repeated option. */
export function repeated(text: string, before: string[]): string[] {
  return [...before, text];
}

/** Mechanisms of `--without`. */
export function without(text: string): string[] {
  try {
    return readWithout(text);
  } catch (error) {
    throw new InvalidArgumentError(sentence(error));
  }
}

/** Milliseconds from "5", "5s", "500ms", "2m". */
export function milliseconds(text: string): number {
  const match = /^(\d+)(ms|s|m)?$/.exec(text);
  if (match === null) throw new InvalidArgumentError("Write it as 500ms, 5s or 2m.");
  const unit = match[2] === "ms" ? 1 : match[2] === "m" ? 60_000 : 1000;
  return Number(match[1]) * unit;
}
