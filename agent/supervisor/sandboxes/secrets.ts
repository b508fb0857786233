/** The values of a policy's secrets, read from the host files that it names. Never logged. */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { status } from "@grpc/grpc-js";
import type { SecretItem } from "../../../policy/index.js";
import type { Secret } from "../../../proto/gen/clawsec/v1/loader.js";
import { Refusal, sentence } from "../../common/grpc.js";

/** The contract's limit for one value. */
const MAX_SECRET_BYTES = 64 * 1024;

/** Reads each secret's file. Throws a sentence for one that cannot be read; warns of one that others can read. */
export function readSecrets(items: readonly SecretItem[]): { secrets: Secret[]; warnings: string[] } {
  const secrets: Secret[] = [];
  const warnings: string[] = [];
  for (const item of items) {
    try {
      const { value, mode } = readRegularFile(item.file);
      if ((mode & 0o077) !== 0) {
        const octal = (mode & 0o777).toString(8).padStart(4, "0");
        warnings.push(
          `warning: the secret ${item.name} is in ${item.file} with mode ${octal}: others on this host may read it. chmod 0600 ${item.file}`,
        );
      }
      secrets.push({ name: item.name, value });
    } catch (error) {
      throw new Refusal(
        status.NOT_FOUND,
        `The secret ${item.name} cannot be read from ${item.file}: ${sentence(error)}.`,
      );
    }
  }
  return { secrets, warnings };
}

function readRegularFile(path: string): { value: Buffer; mode: number } {
  // O_NONBLOCK: a FIFO in its place must not hang the supervisor.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error("it is not a regular file");
    if (stat.size > MAX_SECRET_BYTES) throw new Error(`it is larger than ${MAX_SECRET_BYTES} bytes`);
    const buffer = Buffer.alloc(MAX_SECRET_BYTES + 1);
    let length = 0;
    for (;;) {
      const read = readSync(fd, buffer, length, buffer.length - length, null);
      length += read;
      if (length > MAX_SECRET_BYTES) throw new Error(`it is larger than ${MAX_SECRET_BYTES} bytes`);
      if (read === 0) return { value: buffer.subarray(0, length), mode: stat.mode };
    }
  } finally {
    closeSync(fd);
  }
}
