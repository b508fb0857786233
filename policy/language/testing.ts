// For the tests of the language: a policy and a test file with every key, and what declares each part of them.

import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { parsePolicy } from "../schema.js";
import { parsePolicyTest } from "../testfile.js";
import { policySchema, policyTestSchema } from "./json-schema.js";
import type { Mapping, Shape } from "./shape.js";

export function validator(schema: object): ValidateFunction {
  const ajv = new Ajv2020({ strict: true, strictRequired: false, strictTypes: false, allErrors: true });
  ajv.addKeyword("markdownDescription");
  return ajv.compile(schema);
}
export const isPolicy = validator(policySchema());
export const isTest = validator(policyTestSchema());

export const errors = (check: ValidateFunction, value: unknown): string[] =>
  check(value)
    ? []
    : (check.errors ?? []).map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`);

/** Whether the reader refuses; bases are taken from nowhere, so samples have none. */
export const refuses = (value: unknown) => {
  const result = parsePolicy(JSON.stringify(value), "p.yaml", { variables: { need: "x" } });
  return result.diagnostics.filter((d) => d.severity === "error").map((d) => d.message);
};
export const refusesTest = (value: unknown) =>
  parsePolicyTest(JSON.stringify(value), "t").diagnostics.map((d) => d.message);

export function mappingsOf(shape: Shape): Mapping[] {
  switch (shape.kind) {
    case "mapping":
      return [shape.mapping];
    case "list":
      return mappingsOf(shape.item);
    case "either":
      return shape.of.flatMap(mappingsOf);
    case "names":
      return mappingsOf(shape.value);
    default:
      return [];
  }
}

export const BASE = {
  apiVersion: "clawsec/v1",
  kind: "Policy",
  metadata: { name: "t" },
  sandbox: { mounts: [{ source: "/usr" }] },
};
export const HASH = "0".repeat(64);

export const COMMON = {
  action: "hold",
  hold: { timeout: "1m", default: "allow" },
  locked: true,
  mode: "enforce",
  rate: { max: 3, per: "1h" },
  subject: ["main"],
  message: "no",
  because: "so",
  severity: "high",
  tags: ["a"],
  when: [{ days: ["mon-fri", "sun"], from: "09:00", to: "18:00", timeZone: "Europe/Berlin" }],
};
/** Every mapping of the language with every key that can stand there, in as few policies as it takes. */
export const FULL = {
  ...BASE,
  metadata: { name: "t", description: "all of it" },
  mode: "observe",
  waive: [{ name: "nftables", reason: "none here" }],
  variables: { port: 18789, on: true, folder: "/srv", need: null, id: "1000" },
  sandbox: {
    backend: "runc",
    command: ["/bin/sh", 1, true],
    user: { uid: "${id}", gid: 1000, name: "agent" },
    home: "${folder}",
    workspace: "/srv/w",
    hostname: "h",
    environment: { PORT: "${port}", ON: true, N: 1 },
    mounts: [
      { type: "bind", source: "${folder}", target: "/srv", mode: "rw", exec: true, optional: true },
      { type: "tmpfs", target: "/x", size: "16Mi", exec: false },
    ],
    limits: { memory: "1Gi", pids: 64, cpus: 0.5, openFiles: 64, tmpfs: 1048576 },
    publish: [
      { host: "127.0.0.1:${port}", sandbox: "${port}" },
      { host: 8080, sandbox: 80 },
    ],
    healthCheck: {
      command: ["/bin/true", "${port}"],
      subject: "main",
      interval: "10s",
      timeout: "500ms",
      retries: 1,
      startPeriod: "1m",
    },
    supervisorGrace: "5s",
  },
  subjects: [
    { name: "main", loopback: { ports: [80] } },
    {
      name: "tool",
      enters: [{ from: "main", executable: "/.clawsec/sh", script: "/a", argv: { glob: ["*"] } }],
      entry: { path: "/.clawsec/sh", exec: "/bin/sh" },
      files: { read: ["/usr", { path: "/x", optional: true }], write: ["/tmp"], exec: ["/usr"] },
      loopback: "any",
    },
  ],
  defaults: { exec: "log", file: "deny", network: "hold" },
  exec: [
    {
      ...COMMON,
      id: "a",
      executable: "**/git",
      sha256: [HASH],
      script: "/s",
      inWorkspace: false,
      code: ["inline", "stream"],
      argv: {
        glob: ["*", "**"],
        exact: ["-r", "x"],
        prefix: ["-r"],
        regex: "x",
        flags: "-r|--recursive",
        without: ["-n"],
        valued: ["-C"],
      },
      cwd: "/srv/**",
      environment: "GIT_*",
      parent: "/p",
      ancestor: ["/q"],
      kind: "file",
      match: {
        executable: "/usr/bin/git",
        argv: ["git", "-r", "x"],
        script: "/s",
        code: "inline",
        cwd: "/srv/x",
        environment: "GIT_DIR",
        parent: "/p",
        ancestors: ["/q"],
        sha256: HASH,
        kind: "file",
        subject: "main",
      },
      notMatch: ["/bin/ls", { exec: "/bin/ls -l" }, { executable: "/bin/ls", loader: "/lib/ld.so" }],
    },
    { id: "b", action: "deny", executable: "/a", argv: ["*", "${folder}"], mode: "observe" },
  ],
  file: [
    {
      ...COMMON,
      id: "a",
      path: ["/a", "**/.env"],
      operations: ["read", "delete"],
      owner: ["root", 5],
      optional: true,
      match: { operation: "delete", path: "/a", owner: 5 },
      notMatch: [
        { operation: "rename", path: "/b", target: "/c", owner: "user", subject: "main" },
        { file: "delete /b" },
      ],
    },
  ],
  network: [
    {
      ...COMMON,
      id: "a",
      host: ["x.com"],
      port: ["${port}", 443, "80-90"],
      method: "GET",
      path: "/v1/**",
      protocol: "http",
      resolvesTo: "10.0.0.0/8",
      match: { host: "x.com", port: 443, protocol: "http", method: "GET", path: "/v1/x", subject: "main" },
      notMatch: [{ address: "192.0.2.1", port: 443 }, { network: "y.com:443" }],
    },
    { id: "b", action: "deny", cidr: "192.0.2.0/24", ports: [1] },
  ],
  secrets: { mount: "/run/s", items: [{ name: "k", file: "/srv/k" }] },
  approvals: { timeout: "1m", default: "deny" },
  resolver: { hosts: { "x.com": "192.0.2.1" } },
};
export const FULL_TEST = {
  apiVersion: "clawsec/v1",
  kind: "PolicyTest",
  policy: "./p.yaml",
  variables: { a: "/x", n: 1 },
  cases: [
    {
      name: "a",
      exec: { executable: "${a}", argv: "x" },
      subject: "main",
      at: "2026-11-22T10:00:00Z",
      expect: "deny",
    },
    {
      name: "b",
      file: { operation: "delete", path: "/x" },
      expect: { verdict: "allow", rule: "r", layer: "l", subject: "s", observed: "deny" },
    },
    { name: "c", network: { host: "x.com", port: 443 }, expect: { rule: "network/a" } },
  ],
};

export const alternatives = (shape: Shape): readonly Shape[] =>
  shape.kind === "either" ? shape.of.flatMap(alternatives) : [shape];

/** Each mapping in a value, with what declares it. */
export function* mappings(
  shape: Shape,
  value: unknown,
): Generator<{ mapping: Mapping; value: Record<string, unknown> }> {
  if (value === null || typeof value !== "object") return;
  const candidates = alternatives(shape);
  if (Array.isArray(value)) {
    const lists = candidates.filter((one) => one.kind === "list");
    for (const { item } of lists) for (const one of value) yield* mappings(item, one);
    return;
  }
  const own = value as Record<string, unknown>;
  for (const one of candidates) {
    if (one.kind !== "mapping" || !Object.keys(own).every((key) => key in one.mapping.keys)) continue;
    yield { mapping: one.mapping, value: own };
    for (const [key, inner] of Object.entries(own)) {
      const declared = one.mapping.keys[key];
      if (declared !== undefined) yield* mappings(declared.type, inner);
    }
    return;
  }
}
