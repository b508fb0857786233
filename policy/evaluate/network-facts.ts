// The facts of a connection, a request or a lookup, and what rules want of them.

import { type NetworkAction, ObservedProtocol } from "../../proto/gen/clawsec/v1/loader.js";
import { type Address, type Cidr, inCidr, parseCidr } from "../match/cidr.js";
import { matchHost } from "../match/host.js";
import { compileRequestPath, readRequestPath } from "../match/request.js";
import type { NetworkRule, ProtocolName } from "../model.js";
import { type Fact, picker, type Ready, ready, subjectFact } from "./facts.js";

export interface AskedNetwork {
  readonly subject: string;
  readonly action: NetworkAction;
  /** Undefined for a connection to a name. */
  readonly address: Address | undefined;
}

export function cidrsOf(rule: NetworkRule): Cidr[] {
  return rule.cidr.flatMap((text) => {
    const cidr = parseCidr(text);
    return "error" in cidr ? [] : [cidr];
  });
}

export interface ReadyNetwork extends Ready<NetworkRule, ReadyNetwork, AskedNetwork> {
  readonly cidr: readonly Cidr[];
  readonly paths: readonly ((path: string) => boolean)[];
  /** What is compared for a lookup, instead of `facts`. */
  readonly lookup: readonly NetworkFact[];
}

type NetworkFact = Fact<NetworkRule, ReadyNetwork, AskedNetwork>;

export function readyNetwork(rule: NetworkRule): ReadyNetwork {
  return {
    ...ready<NetworkRule, ReadyNetwork, AskedNetwork>(rule, networkFacts(rule)),
    cidr: cidrsOf(rule),
    paths: rule.paths.map(compileRequestPath),
    lookup: lookupFacts(rule),
  };
}

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

function hasProtocol({ rule, restricts }: ReadyNetwork, { action }: AskedNetwork): boolean {
  const protocol = protocolOf(action);
  return protocol === undefined ? restricts : wantedProtocols(rule).includes(protocol);
}

/** Before the requests of a connection are known, a restriction holds for them all, a permission for none. */
function hasMethod({ rule, restricts }: ReadyNetwork, { action }: AskedNetwork): boolean {
  if (action.httpMethod === "") return restricts;
  return rule.methods.includes(restricts ? action.httpMethod.toUpperCase() : action.httpMethod);
}

/** A path that can be read in several ways: every reading must be permitted, one is enough to restrict. */
function hasPath({ restricts, paths }: ReadyNetwork, { action }: AskedNetwork): boolean {
  if (action.httpMethod === "" || action.httpPath === "") return restricts;
  const reading = readRequestPath(action.httpPath);
  if (reading === "doubtful") return restricts;
  const matches = (form: string) => paths.some((m) => m(form));
  return restricts ? reading.forms.some(matches) : reading.forms.every(matches);
}

const portsText = (rule: NetworkRule) =>
  rule.ports.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(", ");

const isAboutNames = (rule: NetworkRule) => rule.host.length > 0;

const SUBJECT = subjectFact<NetworkRule, ReadyNetwork, AskedNetwork>();

/** A connection to an address has no name. */
const HOST: NetworkFact = {
  name: "host",
  isSaid: isAboutNames,
  holds: ({ rule }, { action }) => rule.host.some((pattern) => matchHost(pattern, action.host)),
  is: ({ action }) => action.host,
  wants: (rule) => rule.host.join(", "),
};

/** A rule about addresses, and one about nothing, which matches nothing. */
const CIDR: NetworkFact = {
  name: "cidr",
  isSaid: (rule) => !isAboutNames(rule),
  holds: ({ cidr }, { address }) => address !== undefined && cidr.some((range) => inCidr(range, address)),
  is: ({ action }) => action.address,
  wants: (rule) => rule.cidr.join(", "),
};

/** What a rule can say beside the peer. */
const CONDITIONS: readonly NetworkFact[] = [
  {
    name: "port",
    isSaid: (rule) => rule.ports.length > 0,
    holds: ({ rule }, { action: { port } }) =>
      rule.ports.some(({ first, last }) => port >= first && port <= last),
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

const NETWORK_FACTS: readonly NetworkFact[] = [SUBJECT, HOST, CIDR, ...CONDITIONS];

/** A denial of some ports, protocols or requests says nothing about the others, so nothing about the name. */
const LOOKUP_FACTS: readonly NetworkFact[] = [
  SUBJECT,
  HOST,
  CIDR,
  ...CONDITIONS.map((condition) => ({
    ...condition,
    isSaid: (rule: NetworkRule) => rule.action === "deny" && condition.isSaid(rule),
    holds: () => false,
    is: () => "a lookup",
  })),
];

const networkFacts = picker(NETWORK_FACTS);
const lookupFacts = picker(LOOKUP_FACTS);
