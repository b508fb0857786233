/** What people read of an action. */
import { expect, test } from "vitest";
import type { ExecAction } from "../../proto/gen/clawsec/v1/loader.js";
import { exec } from "../testing/questions.js";
import { actionLine } from "./action.js";

const line = (fields: Partial<ExecAction>) => actionLine({ $case: "exec", value: exec(fields) });

test("an exec is shown with its executable, and a script with what interprets it", () => {
  expect(line({ executable: "/usr/bin/git", argv: ["git", "push"] })).toBe("/usr/bin/git [git push]");
  expect(line({ executable: "/usr/bin/dash", script: "/srv/a.sh", argv: ["./a.sh"] })).toBe(
    "/srv/a.sh (by /usr/bin/dash) [./a.sh]",
  );
  // A text that is no program is both.
  expect(line({ executable: "/srv/a.sh", script: "/srv/a.sh", argv: ["./a.sh"] })).toBe("/srv/a.sh [./a.sh]");
});

test("a copy that calls itself bash is seen to be a copy", () => {
  const fields = { script: "/srv/a.sh", argv: ["/usr/bin/bash", "/srv/a.sh"] };
  expect(line({ ...fields, executable: "/tmp/bash" })).toContain("/tmp/bash");
  expect(line({ ...fields, executable: "/tmp/bash" })).not.toBe(
    line({ ...fields, executable: "/usr/bin/bash" }),
  );
});

test("a file's name ends where it is seen to end", () => {
  const forged = "/tmp/x (by /usr/bin/dash) [./a.sh]";
  expect(line({ executable: forged, argv: [] })).toBe(`'${forged}'`);
  expect(line({ executable: "/usr/bin/dash", script: "/tmp/x", argv: ["./a.sh"] })).toBe(forged);
});
