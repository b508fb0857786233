// What the generators use of the policy language. What the parser here does not read is left out, and said.

import { parsePolicy } from "../../policy/index.js";
import { type PolicyDocument, type RuleDocument, textOf } from "./document.js";

/** Left out although the parser reads it, each with the reason. Empty when every layer can do what the language says. */
export const notYet: Readonly<Partial<Record<Feature, string>>> = {};

export const FEATURES = [
  "argv-mapping",
  "locked",
  "observe",
  "extends",
  "file-operations",
  "protocol",
  "requests",
  "parent",
  "inWorkspace",
  "interpreters",
  "code",
  "environment",
] as const;
export type Feature = (typeof FEATURES)[number];

const BASE: PolicyDocument = {
  apiVersion: "clawsec/v1",
  kind: "Policy",
  metadata: { name: "probe" },
  sandbox: { command: ["/x"], mounts: [{ source: "/usr" }] },
};
const exec = (more: Partial<RuleDocument>): PolicyDocument => ({
  ...BASE,
  exec: [{ id: "r", executable: "/x", action: "deny", ...more }],
});
const network = (more: Partial<RuleDocument>): PolicyDocument => ({
  ...BASE,
  network: [{ id: "r", host: "x.test", action: "allow", ...more }],
});

const PROBES: Readonly<Record<Feature, PolicyDocument>> = {
  "argv-mapping": exec({ argv: { flags: ["-r|--recursive"] } }),
  locked: exec({ locked: true }),
  observe: exec({ mode: "observe" }),
  extends: { ...BASE, extends: ["./base.yaml"] },
  "file-operations": { ...BASE, file: [{ id: "r", path: "/usr/x", operations: ["chmod"], action: "deny" }] },
  protocol: network({ protocol: "tls" }),
  requests: network({ method: "GET", path: "/v1/**" }),
  parent: exec({ parent: "/usr/**", ancestor: "/usr/**" }),
  inWorkspace: exec({ inWorkspace: true }),
  interpreters: exec({ script: "/x" }),
  code: exec({ code: ["inline", "stream"] }),
  environment: exec({ environment: "LD_*" }),
};

/** The features that can be used. `without`: names of some that are to be left out, to look for the one at fault. */
export function usable(without: readonly string[] = []): ReadonlySet<Feature> {
  const base = { file: "base.yaml", text: textOf({ ...BASE, metadata: { name: "base" } }) };
  return new Set(
    FEATURES.filter((feature) => {
      if (notYet[feature] !== undefined || without.includes(feature)) return false;
      return parsePolicy(textOf(PROBES[feature]), "probe.yaml", { base: () => base }).policy !== undefined;
    }),
  );
}
