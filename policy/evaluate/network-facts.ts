// The facts of a connection, a request or a lookup, and what rules want of them.

import { type NetworkAction, ObservedProtocol } from "../../proto/gen/clawsec/v1/loader.js";
import { type Address, type Cidr, inCidr, parseCidr } from "../match/cidr.js";
import { matchHost } from "../match/host.js";
import { compileRequestPath, readRequestPath } from "../match/request.js";
import type { NetworkRule, ProtocolName } from "../model.js";
import { type Fact, restricts, subjectFact } from "./facts.js";
import { once } from "./rules.js";

export interface AskedNetwork {
  readonly subject: string;
  readonly action: NetworkAction;
  /** Undefined for a connection to a name. */
  readonly address: Address | undefined;
}

export const cidrsOf = once((rule: NetworkRule): readonly Cidr[] =>
  rule.cidr.flatMap((text) => {
    const cidr = parseCidr(text);
    return "error" in cidr ? [] : [cidr];
  }),
);

const requestPathsOf = once((rule: NetworkRule) => rule.paths.map(compileRequestPath));

/** Undefined: not known. A client that says nothing in the time given speaks something else than TLS and HTTP. */
function protocolOf({ observedProtocol }: NetworkAction): ProtocolName | undefined {
  switch (observedProtocol) {
    case ObservedProtocol.TLS:
      return "tls";
    case ObservedProtocol.HTTP:
      return "http";
    case ObservedProtocol.NONE:
    case ObservedProtocol.OTHER:
      return "other";
    default:
      return undefined;
  }
}

function wantedProtocols(rule: NetworkRule): readonly ProtocolName[] {
  return rule.methods.length > 0 || rule.paths.length > 0 ? ["http"] : rule.protocols;
}

function hasProtocol(rule: NetworkRule, { action }: AskedNetwork): boolean {
  const wanted = wantedProtocols(rule);
  if (wanted.length === 0) return true;
  const protocol = protocolOf(action);
  return protocol === undefined ? restricts(rule) : wanted.includes(protocol);
}

/** Before the requests of a connection are known, a restriction holds for them all, a permission for none. */
function hasMethod(rule: NetworkRule, { action }: AskedNetwork): boolean {
  if (rule.methods.length === 0) return true;
  if (action.httpMethod === "") return restricts(rule);
  return rule.methods.includes(restricts(rule) ? action.httpMethod.toUpperCase() : action.httpMethod);
}

/** A path that can be read in several ways: every reading must be permitted, one is enough to restrict. */
function hasPath(rule: NetworkRule, { action }: AskedNetwork): boolean {
  if (rule.paths.length === 0) return true;
  if (action.httpMethod === "" || action.httpPath === "") return restricts(rule);
  const reading = readRequestPath(action.httpPath);
  if (reading === "doubtful") return restricts(rule);
  const matches = (form: string) => requestPathsOf(rule).some((m) => m(form));
  return restricts(rule) ? reading.forms.some(matches) : reading.forms.every(matches);
}

function inPorts(rule: NetworkRule, port: number): boolean {
  return rule.ports.length === 0 || rule.ports.some(({ first, last }) => port >= first && port <= last);
}

const portsText = (rule: NetworkRule) =>
  rule.ports.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(", ");

const SUBJECT = subjectFact<NetworkRule, AskedNetwork>();

const HOST: Fact<NetworkRule, AskedNetwork> = {
  name: "host",
  holds: (rule, { action }) => rule.host.some((pattern) => matchHost(pattern, action.host)),
  is: ({ action }) => action.host,
  wants: (rule) => rule.host.join(", "),
};

const CIDR: Fact<NetworkRule, AskedNetwork> = {
  name: "cidr",
  holds: (rule, { address }) => address !== undefined && cidrsOf(rule).some((cidr) => inCidr(cidr, address)),
  is: ({ action }) => action.address,
  wants: (rule) => rule.cidr.join(", "),
};

/** What a rule can say beside the peer. */
const CONDITIONS: readonly (Fact<NetworkRule, AskedNetwork> & {
  readonly isSaid: (rule: NetworkRule) => boolean;
})[] = [
  {
    name: "port",
    isSaid: (rule) => rule.ports.length > 0,
    holds: (rule, { action }) => inPorts(rule, action.port),
    is: ({ action }) => String(action.port),
    wants: portsText,
  },
  {
    name: "protocol",
    isSaid: (rule) => wantedProtocols(rule).length > 0,
    holds: hasProtocol,
    is: ({ action }) => protocolOf(action) ?? "",
    wants: (rule) => wantedProtocols(rule).join(", "),
  },
  {
    name: "method",
    isSaid: (rule) => rule.methods.length > 0,
    holds: hasMethod,
    is: ({ action }) => action.httpMethod,
    wants: (rule) => rule.methods.join(", "),
  },
  {
    name: "path",
    isSaid: (rule) => rule.paths.length > 0,
    holds: hasPath,
    is: ({ action }) => action.httpPath,
    wants: (rule) => rule.paths.join(", "),
  },
];

export const NAMED_FACTS = [SUBJECT, HOST, ...CONDITIONS];
export const ADDRESS_FACTS = [SUBJECT, CIDR, ...CONDITIONS];

/** A denial of some ports, protocols or requests says nothing about the others, so nothing about the name. */
export const LOOKUP_FACTS: readonly Fact<NetworkRule, AskedNetwork>[] = [
  SUBJECT,
  HOST,
  ...CONDITIONS.map((condition) => ({
    ...condition,
    holds: (rule: NetworkRule) => rule.action !== "deny" || !condition.isSaid(rule),
    is: () => "a lookup",
  })),
];
