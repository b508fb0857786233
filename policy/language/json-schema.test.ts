// The JSON Schema against the reader. After a wanted change of the language:
//   CLAWSEC_UPDATE_GOLDEN=1 npx vitest run policy/language/json-schema.test.ts && npm run format      and read the difference.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { parsePolicy } from "../schema.js";
import { parsePolicyTest } from "../testfile.js";
import { policyText } from "../testing/policy.js";
import { POLICY_TEST } from "./actions.js";
import { policySchema, policyTestSchema } from "./json-schema.js";
import { POLICY } from "./policy.js";
import type { Mapping, Shape } from "./shape.js";

const here = (path: string) => new URL(path, import.meta.url);

function validator(schema: object): ValidateFunction {
  const ajv = new Ajv2020({ strict: true, strictRequired: false, strictTypes: false, allErrors: true });
  ajv.addKeyword("markdownDescription");
  return ajv.compile(schema);
}
const isPolicy = validator(policySchema());
const isTest = validator(policyTestSchema());

const errors = (check: ValidateFunction, value: unknown): string[] =>
  check(value)
    ? []
    : (check.errors ?? []).map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`);

/** Whether the reader refuses; bases are taken from nowhere, so samples have none. */
const refuses = (value: unknown) => {
  const result = parsePolicy(JSON.stringify(value), "p.yaml", { variables: { need: "x" } });
  return result.diagnostics.filter((d) => d.severity === "error").map((d) => d.message);
};
const refusesTest = (value: unknown) =>
  parsePolicyTest(JSON.stringify(value), "t").diagnostics.map((d) => d.message);

describe("the published schema", () => {
  test.each([
    ["clawsec.schema.json", policySchema()],
    ["clawsec-test.schema.json", policyTestSchema()],
  ])("%s is what the language declares", (name, schema) => {
    const file = here(`../schema/${name}`);
    const text = `${JSON.stringify(schema, null, 2)}\n`;
    if (process.env.CLAWSEC_UPDATE_GOLDEN === "1") writeFileSync(file, text);
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(schema);
  });

  test.each([
    ["policies", policySchema()],
    ["tests", policyTestSchema()],
  ])("for %s is a schema of draft 2020-12", (_, schema) => {
    const ajv = new Ajv2020();
    expect(ajv.validateSchema(schema), JSON.stringify(ajv.errors)).toBe(true);
  });

  test("has a text for every key", () => {
    const walk = (value: unknown, path: string): void => {
      if (typeof value !== "object" || value === null) return;
      const properties = "properties" in value && "additionalProperties" in value ? value.properties : {};
      for (const [key, one] of Object.entries(properties ?? {}))
        expect(one, `${path}/${key}`).toHaveProperty("markdownDescription");
      for (const [key, one] of Object.entries(value)) walk(one, `${path}/${key}`);
    };
    walk(policySchema(), "");
  });
});

describe("the schema takes", () => {
  const packs = readdirSync(here("../packs")).filter((name) => name.endsWith(".yaml"));

  test.each(packs)("the ready policy %s", (name) => {
    const value = parse(readFileSync(here(`../packs/${name}`), "utf8"));
    expect(errors(name.endsWith(".test.yaml") ? isTest : isPolicy, value)).toEqual([]);
  });

  const reference = readFileSync(here("../../docs/policy.md"), "utf8");
  const examples = [...reference.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? "");

  test.each(examples)("the example of the reference: %s", (example) => {
    const value = parse(example.includes("apiVersion") ? example : policyText(example));
    expect(errors(value.kind === "PolicyTest" ? isTest : isPolicy, value)).toEqual([]);
  });

  test("the examples and defaults that it gives itself", () => {
    const ajv = new Ajv2020({ strict: false });
    ajv.addSchema(policySchema(), "policy").addSchema(policyTestSchema(), "test");
    const places = new Map([
      [POLICY, "policy#"],
      [POLICY_TEST, "test#"],
    ]);
    const check = (mapping: Mapping, seen: Set<Mapping>): void => {
      if (seen.has(mapping)) return;
      seen.add(mapping);
      for (const [name, key] of Object.entries(mapping.keys)) {
        const valid = ajv.compile({ $ref: `${places.get(mapping)}/properties/${name}` });
        for (const value of [key.default, key.example]) {
          if (value !== undefined) expect(errors(valid, value), `${mapping.name}.${name}`).toEqual([]);
        }
        for (const inner of mappingsOf(key.type)) {
          const root = places.get(mapping)?.split("#")[0];
          if (!places.has(inner)) places.set(inner, `${root}#/$defs/${inner.name}`);
          check(inner, seen);
        }
      }
    };
    const seen = new Set<Mapping>();
    check(POLICY, seen);
    check(POLICY_TEST, seen);
    expect(seen.size).toBeGreaterThan(25);
  });
});

