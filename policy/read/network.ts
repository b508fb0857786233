// The rules of "network".

import { METHOD, PROTOCOLS } from "../language/names.js";
import { NETWORK_RULE } from "../language/rules.js";
import { keysOf } from "../language/shape.js";
import type { NetworkRule, ProtocolName } from "../model.js";
import { type RuleSetting, readBase } from "./base.js";
import { type Context, Fields, type Node } from "./context.js";
import { readRuleList } from "./rules.js";
import * as v from "./values.js";

const HTTP: readonly ProtocolName[] = ["http"];

/** Reads the list; what is wrong is reported and left out. */
export function readNetworkRules(context: Context, node: Node, setting: RuleSetting): NetworkRule[] {
  return readRuleList(context, node, "network", setting, (item) => readNetworkRule(context, item, setting));
}

function readNetworkRule(context: Context, node: Node, setting: RuleSetting): NetworkRule | undefined {
  const fields = Fields.of(context, node, "a rule of network", keysOf(NETWORK_RULE));
  if (fields === undefined) return undefined;
  const base = readBase(context, fields, "network", setting);
  const host = fields.each("host", '"host"', (n) => v.hostPattern(context, n, "the host"));
  const cidr = fields.each("cidr", '"cidr"', (n) => v.cidr(context, n, "the cidr"));
  if (fields.has("port") && fields.has("ports")) {
    context.error(
      fields.originOf("ports"),
      "unknown-key",
      'a rule has "port" or "ports", not both',
      "Write one list.",
    );
  }
  const key = fields.has("port") ? "port" : "ports";
  const ports = fields.each(key, `"${key}"`, (n) => v.ports(context, n, "the port"));
  const methods = fields.each("method", '"method"', (n) => readMethod(context, n));
  const paths = fields.each("path", '"path"', (n) => v.httpPath(context, n, "the path"));
  const protocols = readProtocols(context, fields);
  const resolvesTo = fields.each("resolvesTo", '"resolvesTo"', (n) => v.cidr(context, n, '"resolvesTo"'));
  if (fields.has("host") === fields.has("cidr")) {
    context.error(
      fields.originOf("id"),
      "missing-key",
      'a rule of network needs either "host" or "cidr"',
      'Names are ruled by "host", literal addresses by "cidr".',
    );
    return undefined;
  }
  if (fields.has("cidr") && fields.has("resolvesTo")) {
    context.error(
      fields.originOf("resolvesTo"),
      "value",
      '"resolvesTo" has no meaning with "cidr"',
      "Remove it.",
    );
  }
  if (base === undefined) return undefined;
  return { ...base, host, cidr, ports, protocols, methods: [...new Set(methods)], paths, resolvesTo };
}

/** Requests are seen in plain HTTP only: what is inside TLS nobody here can read. */
function readProtocols(context: Context, fields: Fields): readonly ProtocolName[] {
  const given = fields.each("protocol", '"protocol"', (n) => v.oneOf(context, n, "the protocol", PROTOCOLS));
  const key = ["method", "path"].find((name) => fields.has(name));
  if (key === undefined) return PROTOCOLS.filter((p) => given.includes(p));
  const other = given.find((p) => p !== "http");
  if (other !== undefined) {
    context.error(
      fields.originOf("protocol"),
      "value",
      `"${key}" has no meaning with the protocol "${other}": only plain HTTP shows its requests`,
      `Remove "${key}", or say "protocol: http".`,
    );
  }
  return HTTP;
}

function readMethod(context: Context, node: Node): string | undefined {
  return v
    .matching(context, node, "the method", METHOD, 'Write an HTTP method such as "GET" or "POST".')
    ?.toUpperCase();
}
