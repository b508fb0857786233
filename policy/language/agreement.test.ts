// The JSON Schema and the reader, on the same texts.

import { describe, expect, test } from "vitest";
import { POLICY_TEST } from "./actions.js";
import { POLICY } from "./policy.js";
import type { Mapping } from "./shape.js";
import {
  BASE as base,
  COMMON,
  errors,
  FULL,
  FULL_TEST,
  isPolicy,
  isTest,
  mappings,
  mappingsOf,
  refuses,
  refusesTest,
} from "./testing.js";

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

  const ODD = [null, true, 0, 80, 0.5, "", "x", "/x", "${id}", [], {}, [{}], ["x"], "5m"];
  // One section at a time, so that a policy is short; what all rules have is tried on one kind of rule.
  const sections = Object.keys(FULL).filter((key) => !(key in base) || key === "sandbox");
  const parts = sections.map((section) => ({
    section,
    full: { ...base, variables: FULL.variables, [section]: FULL[section as keyof typeof FULL] },
    root: POLICY,
    check: isPolicy,
    refused: refuses,
  }));

  test.each([
    ...parts,
    { section: "cases", full: FULL_TEST, root: POLICY_TEST, check: isTest, refused: refusesTest },
  ])(
    "that what the schema refuses under $section the reader refuses, too",
    ({ section, full, root, check, refused }) => {
      const copy: Record<string, unknown> = structuredClone(full);
      const declared = root.keys[section];
      if (declared === undefined) throw new Error(`no section ${section}`);
      const inner = [...mappings(declared.type, copy[section])];
      let tried = 0;
      for (const { mapping, value } of [{ mapping: root, value: copy }, ...inner]) {
        for (const [key, before] of Object.entries(value)) {
          if (mapping === root && key !== section) continue;
          if (section !== "exec" && mapping.name.endsWith("Rule") && key in COMMON) continue;
          for (const odd of ODD) {
            value[key] = odd;
            if (check(copy)) continue;
            tried++;
            expect(refused(copy), `${mapping.name}.${key}: ${JSON.stringify(odd)}`).not.toEqual([]);
          }
          value[key] = before;
        }
      }
      expect(tried).toBeGreaterThan(0);
    },
    60_000,
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
