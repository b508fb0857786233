/** The entry of bin/clawsec. */
import "../common/plain-environment.js";
import { processIo } from "./io.js";
import { main } from "./program.js";

// A reader that closed its end (clawsec ps | head) is no error of ours; commands that follow end by it.
process.stdout.on("error", () => undefined);
process.stderr.on("error", () => undefined);

const code = await main(process.argv.slice(2), processIo());
// What is written is out before the end; what is still open (a terminal, a pipe nobody closes) does not keep us.
for (const stream of [process.stdout, process.stderr]) {
  await new Promise<void>((resolve) => {
    if (stream.destroyed) resolve();
    else stream.write("", () => resolve());
  });
}
process.exit(code);
