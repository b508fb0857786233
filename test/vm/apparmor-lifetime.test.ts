// What happens to a running program when its profile is replaced or removed.

import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { cache, inVirtualMachine } from "./machine.ts";
import { allowAllBut } from "./profiles.ts";
import { describeInMachine } from "./suite.ts";

const allowing = allowAllBut("clawsec-life", []);
const denying = allowAllBut("clawsec-life", ['audit deny "/run/ruled" w,']);

// A confined shell tries to write at each line that it reads; `try` says what came of it.
// (`true`, since a shell ends when a special command such as `:` cannot be redirected.)
const script = `
set -eu
parser=$1
put() { printf '%s' "$2" >/run/profile; "$parser" --skip-cache "--$1" /run/profile 2>>/run/messages; }
try() {
  echo >&9
  while [ "$(wc -l </run/verdicts)" = "$tries" ]; do sleep 0.05; done
  tries=$((tries + 1))
  echo "$1: $(tail -n 1 /run/verdicts) as $(cat /proc/$shell/attr/apparmor/current)"
}
: >/run/verdicts
tries=0
mkfifo /run/tries
put add "$denying"
(
  echo "exec clawsec-life" >/proc/self/attr/apparmor/exec
  exec sh -c 'while read -r _; do { true >>/run/ruled; } 2>/dev/null && echo written || echo denied; done'
) </run/tries >/run/verdicts &
shell=$!
exec 9>/run/tries
try start
put replace "$allowing"
try "replaced by one that allows"
put replace "$denying"
try "replaced by one that denies"
put add "$allowing" && echo "added twice" || echo "not added twice"
try "after the second add"
printf clawsec-life | tee /sys/kernel/security/apparmor/.remove >/dev/null
try removed
put add "$denying"
try "loaded again"
exec 9>&-
`;

describeInMachine("a running program whose AppArmor profile", () => {
  let said: Map<string, string>;
  beforeAll(async () => {
    const variables = `allowing='${allowing}'\ndenying='${denying}'\n`;
    const command = ["sh", "-c", variables + script, "sh", join(cache, "apparmor_parser")];
    const ended = await inVirtualMachine({ command });
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    const lines = ended.stdout.trim().split("\n");
    said = new Map(lines.map((line) => [line.split(":")[0] ?? "", line.split(": ")[1] ?? ""]));
  });

  const confined = "clawsec-life (enforce)";

  test("denies is denied", () => {
    expect(said.get("start")).toBe(`denied as ${confined}`);
  });

  test("is replaced is under the new rules at once, in both directions", () => {
    expect(said.get("replaced by one that allows")).toBe(`written as ${confined}`);
    expect(said.get("replaced by one that denies")).toBe(`denied as ${confined}`);
  });

  test("is added a second time keeps its rules, as the second is refused", () => {
    expect([...said.keys()]).toContain("not added twice");
    expect(said.get("after the second add")).toBe(`denied as ${confined}`);
  });

  test("is removed is unconfined from then on, also when the profile comes back", () => {
    expect(said.get("removed")).toBe("written as unconfined");
    expect(said.get("loaded again")).toBe("written as unconfined");
  });
});
