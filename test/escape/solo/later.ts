// What the sandbox writes and the user runs later, outside of it: a repository's hooks.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { inBox, makeBox, onHost, textOf } from "./box.js";
import type { Solo } from "./way.js";

const GIT = "export HOME=$PWD GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1";
const MAKE = `${GIT}; git init -q -b main project`;
/** The user's own command, with nothing of the sandbox's in it. */
const COMMIT = `${GIT}; cd project && git -c user.name=u -c user.email=u@example.org commit -q --allow-empty -m x; git status`;
const HOOK = "printf '#!/bin/sh\\necho EFFECT >> %s/mark\\n' \"$OUTSIDE\"";

/** Each of them alone would do. */
const PLANT = [
  GIT,
  `${HOOK} > hook; chmod 755 hook`,
  "cp hook project/.git/hooks/post-commit",
  "ln -s ../../../hook project/.git/hooks/pre-commit",
  'git -C project config core.hooksPath "$OUTSIDE/hooks"; mkdir -p hooks; cp hook hooks/post-commit',
  'git -C project config core.fsmonitor "$OUTSIDE/hook"',
  "mv project/.git/hooks project/.git/away && mkdir project/.git/hooks && cp hook project/.git/hooks/post-commit",
  "mv project/.git project/away && cp -r project/away project/.git && cp hook project/.git/hooks/post-commit",
  "mv project away && git init -q -b main project && cp hook project/.git/hooks/post-commit",
  // Where git looks for hooks and configuration instead.
  "cp -r project/.git common; mkdir -p common/hooks && cp hook common/hooks/post-commit && echo ../../common > project/.git/commondir",
  ":",
].join("\n");

const hooks: Solo = {
  id: "later-git-hook",
  tries:
    "a git hook, in a repository whose hooks and configuration a rule protects, that runs at the user's next commit",
  layer: "mount view: a read-only mount over the path",
  who: "main",
  async control(stage, folder) {
    const { work } = makeBox(stage, folder);
    await onHost(MAKE, work);
    await onHost(PLANT, work, { OUTSIDE: work });
    await onHost(COMMIT, work);
    return textOf(join(work, "mark")).includes("EFFECT");
  },
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder, {
      file: "{ id: hooks, path: [/work/project/.git/hooks, /work/project/.git/config, /work/project/.git/commondir], operations: [write], action: deny }",
    });
    await onHost(`${MAKE}; echo . > project/.git/commondir`, box.work);
    // The path that the hook has on the host, where it runs.
    const result = await inBox(stage, box, `export OUTSIDE=${box.work}\n${PLANT}`);
    if (!existsSync(join(box.work, "hook"))) throw new Error(`later-git-hook: nothing ran. ${result.stderr}`);
    await onHost(COMMIT, box.work);
    return textOf(join(box.work, "mark")).includes("EFFECT");
  },
};

export const laterSolo: readonly Solo[] = [hooks];
