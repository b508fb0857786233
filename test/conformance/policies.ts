// Random policies over the files, programs and hosts of the world.

import { NAMES } from "./connections.js";
import { type Documents, HARNESS_RULE, type PolicyDocument, type RuleDocument } from "./document.js";
import { NAME_PATTERNS, SANDBOX_VARIABLES } from "./environment.js";
import type { Feature } from "./features.js";
import type { Random } from "./random.js";
import { LOOPBACK_PORTS, type Place, type World } from "./world.js";

export const SUBJECTS = ["main", "tool", "side"] as const;
const ACTIONS = ["allow", "allow", "deny", "deny", "hold", "log"] as const;

const EXECUTABLES = [
  "/opt/t/bin/alpha",
  "/opt/t/bin/*",
  "/opt/t/bin/{alpha,beta}",
  "/opt/t/?in/beta",
  "/opt/t/lib/gamma",
  "**/gamma",
  "/opt/t/dyn",
  "/work/**",
  "/work/bin/*",
  "/work/bin/hard",
  "/work/c*",
  "/tmp/**",
  "/opt/t/s/*.sh",
  "/work/my.sh",
  "/usr/**",
  "/opt/t/i/*",
  "/opt/t/i/{dash,bash}",
  "/opt/t/i/{node,perl}*",
  "**/python3*",
  "/opt/t/i/busybox",
  "/opt/t/y/*",
] as const;
/** These also mean the driver, so that no floor may have them. */
const WIDE = ["/**", "/opt/**"] as const;
const SCRIPTS = [
  "/opt/t/s/**",
  "/work/*.sh",
  "**/one.sh",
  "/opt/t/s/nest.sh",
  "/opt/t/s/*.{sh,js}",
  "/work/**",
  "/tmp/*",
  "/work/sub/s*",
  "**/a.sh",
] as const;
const CODES = ["file", "inline", "module", "stream"] as const;
const CWDS = ["/work", "/work/*", "/opt/**", "/"] as const;
const GLOBS = [
  ["*"],
  ["**"],
  ["*", "push", "**"],
  ["*", "**", "-x", "**"],
  ["*", "**", "push"],
  ["alpha", "**"],
  ["*", "{push,origin}"],
  ["*", "-*", "**"],
  ["", "**"],
] as const;
const FLAGS = ["-r|-R|--recursive", "-f|--force", "-x", "--to", "-C"] as const;

/** What the generators may use. */
export interface Setting {
  readonly world: World;
  readonly place: Place;
  readonly features: ReadonlySet<Feature>;
}

function base(random: Random, id: string): RuleDocument {
  const action = random.pick(ACTIONS);
  // Short holds are for the deadline: nobody answers them.
  const isShort = random.chance(12);
  const terms = isShort
    ? { timeout: "300ms", default: random.pick(["allow", "deny"]) }
    : { timeout: "30s", default: "deny" };
  return {
    id,
    action,
    ...(random.chance(30) ? { subject: random.some(SUBJECTS, 2) } : {}),
    ...(action === "hold" ? { hold: terms } : {}),
    ...(random.chance(20) ? { because: `there is a reason for ${id}` } : {}),
    ...(random.chance(20) ? { message: `not by ${id}` } : {}),
  };
}

/** Makes some rules floors, and some only watching. */
function moded(random: Random, { features }: Setting, rule: RuleDocument, mayLock: boolean): RuleDocument {
  const restricts = rule.action === "deny" || rule.action === "hold";
  if (features.has("locked") && restricts && mayLock && random.chance(20)) return { ...rule, locked: true };
  if (features.has("observe") && random.chance(10)) return { ...rule, mode: "observe" };
  return rule;
}

function argvOf(random: Random, features: ReadonlySet<Feature>): unknown {
  if (!features.has("argv-mapping") || random.chance(50)) return random.pick(GLOBS);
  return random.weighted<unknown>([
    [4, () => ({ flags: random.some(FLAGS, 2) })],
    [3, () => ({ without: random.some(FLAGS, 2) })],
    [2, () => ({ flags: random.some(FLAGS, 2), valued: ["-C", "--to"] })],
    [2, () => ({ prefix: [random.pick(["push", "-x", "origin"])] })],
    [2, () => ({ exact: random.pick([[], ["push"], ["-x"], ["push", "-x"]]) })],
    [2, () => ({ regex: random.pick(["^pu", "[0-9]$", "^-[a-z]+$", "x|y"]) })],
    [1, () => ({ glob: random.pick(GLOBS), without: ["-x"] })],
  ]);
}

function execRule(random: Random, setting: Setting, id: string): RuleDocument {
  const { features, world } = setting;
  const isWide = random.chance(8);
  const executable = isWide
    ? [random.pick(WIDE)]
    : random.some([...EXECUTABLES, world.dynamicLoader], random.chance(70) ? 1 : 3);
  const keys: Record<string, unknown> = {};
  if (random.chance(88)) keys.executable = executable;
  if (random.chance(35)) keys.argv = argvOf(random, features);
  if (features.has("code") && random.chance(keys.executable === undefined ? 50 : 12))
    keys.code = random.some(CODES, 2);
  if (random.chance(keys.executable === undefined ? 60 : 20) || (!keys.executable && !keys.code))
    keys.script = random.some(SCRIPTS, 2);
  if (features.has("environment") && random.chance(15)) keys.environment = random.some(NAME_PATTERNS, 2);
  if (random.chance(12)) keys.cwd = random.some(CWDS, 2);
  if (random.chance(20)) keys.kind = random.some(["file", "anonymous", "deleted"], 3);
  if (features.has("inWorkspace") && random.chance(8)) keys.inWorkspace = random.chance(50);
  if (features.has("parent") && random.chance(8))
    keys.parent = random.pick(["/opt/t/driver", "/opt/t/side", "/usr/**"]);
  return moded(random, setting, { ...base(random, id), ...keys }, !isWide);
}

