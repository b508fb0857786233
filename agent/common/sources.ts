/** Where the text of policies comes from: files of this host, the packs of the installation, or a stored bundle. */
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { sentence } from "./grpc.js";
import { packageRoot } from "./paths.js";

/** A policy larger than this is not one. */
export const MAX_POLICY_BYTES = 4 * 1024 * 1024;

/** One file of a policy, by the name that its origins have, or why it could not be had. */
export type Source = { readonly file: string; readonly text: string } | { readonly error: string };

/** Prefix of the references that name a pack of the installation. */
const BUILTIN = "builtin:";
const PACK_NAME = /^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/;

/** The names that "builtin:NAME" may have in this installation, sorted. */
export function packNames(): string[] {
  try {
    return readdirSync(packs())
      .filter((name) => name.endsWith(".yaml") && !name.endsWith(".test.yaml"))
      .map((name) => name.slice(0, -".yaml".length))
      .sort();
  } catch {
    return [];
  }
}

/**
 * `base` of parsePolicy for files of this host. "builtin:NAME" is a pack of the installation and keeps that as its
 * name; anything else is a path, relative to the folder of `from` (to the packs, when `from` is one). Never throws:
 * what cannot be read is a sentence.
 */
export function fileBase(reference: string, from: string): Source {
  const file = sourceName(reference, from);
  if (!file.startsWith(BUILTIN)) return readSource(file);
  const name = file.slice(BUILTIN.length);
  const known = packNames();
  if (!PACK_NAME.test(name) || !known.includes(name)) {
    return { error: `there is no builtin policy "${name}"; there are: ${known.join(", ") || "none"}` };
  }
  const pack = readSource(join(packs(), `${name}.yaml`));
  return "error" in pack ? pack : { file, text: pack.text };
}

/**
 * `base` of parsePolicy for stored texts: what was applied is parsed again exactly as it was, whatever the files are by
 * now. `sources` is what a ParseResult had.
 */
export function bundleBase(
  sources: readonly { readonly file: string; readonly text: string }[],
): (reference: string, from: string) => Source {
  const texts = new Map(sources.map(({ file, text }) => [file, text]));
  return (reference, from) => {
    const file = sourceName(reference, from);
    const text = texts.get(file);
    return text === undefined
      ? { error: `${file} is not among the stored texts of the policy` }
      : { file, text };
  };
}

/** The name that a file has in origins: "builtin:NAME", or an absolute path. Decided by the texts alone. */
export function sourceName(reference: string, from: string): string {
  if (reference.startsWith(BUILTIN)) return reference;
  if (!from.startsWith(BUILTIN)) return resolve(dirname(from), reference);
  // A pack that extends its neighbour means the pack, so that stored bundles hold no path of the installation.
  const neighbour = /^\.\/([a-z0-9-]+)\.yaml$/.exec(reference);
  return neighbour === null ? resolve(packs(), reference) : `${BUILTIN}${neighbour[1]}`;
}

/**
 * Reads one policy text from a regular file of at most 4 MiB of UTF-8. Never throws, and never waits for the other
 * end of a FIFO.
 */
export function readSource(path: string): Source {
  let handle: number | undefined;
  try {
    // Asked before it is opened too: opening a device can do something.
    const why = unfit(statSync(path));
    if (why !== undefined) return { error: `${path} cannot be read: ${why}` };
    handle = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const opened = unfit(fstatSync(handle));
    if (opened !== undefined) return { error: `${path} cannot be read: ${opened}` };
    const bytes = readUpTo(handle, MAX_POLICY_BYTES + 1);
    if (bytes.length > MAX_POLICY_BYTES) return { error: `${path} cannot be read: ${TOO_LARGE}` };
    return { file: path, text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch (error) {
    const why =
      (error as NodeJS.ErrnoException).code === "ERR_ENCODING_INVALID_ENCODED_DATA"
        ? "it is not UTF-8 text"
        : sentence(error);
    return { error: `${path} cannot be read: ${why}` };
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
}

const TOO_LARGE = `it is larger than the ${MAX_POLICY_BYTES} bytes that a policy may have`;

function unfit(stat: { isFile(): boolean; size: number }): string | undefined {
  if (!stat.isFile()) return "it is not a regular file";
  return stat.size > MAX_POLICY_BYTES ? TOO_LARGE : undefined;
}

function readUpTo(handle: number, limit: number): Buffer {
  const chunks: Buffer[] = [];
  let length = 0;
  while (length < limit) {
    const chunk = Buffer.alloc(Math.min(65_536, limit - length));
    const read = readSync(handle, chunk, 0, chunk.length, null);
    if (read === 0) break;
    chunks.push(chunk.subarray(0, read));
    length += read;
  }
  return Buffer.concat(chunks);
}

function packs(): string {
  return join(packageRoot(), "policy", "packs");
}
