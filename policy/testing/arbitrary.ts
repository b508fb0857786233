// Random policies and actions over a small world, so that most rules meet most actions: for property tests.

import fc from "fast-check";
import {
  ExecCode,
  ExecutableKind,
  FileOperation,
  NetworkProtocol,
  ObservedProtocol,
  type Process,
} from "../../proto/gen/clawsec/v1/loader.js";
import type { Moment } from "../evaluate.js";
import type {
  Action,
  ArgvPattern,
  ExecRule,
  FileOperationName,
  FileRule,
  NetworkRule,
  Policy,
  RuleAction,
  RuleBase,
} from "../model.js";
import { connect, exec, file, policy } from "./policy.js";

const BASE = policy(`subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /usr/bin/tool, argv: { flags: ["-t"] } }]
`);
const ORIGIN = BASE.sandbox.origin;

export const ruleActions = fc.constantFrom<RuleAction>("allow", "deny", "hold", "log");
const names = ["main", "tool"];
const A = "a".repeat(64);
const B = "b".repeat(64);

/** Mostly nothing, else one or two of these. */
const few = <T>(...values: T[]) =>
  fc.oneof(
    { weight: 3, arbitrary: fc.constant<T[]>([]) },
    { weight: 1, arbitrary: fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 }) },
  );
const one = <T>(...values: T[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 });
const rarely = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });

const windows = fc.record({
  days: one(0, 1, 2, 3, 4, 5, 6),
  fromMinute: fc.constantFrom(0, 540),
  toMinute: fc.constantFrom(480, 1080, 1440),
  timeZone: fc.constantFrom("UTC", "Europe/Berlin"),
});
const base: fc.Arbitrary<Omit<RuleBase, "id">> = fc
  .record({
    subjects: few(...names),
    action: ruleActions,
    mode: fc.constantFrom("enforce", "enforce", "enforce", "observe"),
    isLocked: fc.constantFrom(false, false, false, true),
    when: fc.oneof(
      { weight: 5, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(windows, { minLength: 1, maxLength: 2 }) },
    ),
    rate: rarely(fc.constant({ max: 2, perMs: 60_000 })),
    message: fc.constantFrom("", "no"),
  })
  .map(({ isLocked, rate, mode, ...rest }) => {
    const restricting = rest.action === "deny" || rest.action === "hold";
    const locked = isLocked && restricting;
    return {
      ...rest,
      locked,
      mode: locked ? "enforce" : mode,
      rate: rest.action === "deny" ? undefined : rate,
      because: "",
      hold: rest.action === "hold" ? { timeoutMs: 1000, onTimeout: "deny" } : undefined,
      severity: "info",
      tags: [],
      match: [],
      notMatch: [],
      origin: ORIGIN,
    } as const;
  });

const paths = [
  "/usr/bin/git",
  "/usr/bin/tool",
  "/usr/bin/dash",
  "/srv/a.sh",
  "/home/agent/run",
  "/opt/c",
  "/",
];
const pathPatterns = [
  ...paths,
  "/**",
  "/usr/**",
  "/usr/bin/*",
  "/usr/bin/{git,dash}",
  "/{usr,home}/**",
  "**/git",
  "/usr/**/dash",
  "/opt/?",
  "/usr/bin/g*",
  "/home/agent/\\run",
  "/usr/bin/git/*",
];
const flagNames = fc.constantFrom(["-r", "--recursive"], ["-f"], ["--force"], ["-C"]);
const argvPattern: fc.Arbitrary<ArgvPattern> = fc.record({
  glob: rarely(fc.constantFrom(["*", "push", "**"], ["**"], ["*", "**", "-r", "**"])),
  exact: rarely(fc.constantFrom<string[]>([], ["push"])),
  prefix: rarely(fc.constantFrom(["push"], ["-r"])),
  regex: few("^p", "r", "x+$"),
  flags: fc.array(flagNames, { maxLength: 1 }),
  without: fc.array(flagNames, { maxLength: 1 }),
  valued: few("-C", "--cd"),
});

