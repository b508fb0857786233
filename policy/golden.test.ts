// The ready policies, and one with a rule for every layer, lowered for three kinds of host, byte for byte. A layer's
// file stands once in golden/NAME, from the first host; another host has a folder of its own for what differs there.
// After a wanted change:
//   CLAWSEC_UPDATE_GOLDEN=1 npx vitest run --project unit policy/golden.test.ts      and read the difference.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { artefactFiles, compile } from "./compile.js";
import { renderDiagnostics } from "./diagnostics.js";
import { renderExplain } from "./explain.js";
import { parsePolicy } from "./schema.js";
import { capabilities, SYSTEM, tableHost } from "./testing/host.js";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** What the loader finds there. No loader offers "file.names" yet. */
const HOSTS = [
  { host: "linux-6.18", found: { landlock: 7, without: ["file.names", "apparmor"] } },
  // noswap came with Linux 6.4.
  { host: "debian-12", found: { landlock: 2, without: ["file.names", "tmpfs.noswap"] } },
  { host: "ubuntu-24.04", found: { landlock: 4, without: ["file.names"] } },
];

const POLICIES = [
  {
    name: "default",
    file: "packs/default.yaml",
    variables: { workspace: "/home/me/project" },
    command: ["make", "test"],
    files: ["/home/me/project/"],
  },
  {
    name: "openclaw",
    file: "packs/openclaw.yaml",
    variables: {
      openclaw: "/srv/openclaw",
      home: "/srv/home",
      gatewayToken: "/srv/keys/token",
      modelKey: "/srv/keys/model",
    },
    command: [],
    files: [
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
  {
    name: "every-layer",
    file: "testing/every-layer.yaml",
    variables: {},
    command: [],
    files: [
      "/srv/data/",
      "/srv/home/.ssh/id",
      "/srv/home/config",
      "/srv/home/keep",
      "/srv/home/letters/",
      "/srv/home/notes",
      "/srv/home/work/downloads/",
      "/srv/keys/key",
    ],
  },
];

function lowered(
  { name, file, variables, command, files }: (typeof POLICIES)[number],
  { found }: (typeof HOSTS)[number],
): ReadonlyMap<string, string> {
  const { policy, diagnostics } = parsePolicy(readFileSync(here(file), "utf8"), file, { variables });
  if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
  expect(renderDiagnostics(diagnostics)).toBe("");
  const result = compile(policy, {
    host: tableHost([...SYSTEM, ...files]),
    capabilities: capabilities(found),
    name,
    command,
  });
  const findings = renderDiagnostics(result.diagnostics);
  return new Map([
    ...(result.artefacts === undefined ? [] : artefactFiles(result.artefacts)),
    ["explain.txt", `${renderExplain(result.explain)}\n`],
    ["findings.txt", findings === "" ? "" : `${findings}\n`],
  ]);
}

/** Golden files of a policy: those of the first host, and of each other one what it has otherwise. */
function golden(policy: (typeof POLICIES)[number]): Map<string, string> {
  const [first, ...others] = HOSTS.map((host) => ({ ...host, files: lowered(policy, host) }));
  const all = new Map(first?.files);
  for (const { host, files } of others) {
    for (const [name, text] of files) if (first?.files.get(name) !== text) all.set(`${host}/${name}`, text);
  }
  return all;
}

describe.each(POLICIES)("the policy $name", (policy) => {
  const folder = here(`golden/${policy.name}`);

  test("is lowered to the same bytes every time", () => {
    expect(golden(policy)).toEqual(golden(policy));
  });

  test("is lowered to what golden/ has, and to nothing else", () => {
    const made = golden(policy);
    if (process.env.CLAWSEC_UPDATE_GOLDEN === "1") {
      rmSync(folder, { recursive: true, force: true });
      for (const [name, text] of made) {
        mkdirSync(dirname(join(folder, name)), { recursive: true });
        writeFileSync(join(folder, name), text);
      }
    }
    const kept = readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
    expect(kept.sort()).toEqual([...made.keys()].sort());
    for (const [name, text] of made) expect(text, name).toBe(readFileSync(join(folder, name), "utf8"));
  });
});

test("a layer that a kernel lacks is never left out silently", () => {
  const found = POLICIES.map((policy) =>
    HOSTS.map((host) => {
      const text = lowered(policy, host).get("findings.txt") ?? "";
      return [
        ...text.matchAll(/: (error|warning): .*?(Landlock ABI \d|is waived|goes by names|no tmpfs.noswap)/g),
      ].map(([, severity, what]) => `${severity} ${what}`);
    }),
  );
  const scope = (abi: number) => `warning Landlock ABI ${abi}`;
  expect(found).toEqual([
    [[], [], []],
    [[], [scope(2), "error Landlock ABI 3", "error no tmpfs.noswap"], [scope(4)]],
    [
      // The first two: waivers that this host does not need.
      ["warning is waived", "warning is waived", "warning goes by names", "warning is waived"],
      [scope(2), "warning Landlock ABI 3", "warning is waived", "warning no tmpfs.noswap"],
      ["warning is waived", "warning is waived", scope(4), "warning is waived"],
    ],
  ]);
});
