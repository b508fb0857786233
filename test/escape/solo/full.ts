// The verification's maps, full: what cannot be noted must not run.

import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathsOf } from "../../../agent/common/paths.js";
import type { Stage } from "../setup.js";
import { inBox, joinedOnHost, joinNamespaces, makeBox, pidOf, textOf, until } from "./box.js";
import type { Solo } from "./way.js";

const PROGRAM = "/opt/escape/denied/by-path";
const AGAIN = `while [ -e go ]; do echo x >> beat; MARK=$PWD/mark TOKEN=EFFECT ${PROGRAM} 2>/dev/null; done`;

/** Pins of the maps that have an entry for each thread, or process, of the run's own loader. */
function maps(stage: Stage): string[] {
  const folder = `/sys/fs/bpf/clawsec-${pathsOf(stage.clawsec.environment).instance}`;
  const found = readdirSync(folder)
    .filter((name) => name.startsWith("exec-"))
    .flatMap((name) => ["approvals", "images"].map((map) => join(folder, name, map)))
    .filter((path) => existsSync(path));
  if (found.length < 2) throw new Error(`map-full: ${folder} has not both maps, but ${found.join(", ")}.`);
  return found;
}

const full: Solo = {
  id: "map-full",
  tries: "a denied program, from inside and by root who joins, while the verification's BPF maps are full",
  layer: "BPF exec verify: what runs is what was approved",
  who: "main; root, from outside",
  async control(stage, folder) {
    const { work } = makeBox(stage, folder);
    await joinedOnHost(join(stage.programs, "denied/by-path"), join(work, "mark"));
    return textOf(join(work, "mark")).includes("EFFECT");
  },
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder);
    writeFileSync(join(box.work, "go"), "");
    const fill = (path: string, what: "fill" | "drain") =>
      execFileSync(join(stage.programs, "bin/fill"), [path, what], { encoding: "utf8" });
    await inBox(stage, box, AGAIN, ["--detach"]);
    const beat = () => textOf(join(box.work, "beat")).length;
    if (!(await until(() => beat() > 3, 10_000))) throw new Error("map-full: nothing ran in the sandbox.");
    const pid = await pidOf(stage, box);
    const pins = maps(stage);
    try {
      for (const pin of pins) {
        // Some entries are those of processes that run.
        const [done = 0, size = 0] = fill(pin, "fill").split(" of ").map(Number);
        if (done < size / 2) throw new Error(`map-full: ${pin} took ${done} of ${size} keys.`);
      }
      const before = beat();
      await joinNamespaces(pid, PROGRAM, "/work/mark");
      if (!(await until(() => beat() > before + 3, 5000)))
        throw new Error("map-full: what was to try has ended.");
      return textOf(join(box.work, "mark")).includes("EFFECT");
    } finally {
      for (const pin of pins) fill(pin, "drain");
      rmSync(join(box.work, "go"), { force: true });
      await stage.clawsec.cli("kill", box.name);
    }
  },
};

export const fullSolo: readonly Solo[] = [full];