const execRule = fc.record({
  base,
  executable: fc.oneof(one(...pathPatterns), few(...pathPatterns)),
  sha256: few(A, B),
  script: few(...pathPatterns),
  inWorkspace: rarely(fc.boolean()),
  code: fc.constantFrom<ExecRule["code"]>([], [], [], ["inline"], ["file", "module"]),
  argv: rarely(argvPattern),
  cwd: few("/home/agent", "/**"),
  environment: few("LD_*", "HOME"),
  parent: few(...pathPatterns),
  ancestor: few(...pathPatterns),
  category: fc.constant([]),
  kinds: fc.constantFrom<ExecRule["kinds"]>(
    ["file"],
    ["file"],
    ["file", "anonymous", "deleted"],
    ["anonymous"],
  ),
});

const OPERATIONS: FileOperationName[] = [
  "read",
  "write",
  "open",
  "create",
  "delete",
  "rename",
  "link",
  "truncate",
  "chmod",
];
const filePaths = ["/home/agent/a", "/home/agent/a/b", "/home/agent/b", "/data/a", "/nowhere", "/"];
const filePatterns = [...filePaths, "/home/agent", "/home/agent/*", "/home/**", "**/a", "/home/agent/{a,b}"];
const fileRule = fc.record({
  base,
  path: one(...filePatterns),
  operations: one(...OPERATIONS),
  owner: few(0, 1000),
  optional: fc.boolean(),
});

const hosts = ["x.com", "a.x.com", "b.a.x.com", "evilx.com", "y.com"];
const addresses = ["192.0.2.1", "192.0.2.130", "10.1.2.3", "::ffff:192.0.2.1", "2001:db8::1"];
const peer = fc.oneof(
  one("*", "*.x.com", "*.com", "*.a.x.com", ...hosts).map((host) => ({ host, cidr: [] as string[] })),
  one(
    "192.0.2.0/24",
    "192.0.2.128/25",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "192.0.2.1/32",
    "2001:db8::/33",
    "::/0",
  ).map((cidr) => ({ host: [] as string[], cidr })),
);
const networkRule = fc.record({
  base,
  peer,
  ports: few({ first: 443, last: 443 }, { first: 80, last: 8080 }),
  protocols: few<NetworkRule["protocols"][number]>("tls", "http", "other"),
  methods: few("GET", "POST"),
  paths: few("/v1/**", "/", "/*/a"),
  resolvesTo: fc.constant([]),
});

const execRules = fc
  .array(execRule, { maxLength: 8 })
  .map((rules) => rules.map(({ base, ...facts }, i): ExecRule => ({ ...base, ...facts, id: `exec/r${i}` })));
const fileRules = fc
  .array(fileRule, { maxLength: 8 })
  .map((rules) => rules.map(({ base, ...facts }, i): FileRule => ({ ...base, ...facts, id: `file/r${i}` })));
const networkRules = fc
  .array(networkRule, { maxLength: 8 })
  .map((rules) =>
    rules.map(
      ({ base, peer, ...facts }, i): NetworkRule => ({ ...base, ...peer, ...facts, id: `network/r${i}` }),
    ),
  );

/** Policies with every matcher, mode and lock; as from the reader, but locked rules may stand anywhere. */
export const policies: fc.Arbitrary<Policy> = fc
  .record({
    exec: execRules,
    file: fileRules,
    network: networkRules,
    mode: fc.constantFrom<Policy["mode"]>("enforce", "enforce", "enforce", "observe"),
    defaults: fc.record({ exec: ruleActions, network: ruleActions, file: fc.constant("deny" as const) }),
  })
  .map((sections) => ({ ...BASE, ...sections }));

const images = fc.constantFrom("", "/usr/bin/git", "/opt/c", "/srv/a.sh", "odd");
const processes: fc.Arbitrary<Process | undefined> = fc.option(
  fc
    .record({
      executable: images,
      ancestorExecutables: fc.array(images, { maxLength: 3 }),
      ancestorsTruncated: fc.constantFrom(false, false, true),
    })
    .map((facts) => ({
      pid: 1,
      sandboxPid: 1,
      uid: 1000,
      gid: 1000,
      execId: "",
      ancestors: [],
      comm: "",
      ...facts,
    })),
  { nil: undefined },
);
const hashes = fc.constantFrom("", A, B, "c".repeat(64));
const subjects = fc.constantFrom(...names);

