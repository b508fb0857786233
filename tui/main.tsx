import { render } from "ink";
import { App } from "./components/app.js";

/**
 * Shows the screen until the person quits.
 *
 * `socketPath` is the supervisor's control socket; a supervisor that is not there (yet) is no error, the
 * screen says so and connects when it comes. Throws when there is no terminal to draw on.
 */
export async function runTui({ socketPath }: { socketPath: string }): Promise<void> {
  if (!process.stdin.isTTY || !process.stdout.isTTY)
    throw new Error("the screen needs a terminal on its input and output; the other commands do not");
  const screen = render(<App socketPath={socketPath} />, {
    alternateScreen: true,
    // There is a person at this terminal, whatever the environment says about CI.
    interactive: true,
    // Ctrl-C is a key like the others: it quits in an orderly way.
    exitOnCtrlC: false,
  });
  await screen.waitUntilExit();
}
