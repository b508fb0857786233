// clawsec as a whole on Debian 12's own kernel, which has less than the host's: Landlock without truncation (ABI 2), no
// tmpfs that is kept from swap. What a policy does not need is not asked for; what it needs is refused, or waived by name.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { inVirtualMachine } from "./machine.ts";
import { describeInMachine } from "./suite.ts";

const clawsec = join(fileURLToPath(new URL("../..", import.meta.url)), "bin/clawsec");

const HEAD = `apiVersion: clawsec/v1
kind: Policy
metadata: { name: p }
extends: builtin:default
`;
const RULES = `${HEAD}exec:
  - { id: no-ls, executable: /usr/bin/ls, action: deny }
  - { id: ask, executable: /usr/bin/uname, action: hold }
`;
const NEEDS = `${HEAD}secrets: { items: [{ name: k, file: /run/keys/k }] }
subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /.clawsec/tool }]
    entry: { path: /.clawsec/tool, exec: /usr/bin/dash }
    files: { read: [/usr, /etc, /run/ws], write: [/run/ws], exec: [/usr] }
exec:
  - { id: entry, subject: main, executable: /.clawsec/tool, action: allow }
`;
const WAIVED = `${NEEDS}waive:
  - { name: tmpfs.noswap, reason: the machine has no swap }
  - { name: landlock, reason: nothing in its folders is harmed by being cut }
`;

/** Prints "@@ NAME", what was said, and "@@ CODE" for each run. */
const script = `
export CLAWSEC_RUNTIME_DIR=/run/clawsec CLAWSEC_STATE_DIR=/run/state
cd /run
mkdir ws keys
chmod 777 ws
echo value >keys/k
printf %s "$1" >rules.yaml; printf %s "$2" >needs.yaml; printf %s "$3" >waived.yaml
run() { # NAME COMMAND ARGUMENT
  echo "@@ $1"
  code=0
  ${clawsec} run -p "$1.yaml" --name "$1" --var workspace=/run/ws -- /bin/sh -c "$2" "$3" 2>&1 || code=$?
  echo "@@ $code"
}
run rules 'id -u; ls /; echo "ls $?"; echo >/run/ws/asks; uname; echo "uname $?"' &
# Each look at the holds is a process of some seconds here, and takes them from the one that is about to ask.
for _ in $(seq 120); do
  [ ! -e ws/asks ] || break
  sleep 1
done
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
  ${clawsec} holds --json >holds 2>/dev/null || true
  id=$(sed -n 's/.*"id":"\\([^"]*\\)".*/\\1/p' holds)
  [ -z "$id" ] || break
done
${clawsec} approve "$id" >/dev/null
wait
run needs 'echo ran'
run waived 'cat /run/secrets/clawsec/k; /.clawsec/tool -c "$0"' '
  cat /run/secrets/clawsec/k || echo "no secret"
  echo x >/run/ws/x && echo written
  echo y >/tmp/y || echo refused'
`;

describeInMachine(
  "clawsec on Debian 12's own kernel",
  () => {
    const said = new Map<string, { text: string; code: number }>();
    beforeAll(async () => {
      const ended = await inVirtualMachine({
        machine: "linux-6.1",
        command: ["sh", "-c", script, "sh", RULES, NEEDS, WAIVED],
        timeoutMs: 8 * 60_000,
      });
      for (const [, name = "", text = "", code] of ended.stdout.matchAll(/@@ ([a-z]+)\n(.*?)@@ (\d+)\n/gs))
        said.set(name, { text, code: Number(code) });
      expect(ended, [...said.keys()].join()).toMatchObject({ code: 0 });
    }, 10 * 60_000);

    test("runs what rules allow, denies what they deny, and holds what they hold until somebody approves", () => {
      const { text, code } = said.get("rules") ?? {};
      expect(text).toMatch(/^1000$/m);
      expect(text).toContain("/usr/bin/ls denied by rule exec/no-ls");
      expect(text).toMatch(/^ls 126$/m);
      expect(text).toMatch(/^Linux\nuname 0$/m);
      expect(code).toBe(0);
    });

    test("refuses a policy that needs what the kernel lacks, by its names", () => {
      const { text, code } = said.get("needs") ?? {};
      expect(text).toContain("this host has no tmpfs.noswap");
      expect(text).toContain("Landlock ABI 3 is needed and this kernel has 2");
      expect(text).not.toMatch(/^ran$/m);
      expect(code).toBe(3);
    });

    test("starts it where both are waived by name, says so, and enforces the rest", () => {
      const { text, code } = said.get("waived") ?? {};
      expect(text).toContain("It is waived: the machine has no swap");
      expect(text).toContain("It is waived: nothing in its folders is harmed by being cut");
      expect(text?.match(/^value$/gm)).toHaveLength(1);
      expect(text).toMatch(/^no secret$/m);
      expect(text).toMatch(/^written$/m);
      expect(text).toMatch(/^refused$/m);
      expect(code).toBe(0);
    });
  },
  "linux-6.1",
);
