/** How the CLI ends. `run` and `exec` end with their command's own code when the command was started. */
import { status } from "@grpc/grpc-js";
import { isServiceError, sentence } from "../common/grpc.js";
import { NoLoader } from "../supervisor/loader/link.js";

export const Exit = {
  ok: 0,
  /** It was tried and failed, or was refused. */
  failed: 1,
  /** The command line is wrong. */
  usage: 2,
  /** The policy has errors. */
  policy: 3,
  /** No supervisor serves this runtime folder. */
  noSupervisor: 4,
  /** This host lacks what a policy needs. */
  hostCannot: 5,
} as const;
export type Exit = (typeof Exit)[keyof typeof Exit];

/** For --help and docs/cli.md. */
export const EXIT_HELP = `Exit codes:
  0  done
  1  it failed, was refused or denied
  2  the command line is wrong
  3  the policy has errors, or one of its tests fails
  4  no supervisor serves this runtime folder
  5  this host cannot enforce the policy
run and exec end with the exit code of their command (128 + n for signal n) once the command was started.`;

/** An error whose exit code is known. */
export class CliError extends Error {
  readonly exit: Exit;

  constructor(exit: Exit, message: string) {
    super(message);
    this.name = "CliError";
    this.exit = exit;
  }
}

/** The exit code of any error, and its sentence. */
export function exitOf(error: unknown): { exit: Exit; message: string } {
  const message = sentence(error);
  if (error instanceof CliError) return { exit: error.exit, message };
  if (error instanceof NoLoader) return { exit: error.hostCannot ? Exit.hostCannot : Exit.failed, message };
  return { exit: Exit.failed, message };
}

/** The error of a request that compiles a policy: what it says of the policy and of the host has its own exit code. */
export function policyError(error: unknown): unknown {
  if (!isServiceError(error)) return error;
  switch (error.code) {
    case status.INVALID_ARGUMENT:
      return new CliError(Exit.policy, sentence(error));
    case status.FAILED_PRECONDITION:
      return new CliError(Exit.hostCannot, sentence(error));
    default:
      return error;
  }
}