const HOSTS = [...Object.keys(NAMES), "*.one.test", "*.test", "*", "*.a.one.test"] as const;

function networkRule(random: Random, setting: Setting, id: string): RuleDocument {
  const { world, features } = setting;
  const { range, addresses } = world.hosts;
  const rule = base(random, id);
  const permits = rule.action !== "deny";
  const one = random.pick(Object.values(addresses));
  const keys: Record<string, unknown> = {};
  if (random.chance(70)) {
    keys.host = random.some(HOSTS, random.chance(70) ? 1 : 3);
    if (permits && random.chance(90)) keys.resolvesTo = random.pick([range, [`${one}/32`, range]]);
  } else {
    keys.cidr = random.pick([one, `${one}/32`, range, "10.0.0.0/8", "0.0.0.0/0"]);
  }
  if (random.chance(40)) keys.ports = random.pick([80, [443, 8080], "80-443", [8080]]);
  if (features.has("protocol") && random.chance(20))
    keys.protocol = random.pick(["tls", "http", "other", ["tls", "http"]]);
  else if (features.has("requests") && random.chance(15)) {
    if (random.chance(60)) keys.method = random.some(["GET", "POST", "HEAD"], 2);
    if (keys.method === undefined || random.chance(50))
      keys.path = random.pick(["/v1/**", "/", "/v1/*", "/admin"]);
  }
  return moded(random, setting, { ...rule, ...keys }, true);
}

/** What no running sandbox can change: mounts, subjects. */
export function makeFrame(random: Random, { world, place }: Setting): PolicyDocument {
  const loopback = () =>
    random.weighted<Record<string, unknown>>([
      [3, () => ({ loopback: "any" })],
      [3, () => ({ loopback: { ports: random.some(LOOPBACK_PORTS, 2) } })],
      [2, () => ({})],
    ]);
  const writes = random.pick([["/data"], ["/data/a"], ["/data/a", "/data/b"], []]);
  const reads = random.pick([["/data", "/ro"], ["/data/b", "/ro/x"], ["/ro"]]);
  // What a rule masks is not there for the subject.
  const trees = (paths: readonly string[]) => paths.map((path) => ({ path, optional: true }));
  const tools = `${world.folder}/t`;
  return {
    apiVersion: "clawsec/v1",
    kind: "Policy",
    metadata: { name: "conformance" },
    sandbox: {
      command: ["/opt/t/driver", "main", ...LOOPBACK_PORTS.map(String)],
      user: { uid: 1000, gid: 1000, name: "agent" },
      home: "/work",
      environment: Object.fromEntries(Object.keys(SANDBOX_VARIABLES).map((name) => [name, "1"])),
      workspace: "/work",
      mounts: [
        { source: "/usr" },
        { source: tools, target: "/opt/t" },
        { source: place.work, target: "/work", mode: "rw" },
        { source: place.data, target: "/data", mode: "rw" },
        { source: place.readOnly, target: "/ro" },
      ],
    },
    subjects: [
      { name: "main", ...loopback() },
      {
        name: "tool",
        enters: [{ from: "main", executable: "/.clawsec/tool" }],
        entry: { path: "/.clawsec/tool", exec: "/opt/t/driver" },
        files: {
          read: ["/usr", "/opt/t", ...trees(reads)],
          write: ["/work", "/tmp", ...trees(writes)],
          exec: ["/usr", "/opt/t", ...(random.chance(60) ? ["/work"] : [])],
        },
        ...loopback(),
      },
      { name: "side", enters: [{ from: "main", executable: "/opt/t/side" }], ...loopback() },
    ],
    approvals: { timeout: "30s", default: "deny" },
    resolver: {
      hosts: Object.fromEntries(Object.entries(NAMES).map(([name, to]) => [name, world.hosts.addresses[to]])),
    },
  };
}

/** A whole policy around a frame and rules for files. */
export function makePolicy(
  random: Random,
  setting: Setting,
  frame: PolicyDocument,
  file: readonly RuleDocument[],
): Documents {
  const driver = {
    id: HARNESS_RULE,
    executable: ["/opt/t/driver", "/opt/t/side", "/.clawsec/tool"],
    action: "allow",
  };
  const rules = (make: typeof execRule, most: number, prefix: string) =>
    Array.from({ length: random.below(most + 1) }, (_, i) => make(random, setting, `${prefix}${i}`));
  const exec = rules(execRule, 16, "e");
  const network = rules(networkRule, 14, "n");
  const defaults = {
    exec: random.pick(["deny", "deny", "allow", "hold", "log"]),
    network: random.pick(["deny", "deny", "deny", "allow", "hold"]),
  };
  const main: PolicyDocument = { ...frame, defaults, exec: [driver, ...exec], file, network };
  if (!setting.features.has("extends") || random.chance(70)) return { main, base: undefined };
  return split(random, main);
}

/** Moves the last rules into a policy that this one extends. */
function split(random: Random, main: PolicyDocument): Documents {
  const at = 1 + random.below(main.exec?.length ?? 1);
  // A floor speaks of subjects only in the file that has them.
  const moved = (main.exec ?? [])
    .slice(at)
    .map(({ subject, ...rule }) =>
      subject === undefined || rule.locked ? rule : { ...rule, subject },
    ) as RuleDocument[];
  const { subjects = [], ...rest } = main;
  return {
    main: { ...rest, exec: (main.exec ?? []).slice(0, at) },
    base: {
      apiVersion: main.apiVersion,
      kind: main.kind,
      metadata: { name: "base" },
      subjects,
      exec: moved,
    },
  };
}
