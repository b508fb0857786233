// Actions that tell two policies apart, made from the patterns of both. Deterministic and bounded: each rule gives its
// most telling ones before any rule gives more.

import {
  FileOperation,
  type NetworkAction,
  NetworkProtocol,
  ObservedProtocol,
} from "../../proto/gen/clawsec/v1/loader.js";
import { canonicalJson } from "../hash.js";
import { nearHosts, nearPaths, sampleHosts, samplePaths } from "../lint/sample.js";
import { formatAddress, parseCidr } from "../match/cidr.js";
import type { Action, FileRule, NetworkRule, Policy, RuleBase } from "../model.js";
import { execAction, execProbes, wayProbes } from "./exec-probes.js";

/** Most probes for one comparison. */
export const MAX_PROBES = 20_000;

/** An action, and when. */
export interface Probe {
  readonly action: Action;
  /** Milliseconds since 1970; undefined for any time. */
  readonly timeMs: number | undefined;
}

/** A week in which a rule with times is asked about: from Sunday, 4 January 1970, at 3, 12 and 21 o'clock UTC. */
const TIMES: readonly number[] = Array.from({ length: 7 }, (_, day) =>
  [3, 12, 21].map((hour) => ((day + 3) * 24 + hour) * 3_600_000),
).flat();

/** Probes from both policies, without doubles; `complete` is false when there would have been more. */
export function makeProbes(
  before: Policy,
  after: Policy,
  limit = MAX_PROBES,
): { readonly probes: readonly Probe[]; readonly complete: boolean } {
  const queues = [...queuesOf(before), ...queuesOf(after)];
  const seen = new Set<string>();
  const probes: Probe[] = [];
  for (let round = 0; ; round++) {
    let any = false;
    for (const queue of queues) {
      const probe = queue[round];
      if (probe === undefined) continue;
      any = true;
      const key = canonicalJson(probe);
      if (seen.has(key)) continue;
      if (probes.length >= limit) return { probes, complete: false };
      seen.add(key);
      probes.push(probe);
    }
    if (!any) return { probes, complete: true };
  }
}

/** One list for each rule, way in and mount. */
function queuesOf(policy: Policy): (readonly Probe[])[] {
  const subjects = policy.subjects.map(({ name }) => name);
  const bySubject = (rule: RuleBase, of: (subject: string) => readonly Action[]): Probe[] => {
    const named = rule.subjects.length > 0 ? rule.subjects : subjects;
    const others = subjects.filter((name) => !named.includes(name));
    return timed(rule, [...interleave(named.map(of)), ...others.flatMap((name) => of(name).slice(0, 1))]);
  };
  const any = (actions: readonly Action[]) => actions.map((action) => ({ action, timeMs: undefined }));
  return [
    any(subjects.flatMap((subject) => unruled(policy, subject))),
    ...policy.exec.map((rule) => bySubject(rule, (s) => execProbes(policy, rule, s))),
    ...policy.file.map((rule) => bySubject(rule, (s) => fileProbes(policy, rule, s))),
    ...policy.network.map((rule) => bySubject(rule, (s) => networkProbes(rule, s))),
    ...policy.subjects.flatMap(({ enters }) => enters.map((way) => any(wayProbes(policy, way)))),
    ...policy.sandbox.mounts.map(({ target }) =>
      any(
        subjects.flatMap((s) =>
          [FileOperation.OPEN, FileOperation.DELETE].map((o) =>
            file(s, o, `${target === "/" ? "" : target}/probe`, "", 0),
          ),
        ),
      ),
    ),
  ];
}

/** What no rule names: the defaults. */
function unruled(policy: Policy, subject: string): Action[] {
  return [
    execAction(policy, subject, { executable: "/probe/unruled" }),
    network(subject, { host: "unruled.probe.invalid", port: 443 }),
    network(subject, { address: "203.0.113.77", port: 443 }),
    network(subject, { protocol: NetworkProtocol.DNS, host: "unruled.probe.invalid", port: 53 }),
    file(subject, FileOperation.OPEN, "/probe/unruled", "", policy.sandbox.user.uid),
  ];
}

/** Rules with times are asked about at all times of a week, too. */
function timed(rule: RuleBase, actions: readonly Action[]): Probe[] {
  const always = actions.map((action) => ({ action, timeMs: undefined }));
  const [first] = actions;
  if (rule.when.length + (rule.rate === undefined ? 0 : 1) === 0 || first === undefined) return always;
  return [...always.slice(0, 1), ...TIMES.map((timeMs) => ({ action: first, timeMs })), ...always.slice(1)];
}

