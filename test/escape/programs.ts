// Compiles the programs of a run, once.

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const WAYS = [
  "way",
  "exec",
  "race",
  "process",
  "kernel",
  "namespace",
  "mount",
  "file",
  "socket",
  "connect",
  "probe",
] as const;

/** How many folders below /opt/escape/denied/deep the program there is. */
const DEPTH = 40;

/**
 * Fills a folder that the sandboxes of a run see as /opt/escape.
 * @param sources folder of the C files
 * @returns the SHA-256 of denied/by-hash
 * @throws what the compiler says
 */
export function compile(sources: string, folder: string): string {
  const bin = join(folder, "bin");
  const denied = join(folder, "denied");
  const deep = join(denied, "deep", ...Array.from({ length: DEPTH }, () => "d"));
  const fine = join(folder, "fine");
  for (const made of [join(bin, "python"), deep, fine]) mkdirSync(made, { recursive: true });
  const cc = (output: string, names: readonly string[], ...flags: string[]) => {
    const files = names.map((name) => join(sources, `${name}.c`));
    const common = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread"];
    execFileSync("cc", [...common, ...flags, "-o", output, ...files], { stdio: ["ignore", "pipe", "pipe"] });
  };
  cc(join(bin, "way"), ["main", ...WAYS]);
  // Node unloads what is no module of its own; the holder's thread goes on.
  cc(join(bin, "way.node"), ["loaded", ...WAYS], "-shared", "-fPIC");
  cc(join(bin, "holder.node"), ["holder", ...WAYS], "-shared", "-fPIC", "-Wl,-z,nodelete");
  cc(join(bin, "preload.so"), ["preload"], "-shared", "-fPIC");
  cc(join(bin, "is-root"), ["is_root"], "-static");
  cc(join(bin, "capture"), ["capture"], "-static");
  cc(join(bin, "fill"), ["fill"], "-static");
  cc(join(bin, "poke"), ["poke"], "-static", "-no-pie", "-fno-pie");
  // Without the variable MARK it does nothing; what runs in its place is what counts.
  copyFileSync("/usr/bin/true", join(bin, "allowed"));
  for (const [name, content] of [
    ["by-path", "path"],
    ["by-hash", "hash"],
    ["arguments", "arguments"],
    ["held", "held"],
  ] as const)
    cc(join(denied, name), ["denied"], "-static", `-DCONTENT="${content}"`);
  cc(join(denied, "by-path-dynamic"), ["denied"], '-DCONTENT="dynamic"');
  cc(join(deep, "program"), ["denied"], "-static", '-DCONTENT="deep"');
  const script = (path: string, text: string) => {
    writeFileSync(path, text);
    chmodSync(path, 0o755);
  };
  script(join(denied, "script"), '#!/usr/bin/bash\necho "$TOKEN" > "$MARK"\n');
  script(join(denied, "script.py"), 'import os\nopen(os.environ["MARK"], "w").write(os.environ["TOKEN"])\n');
  script(
    join(denied, "script.js"),
    'require("node:fs").writeFileSync(process.env.MARK, process.env.TOKEN);\n',
  );
  script(join(fine, "ok.sh"), "echo fine\n");
  script(join(fine, "ok.js"), "console.log('fine')\n");
  script(join(fine, "ok.py"), "import colorsys\nprint('fine')\n");
  script(join(bin, "bash-env"), 'echo "$TOKEN" > "$MARK"\n');
  script(
    join(bin, "required.cjs"),
    'require("node:fs").writeFileSync(process.env.MARK, process.env.TOKEN);\n',
  );
  script(
    join(bin, "python/sitecustomize.py"),
    'import os\nopen(os.environ["MARK"], "w").write(os.environ["TOKEN"])\n',
  );
  return createHash("sha256")
    .update(readFileSync(join(denied, "by-hash")))
    .digest("hex");
}

/** The ways that this kernel has nothing for, by what programs/probe.c says on the host. */
export function isThere(programs: string, needs: string): boolean {
  const environment = { TOKEN: "probe" };
  const { status } = spawnSync(join(programs, "bin/way"), [needs], { env: environment, timeout: 5000 });
  return status === 0;
}
