/** Reaching the supervisor, and the loader behind it. */
import { existsSync } from "node:fs";
import type { ControlClient } from "../../proto/gen/clawsec/v1/control.js";
import type { LoaderClient } from "../../proto/gen/clawsec/v1/loader.js";
import { controlClient, loaderClient, sentence } from "../common/grpc.js";
import { answers } from "../supervisor/control/server.js";
import { CliError, Exit } from "./exit-codes.js";
import type { Io } from "./io.js";

/** Calls `use` with a client of the supervisor. Exit code 4 when none serves. */
export async function withSupervisor<T>(io: Io, use: (client: ControlClient) => Promise<T>): Promise<T> {
  if (!(await supervisorServes(io))) {
    throw new CliError(
      Exit.noSupervisor,
      `No supervisor serves ${io.paths.controlSocket}. Start one with clawsec up --detach, or run a command with clawsec run.`,
    );
  }
  const client = controlClient(io.paths.controlSocket);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

/** True when a supervisor accepts connections. Throws a sentence when the socket is there but may not be used. */
export async function supervisorServes(io: Io): Promise<boolean> {
  return serves(io.paths.controlSocket);
}

/** Calls `use` with a client of the loader, or returns undefined when none serves. */
export async function withLoader<T>(
  io: Io,
  use: (client: LoaderClient) => Promise<T>,
): Promise<T | undefined> {
  if (!(await serves(io.paths.loaderSocket))) return undefined;
  const client = loaderClient(io.paths.loaderSocket);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

async function serves(path: string): Promise<boolean> {
  if (!existsSync(path)) return false;
  try {
    return await answers(path);
  } catch (error) {
    const denied = (error as NodeJS.ErrnoException).code === "EACCES";
    const why = denied ? "only root and members of the group clawsec may use it" : sentence(error);
    throw new CliError(Exit.failed, `${path} cannot be used: ${why}.`);
  }
}
