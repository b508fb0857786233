/** tui: the screens, in this process. */
import type { Command } from "commander";
import type { Io } from "../io.js";

export function addTuiCommand(program: Command, io: Io): void {
  program
    .command("tui")
    .description("holds, sandboxes and events on one screen, with keys to answer and to kill")
    .action(async () => {
      // Loaded only here: React and Ink are not for every `clawsec ps`.
      const { runTui } = await import("../../../tui/main.js");
      await runTui({ socketPath: io.paths.controlSocket });
    });
}