function interleave<T>(lists: readonly (readonly T[])[]): T[] {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, i) => lists.flatMap((list) => list.slice(i, i + 1))).flat();
}

const TREE = { subtree: true };
const OPERATIONS = [
  FileOperation.OPEN,
  FileOperation.DELETE,
  FileOperation.CREATE,
  FileOperation.RENAME,
  FileOperation.LINK,
  FileOperation.TRUNCATE,
  FileOperation.CHMOD,
] as const;

function fileProbes(policy: Policy, rule: FileRule, subject: string): Action[] {
  const owners = [policy.sandbox.user.uid, ...rule.owner, 0];
  const inside = rule.path.flatMap((pattern) => samplePaths(pattern, TREE, 3)).slice(0, 32);
  const near = rule.path.flatMap((pattern) => nearPaths(pattern, TREE, 2)).slice(0, 32);
  return interleave([
    inside.flatMap((path) =>
      OPERATIONS.flatMap((operation) => {
        const two = operation === FileOperation.RENAME || operation === FileOperation.LINK;
        const outside = near[0] ?? "/probe/other";
        return [...new Set(owners)].flatMap((owner) =>
          two
            ? [file(subject, operation, path, outside, owner), file(subject, operation, outside, path, owner)]
            : [file(subject, operation, path, "", owner)],
        );
      }),
    ),
    near.flatMap((path) =>
      OPERATIONS.slice(0, 3).map((o) => file(subject, o, path, "", policy.sandbox.user.uid)),
    ),
  ]);
}

function file(
  subject: string,
  operation: FileOperation,
  path: string,
  targetPath: string,
  ownerUid: number,
): Action {
  return {
    subject,
    process: undefined,
    action: { $case: "file", value: { operation, path, targetPath, fileId: "", ownerUid } },
  };
}

function networkProbes(rule: NetworkRule, subject: string): Action[] {
  const ports =
    rule.ports.length === 0 ? [443, 80] : rule.ports.flatMap(({ first, last }) => [first, last]).slice(0, 8);
  const hosts = rule.host.flatMap(sampleHosts).slice(0, 32);
  const near = rule.host.flatMap(nearHosts).slice(0, 32);
  const addresses = rule.cidr.flatMap(ends).slice(0, 32);
  const paths = rule.paths.flatMap((pattern) => samplePaths(pattern, { subtree: false }, 2)).slice(0, 8);
  const methods = rule.methods.length === 0 ? ["GET", "POST"] : [...rule.methods.slice(0, 4), "TRACE"];
  const peers = [...hosts.map((host) => ({ host })), ...addresses.map((address) => ({ address }))];
  return interleave([
    peers.flatMap((peer) => [...new Set(ports)].flatMap((port) => connections(subject, { ...peer, port }))),
    peers.flatMap((peer) =>
      methods.flatMap((httpMethod) =>
        [...paths, "/probe"].map((httpPath) =>
          network(subject, {
            ...peer,
            port: ports[0] ?? 80,
            observedProtocol: ObservedProtocol.HTTP,
            httpMethod,
            httpPath,
          }),
        ),
      ),
    ),
    [...hosts, ...near].map((host) => network(subject, { protocol: NetworkProtocol.DNS, host, port: 53 })),
    near.map((host) => network(subject, { host, port: ports[0] ?? 443 })),
    hosts.map((host) => network(subject, { host, port: 9 })),
  ]);
}

function connections(subject: string, peer: Partial<NetworkAction>): Action[] {
  const seen = [ObservedProtocol.TLS, ObservedProtocol.NONE, ObservedProtocol.HTTP];
  return seen.map((observedProtocol) => network(subject, { ...peer, observedProtocol }));
}

function network(subject: string, facts: Partial<NetworkAction>): Action {
  const value: NetworkAction = {
    protocol: NetworkProtocol.TCP,
    host: "",
    address: "",
    port: 0,
    observedHost: "",
    observedProtocol: ObservedProtocol.NONE,
    rule: "",
    httpMethod: "",
    httpPath: "",
    ...facts,
  };
  return { subject, process: undefined, action: { $case: "network", value } };
}

/** The first and the last address of a CIDR, and the one after it. */
function ends(text: string): string[] {
  const cidr = parseCidr(text);
  if ("error" in cidr) return [];
  const width = cidr.family === 4 ? 32 : 128;
  const last = cidr.value + (1n << BigInt(width - cidr.bits)) - 1n;
  const values = [cidr.value, last, last + 1n].filter((value) => value < 1n << BigInt(width));
  return values.map((value) => formatAddress({ family: cidr.family, value }));
}
