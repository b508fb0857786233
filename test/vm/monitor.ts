// What runs a machine: the program of the host that is its processor.

/** One way to run a kernel. */
export interface Monitor {
  /** Where its installer puts its parts. */
  readonly cache: string;
  /** For a boot with a short command, in milliseconds. */
  readonly timeoutMs: number;
  /**
   * How often it is booted when its kernel crashes before it has run a program. More than once only for a processor that
   * is known to fail it.
   */
  readonly bootAttempts: number;
  /** Why it cannot run here, with the remedy; undefined when it can. */
  whyMissing(): string | undefined;
  /**
   * How it is started.
   *
   * @param control Folder of the host that the machine writes to: its script is there, and the exit code comes there.
   * The command's outputs go to descriptors 3 and 4 and the console to 2, or to `stdout`, `stderr` and `console` there.
   * @param kernelArguments Added to the kernel's command line; the last of two equal ones wins.
   */
  start(control: string, kernelArguments: readonly string[]): Started;
}

/** Program, arguments and more variables. */
export interface Started {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}