export const execActions: fc.Arbitrary<Action> = fc
  .record({
    subject: subjects,
    process: processes,
    executable: fc.constantFrom(...paths),
    script: fc.oneof(fc.constant(""), fc.constantFrom(...paths)),
    argv: fc
      .array(fc.constantFrom("push", "-r", "-fr", "-t", "--rec", "--force", "-C", "--cd", "--", "x", ""), {
        maxLength: 4,
      })
      .map((rest) => ["prog", ...rest]),
    loader: fc.oneof(fc.constant(""), fc.constant(""), fc.constantFrom(...paths)),
    loaderSha256: hashes,
    code: fc.constantFrom(ExecCode.UNSPECIFIED, ExecCode.FILE, ExecCode.INLINE, ExecCode.UNKNOWN),
    scriptUnknown: fc.constantFrom("", "", "it is not known"),
    check: fc.boolean(),
    cwd: fc.constantFrom("/home/agent", "/srv"),
    environmentNames: fc.constantFrom<string[]>([], ["HOME"], ["LD_PRELOAD"]),
    executableSha256: hashes,
    scriptSha256: hashes,
    nestedScripts: fc.array<string>(fc.constantFrom(...paths), { maxLength: 2 }),
    kind: fc.constantFrom(
      ExecutableKind.FILE,
      ExecutableKind.FILE,
      ExecutableKind.FILE,
      ExecutableKind.ANONYMOUS,
      ExecutableKind.DELETED,
    ),
  })
  // Only a script can have another one for its interpreter.
  .map(({ subject, process, nestedScripts, ...facts }) => ({
    ...exec(
      {
        ...facts,
        nestedScripts: facts.script === "" ? [] : nestedScripts,
        nestedSha256: facts.script === "" ? [] : nestedScripts.map(() => facts.scriptSha256 ?? ""),
      },
      subject,
    ),
    process,
  }));

export const fileActions: fc.Arbitrary<Action> = fc
  .record({
    subject: subjects,
    operation: fc.constantFrom(
      FileOperation.OPEN,
      FileOperation.OPEN,
      FileOperation.DELETE,
      FileOperation.RENAME,
      FileOperation.LINK,
      FileOperation.TRUNCATE,
      FileOperation.CREATE,
      FileOperation.CHMOD,
    ),
    path: fc.constantFrom(...filePaths),
    target: fc.constantFrom(...filePaths),
    ownerUid: fc.constantFrom(0, 1000, 7),
  })
  .map(({ subject, operation, path, target, ownerUid }) => {
    const two = operation === FileOperation.RENAME || operation === FileOperation.LINK;
    const asked = file(operation, path, two ? target : "", subject);
    if (asked.action?.$case === "file") asked.action.value.ownerUid = ownerUid;
    return asked;
  });

export const networkActions: fc.Arbitrary<Action> = fc
  .record({
    subject: subjects,
    peer: fc.constantFrom(...hosts, "X.com.", ...addresses),
    port: fc.constantFrom(80, 443, 22),
    protocol: fc.constantFrom(NetworkProtocol.TCP, NetworkProtocol.TCP, NetworkProtocol.DNS),
    observedProtocol: fc.constantFrom(
      ObservedProtocol.NONE,
      ObservedProtocol.TLS,
      ObservedProtocol.HTTP,
      ObservedProtocol.OTHER,
      ObservedProtocol.UNSPECIFIED,
    ),
    httpMethod: fc.constantFrom("", "GET", "POST", "get"),
    httpPath: fc.constantFrom("", "/", "/v1/a", "/v1/../a", "/v2/a", "/%76%31/a"),
  })
  .map(({ subject, peer, port, ...more }) => connect(peer, port, subject, more));

export const anyActions = fc.oneof(execActions, fileActions, networkActions);

export const moments: fc.Arbitrary<Moment | undefined> = fc.option(
  fc
    .record({ timeMs: fc.integer({ min: 0, max: 2 ** 42 }), used: fc.constantFrom(0, 1, 2, 3) })
    .map(({ timeMs, used }) => ({ timeMs, used: () => used })),
  { nil: undefined },
);
