// docs/escape.md: the ways by the layer that should stop them. `node dist/test/escape/table.js` writes it.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../agent/common/paths.js";
import { SOLO } from "./solo.js";
import { WAYS } from "./ways.js";

interface Row {
  readonly id: string;
  readonly tries: string;
  readonly layer: string;
  readonly who: string;
}

const HEAD = `# Ways out that are tried

\`make escape\` tries each of these in a real sandbox and looks for its effect: a file that was written or changed, a packet that came to a test host, words
that came out, a program that ran, a process that is left. What a call returned is never looked at. The same program also runs where clawsec is not (a plain
runc container with the same files, as the sandbox's user or as root with all capabilities; or what the row says): there the effect must be seen, or the row could not fail
and counts as an error. It ends with \`escape: N ways, 0 effects, N controls worked\`.

The sandbox runs \`policy/packs/openclaw.yaml\` with the run's own programs, folders and hosts added in front; a small program in the place of OpenClaw holds a secret,
listens on loopback, and starts tools through a broker. Most ways are tried by a tool and in the gateway's own process. All run as uid 1000: a policy cannot ask for uid or gid 0, which is
a row of its own, so what root could do is tried by those who would become root. What a kernel does not have (x32, vsock, SCTP, ...) is said and not counted.

\`CLAWSEC_ESCAPE_ONLY='^file-'\` runs those whose id matches; \`CLAWSEC_ESCAPE_KEEP=1\` leaves the files. The programs are in \`test/escape/programs\`, the tables in
\`test/escape/ways\` and \`test/escape/solo\`. This file is written by \`node dist/test/escape/table.js\`; a test compares it with the tables.
`;

/** The text of docs/escape.md. */
export function table(): string {
  const rows: Row[] = [
    ...WAYS.map(({ id, tries, layer, subjects }) => ({ id, tries, layer, who: subjects.join(", ") })),
    ...SOLO.map(({ id, tries, layer, who }) => ({ id, tries, layer, who })),
  ];
  const layers = [...new Set(rows.map(({ layer }) => layer))].sort();
  const sections = layers.map((layer) => {
    const lines = rows
      .filter((row) => row.layer === layer)
      .map(({ id, tries, who }) => `| \`${id}\` | ${cell(tries)} | ${cell(who)} |`);
    return `\n## ${layer.slice(0, 1).toUpperCase()}${layer.slice(1)}\n\n| id | what is tried | by |\n|---|---|---|\n${lines.join("\n")}\n`;
  });
  return HEAD + sections.join("");
}

const cell = (text: string) => text.replaceAll("|", "\\|");

/** Where it is kept. */
export const TABLE_FILE = join(packageRoot(), "docs/escape.md");

if (import.meta.main) writeFileSync(TABLE_FILE, table());