function mappingsOf(shape: Shape): Mapping[] {
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

const base = {
  apiVersion: "clawsec/v1",
  kind: "Policy",
  metadata: { name: "t" },
  sandbox: { mounts: [{ source: "/usr" }] },
};
const HASH = "0".repeat(64);

const COMMON = {
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
const FULL = {
  ...base,
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
        cwd: "/srv/x",
        environment: "GIT_DIR",
        parent: "/p",
        ancestors: ["/q"],
        sha256: HASH,
        kind: "file",
        subject: "main",
      },
      notMatch: ["/bin/ls", { exec: "/bin/ls -l" }],
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
const FULL_TEST = {
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

const alternatives = (shape: Shape): readonly Shape[] =>
  shape.kind === "either" ? shape.of.flatMap(alternatives) : [shape];

/** Each mapping in a value, with what declares it. */
function* mappings(
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

describe("the schema and the reader agree", () => {
  const kinds = [
    { what: "policy", full: FULL, root: POLICY, check: isPolicy, refused: refuses },
    { what: "test", full: FULL_TEST, root: POLICY_TEST, check: isTest, refused: refusesTest },
  ];

  test.each(kinds)("that a $what with every key is right", ({ full, check, refused }) => {
    expect(errors(check, full)).toEqual([]);
    expect(refused(full)).toEqual([]);
  });

  test("about every key: none is declared that the samples do not have", () => {
    const unseen = new Map<string, Set<string>>();
    const declare = (mapping: Mapping): void => {
      if (unseen.has(mapping.name)) return;
      unseen.set(mapping.name, new Set(Object.keys(mapping.keys)));
      for (const key of Object.values(mapping.keys)) for (const inner of mappingsOf(key.type)) declare(inner);
    };
    for (const { root, full } of kinds) {
      declare(root);
      for (const { mapping, value } of mappings({ kind: "mapping", mapping: root }, full))
        for (const key of Object.keys(value)) unseen.get(mapping.name)?.delete(key);
    }
    const left = [...unseen].flatMap(([name, keys]) => [...keys].map((key) => `${name}.${key}`));
    // What `extends` means depends on other files, `category` on the catalogue.
    expect(left).toEqual(["policy.extends", "execRule.category"]);
  });

  test.each(kinds)(
    "that an unknown key beside any key of a $what is wrong",
    ({ full, root, check, refused }) => {
      const copy = structuredClone(full);
      let tried = 0;
      for (const { mapping, value } of mappings({ kind: "mapping", mapping: root }, copy)) {
        for (const key of Object.keys(mapping.keys)) {
          const neighbour = `${key}x`;
          if (neighbour in mapping.keys) continue;
          value[neighbour] = 1;
          expect(check(copy), `${mapping.name}.${neighbour}`).toBe(false);
          delete value[neighbour];
        }
        value.zzz = 1;
        expect(refused(copy).join("\n"), mapping.name).toMatch(/zzz/);
        delete value.zzz;
        tried++;
      }
      expect(tried).toBeGreaterThan(6);
    },
  );

  const exec = (rule: object) => ({
    ...base,
    exec: [{ id: "a", action: "deny", executable: "/a", ...rule }],
  });
  const file = (rule: object) => ({
    ...base,
    file: [{ id: "a", action: "deny", path: "/a", operations: "read", ...rule }],
  });
  const network = (rule: object) => ({
    ...base,
    network: [{ id: "a", action: "deny", host: "x.com", ...rule }],
  });
  const sandbox = (keys: object) => ({ ...base, sandbox: { mounts: [{ source: "/usr" }], ...keys } });
  test.each<[string, object]>([
    ["nothing", {}],
    ["another version", { ...base, apiVersion: "clawsec/v2" }],
    ["another kind", { ...base, kind: "Rules" }],
    ["no name", { ...base, metadata: {} }],
    ["a name in capitals", { ...base, metadata: { name: "T" } }],
    ["no sandbox", { apiVersion: "clawsec/v1", kind: "Policy", metadata: { name: "t" } }],
    ["a mode that is none", { ...base, mode: "watch" }],
    ["a waiver without a reason", { ...base, waive: [{ name: "nftables" }] }],
    ["a root user", sandbox({ user: { uid: 0 } })],
    ["a loader variable", sandbox({ environment: { LD_PRELOAD: "x" } })],
    ["a relative mount", sandbox({ mounts: [{ source: "usr" }] })],
    ["a tmpfs with a source", sandbox({ mounts: [{ type: "tmpfs", target: "/x", source: "/y" }] })],
    ["a bind mount with a size", sandbox({ mounts: [{ source: "/y", size: "1Mi" }] })],
    ["a mount of nothing", sandbox({ mounts: [{ target: "/y" }] })],
    ["a size that is none", sandbox({ limits: { memory: "2GB" } })],
    ["a duration that is none", { ...base, approvals: { timeout: "5 minutes" } }],
    ["files without an entry", { ...base, subjects: [{ name: "a", files: { read: ["/usr"] } }] }],
    ["no subjects", { ...base, subjects: [] }],
    ["a rule without an action", { ...base, exec: [{ id: "a", executable: "/a" }] }],
    ["a rule without an id", { ...base, exec: [{ action: "deny", executable: "/a" }] }],
    ["a rule of exec about nothing", { ...base, exec: [{ id: "a", action: "deny" }] }],
    ["a relative executable", exec({ executable: "git" })],
    ["no executables", exec({ executable: [] })],
    ["hold without a hold", exec({ hold: { timeout: "5m" } })],
    ["a rate on a denial", exec({ rate: { max: 1, per: "1m" } })],
    ["a rate without a time", exec({ action: "allow", rate: { max: 1 } })],
    ["a locked permission", exec({ action: "allow", locked: true })],
    ["a locked rule that observes", exec({ locked: true, mode: "observe" })],
    ["a severity that is none", exec({ severity: "urgent" })],
    ["a tag with a space", exec({ tags: "a b" })],
    ["a day that is none", exec({ when: { days: "someday" } })],
    ["a time that is none", exec({ when: { from: "9:00" } })],
    ["no arguments", exec({ argv: [] })],
    ["an argv that says nothing", exec({ argv: {} })],
    ["values of no flags", exec({ argv: { valued: "-C" } })],
    ["a flag that is a word", exec({ argv: { flags: "-delete" } })],
    ["a hash that is short", exec({ sha256: "abc" })],
    ["a value of a variable", exec({ environment: "A=b" })],
    ["an example without a program", exec({ match: { argv: ["x"] } })],
    ["an operation that is none", file({ operations: "erase" })],
    ["a file rule without operations", { ...base, file: [{ id: "a", action: "deny", path: "/a" }] }],
    ["an owner by name", file({ owner: "nobody" })],
    ["a host and a cidr", network({ cidr: "192.0.2.1" })],
    ["neither host nor cidr", { ...base, network: [{ id: "a", action: "deny" }] }],
    ["a URL", network({ host: "https://x.com" })],
    ["port and ports", network({ port: 1, ports: 2 })],
    ["port 0", network({ port: 0 })],
    ["a method inside TLS", network({ protocol: "tls", method: "GET" })],
    ["a protocol that is none", network({ protocol: "udp" })],
    ["a secret that is a path", { ...base, secrets: { items: [{ name: "../x", file: "/x" }] } }],
    ["an address that is none", { ...base, resolver: { hosts: { "x.com": "here" } } }],
    ["a default that permits files", { ...base, defaults: { file: "allow" } }],
    ["extends with a variable", { ...base, extends: "${x}" }],
  ])("that a policy is wrong with %s", (_, value) => {
    expect(refuses(value)).not.toEqual([]);
    expect(isPolicy(value)).toBe(false);
  });
});
