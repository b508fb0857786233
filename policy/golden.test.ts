// Both ready policies, lowered for a fixed host, byte for byte. After a wanted change:
//   CLAWSEC_UPDATE_GOLDEN=1 npx vitest run policy/golden.test.ts      and read the difference.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { type Artefacts, compile } from "./compile.js";
import { renderDiagnostics } from "./diagnostics.js";
import { renderExplain } from "./explain.js";
import { parsePolicy } from "./schema.js";
import { capabilities, SYSTEM, tableHost } from "./testing/host.js";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const PACKS = [
  {
    name: "default",
    variables: { workspace: "/home/me/project" },
    command: ["make", "test"],
    host: ["/home/me/project/"],
  },
  {
    name: "openclaw",
    variables: {
      openclaw: "/srv/openclaw",
      home: "/srv/home",
      gatewayToken: "/srv/keys/token",
      modelKey: "/srv/keys/model",
    },
    command: [],
    host: [
      "/srv/openclaw/node_modules/openclaw/openclaw.mjs",
      "/srv/openclaw/node_modules/node/bin/node",
      "/srv/home/.openclaw/openclaw.json",
      "/srv/home/.openclaw/workspace/.git/hooks/",
      "/srv/home/.bashrc",
      "/srv/home/.ssh/id_ed25519",
      "/srv/keys/token",
      "/srv/keys/model",
    ],
  },
];

/** Artefacts as JSON that people can read a difference of. */
function readable(artefacts: Artefacts): string {
  const plain = {
    ...artefacts,
    ociConfig: JSON.parse(artefacts.ociConfig.toString()),
    seccomp: JSON.parse(artefacts.seccomp.toString()),
    rootfs: artefacts.rootfs.map((entry) => ({
      path: entry.path,
      [entry.kind?.$case ?? "nothing"]: entry.kind?.$case === "directory" ? true : String(entry.kind?.value),
    })),
  };
  return `${JSON.stringify(plain, null, 2)}\n`;
}

describe.each(PACKS)("the policy $name", ({ name, variables, command, host }) => {
  const file = `packs/${name}.yaml`;
  const build = () => {
    const { policy, diagnostics } = parsePolicy(readFileSync(here(file), "utf8"), file, { variables });
    expect(renderDiagnostics(diagnostics)).toBe("");
    if (policy === undefined) throw new Error("unreachable: no policy without findings");
    const result = compile(policy, {
      host: tableHost([...SYSTEM, ...host]),
      capabilities: capabilities({ without: ["file.names"] }),
      name,
      command,
    });
    expect(renderDiagnostics(result.diagnostics)).toBe("");
    if (result.artefacts === undefined) throw new Error("unreachable: no artefacts without findings");
    return { explain: `${renderExplain(result.explain)}\n`, artefacts: readable(result.artefacts) };
  };

  test.each([
    ["artefacts", `golden/${name}.golden.json`],
    ["explain", `golden/${name}.explain.txt`],
  ] as const)("is lowered to the same %s every time", (part, golden) => {
    const made = build()[part];
    expect(build()[part]).toBe(made);
    if (process.env.CLAWSEC_UPDATE_GOLDEN === "1") {
      mkdirSync(here("golden"), { recursive: true });
      writeFileSync(here(golden), made);
    }
    expect(made).toBe(readFileSync(here(golden), "utf8"));
  });
});
