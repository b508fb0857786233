/** The entry of bin/clawsec. */
import { processIo } from "./io.js";
import { main } from "./program.js";

const io = processIo();
process.exitCode = await main(process.argv.slice(2), io);
