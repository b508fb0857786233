// What of a new policy a running sandbox cannot take over: the static layers, set up once when it starts. The tables
// (network, exec, the facts of questions) and the supervisor's own rules change at any moment.

import type { Artefacts } from "../compile.js";
import { canonicalJson } from "../hash.js";

/** Longest list of changes in one sentence. */
const MAX_NAMED = 6;

interface Oci {
  readonly process: Record<string, unknown> & { readonly env: readonly string[] };
  readonly mounts: readonly { readonly destination: string; readonly options: readonly string[] }[];
  readonly hostname: string;
  readonly linux: { readonly maskedPaths: readonly string[]; readonly resources: unknown };
}

/** One static layer: its parts by name, each with what it is. */
type Parts = ReadonlyMap<string, unknown>;
type Layer = readonly [what: string, parts: (artefacts: Artefacts) => Parts];

function parts<T>(
  items: readonly T[],
  name: (item: T) => string,
  what: (item: T) => unknown = (item) => item,
): Parts {
  return new Map(items.map((item) => [name(item), what(item)]));
}

function json(bytes: Uint8Array): unknown {
  return bytes.length === 0 ? undefined : JSON.parse(Buffer.from(bytes).toString());
}

const oci = (artefacts: Artefacts) => json(artefacts.ociConfig) as Oci;

const LAYERS: readonly Layer[] = [
  [
    "mounts",
    (a) =>
      parts(
        oci(a).mounts,
        (m) =>
          `${m.destination} ${m.options.includes("ro") ? "ro" : "rw"}${m.options.includes("noexec") ? " noexec" : ""}`,
      ),
  ],
  ["masks", (a) => parts(oci(a).linux.maskedPaths, (path) => path)],
  [
    "environment, user or limits",
    (a) => {
      const { process, hostname, linux } = oci(a);
      const { env, apparmorProfile: _, ...rest } = process;
      return new Map<string, unknown>([
        // Values may be private; the names say enough.
        ...env.map((pair): [string, unknown] => [pair.slice(0, pair.indexOf("=")), pair]),
        ...Object.entries(rest),
        ["hostname", hostname],
        ["resources", linux.resources],
      ]);
    },
  ],
  [
    "files and mount points of the root",
    (a) =>
      parts(
        a.rootfs,
        (e) => e.path,
        (e) => [e.kind?.$case, String(e.kind?.value)],
      ),
  ],
  [
    "seccomp filter",
    (a) => {
      const { syscalls = [] } = (json(a.seccomp) ?? {}) as {
        syscalls?: { names: string[]; action: string }[];
      };
      return new Map(
        syscalls.flatMap((s) =>
          s.names.map((name): [string, unknown] => [name, syscalls.filter((o) => o.names.includes(name))]),
        ),
      );
    },
  ],
  ["Landlock ruleset", (a) => landlock(a.landlock)],
  [
    "subjects",
    (a) =>
      parts(
        a.subjects,
        (s) => s.name,
        ({ entryLandlock: _, loopbackPorts: __, loopbackAny: ___, ...rest }) => rest,
      ),
  ],
  [
    "Landlock rulesets of entries",
    (a) =>
      new Map(
        a.subjects.flatMap((s) =>
          [...landlock(s.entryLandlock)].map(([k, v]): [string, unknown] => [`${s.name} ${k}`, v]),
        ),
      ),
  ],
  [
    "loopback ports",
    (a) =>
      parts(
        a.subjects,
        (s) => s.name,
        (s) => [s.loopbackAny, s.loopbackPorts],
      ),
  ],
  [
    "AppArmor profile",
    (a) => {
      const denials = (a.apparmor?.text ?? "").split("\n").filter((line) => line.startsWith("  audit deny "));
      return parts([...(a.apparmor === undefined ? [] : [a.apparmor.name]), ...denials], (line) =>
        line.trim().replace(/,$/, ""),
      );
    },
  ],
  [
    "nftables ruleset",
    (a) =>
      new Map<string, unknown>(a.nftables.length === 0 ? [] : [["table inet clawsec", json(a.nftables)]]),
  ],
  ["files that are asked about", (a) => parts(a.tables?.fileGuards ?? [], (g) => g.path)],
  ["published ports", (a) => parts(a.publish, (p) => `${p.hostIp}:${p.hostPort} to ${p.sandboxPort}`)],
  [
    "secrets' folder",
    (a) =>
      new Map<string, unknown>(a.secretsMount === undefined ? [] : [[a.secretsMount.path, a.secretsMount]]),
  ],
];

function landlock(ruleset: Artefacts["landlock"]): Parts {
  if (ruleset === undefined) return new Map();
  const { paths, ...rights } = ruleset;
  return new Map<string, unknown>([...paths.map((p): [string, unknown] => [p.path, p]), ["rights", rights]]);
}

/**
 * What of `after` cannot be applied to a sandbox that runs with `before`: one sentence for each static layer, with
 * what would be added, removed and changed there. Empty: ApplyPolicy does all of it in one step.
 */
export function needsRestart(before: Artefacts, after: Artefacts): string[] {
  return LAYERS.flatMap(([what, of]) => {
    const changes = difference(of(before), of(after));
    return changes === ""
      ? []
      : [`The new policy changes the ${what} (${changes}), which needs a new sandbox.`];
  });
}

function difference(before: Parts, after: Parts): string {
  const added = [...after.keys()].filter((key) => !before.has(key));
  const removed = [...before.keys()].filter((key) => !after.has(key));
  const changed = [...after].filter(
    ([key, value]) => before.has(key) && canonicalJson(before.get(key)) !== canonicalJson(value),
  );
  const list = (word: string, names: readonly string[]) => {
    if (names.length === 0) return [];
    const rest = names.length - MAX_NAMED;
    return [`${word} ${names.slice(0, MAX_NAMED).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`];
  };
  return [
    ...list("adds", added),
    ...list("removes", removed),
    ...list(
      "changes",
      changed.map(([key]) => key),
    ),
  ].join("; ");
}
