// Connections as they are written in examples and tests.

import { type NetworkAction, NetworkProtocol, ObservedProtocol } from "../../proto/gen/clawsec/v1/loader.js";
import { METHOD, PROTOCOLS } from "../language/names.js";
import { parseAddress } from "../match/cidr.js";
import { hostPatternError, normalizeHost } from "../match/host.js";
import type { Action, ProtocolName } from "../model.js";
import type { Context, Fields, Node } from "./context.js";
import * as v from "./values.js";

/** What the loader says of first bytes that are of this protocol. */
export const OBSERVED: Readonly<Record<ProtocolName, ObservedProtocol>> = {
  tls: ObservedProtocol.TLS,
  http: ObservedProtocol.HTTP,
  other: ObservedProtocol.OTHER,
};

interface Peer {
  readonly name: string;
  readonly port: number | undefined;
  readonly method: string;
  readonly path: string;
}

/** Reads a connection, as text or as a mapping; undefined when it is wrong, which is reported. */
export function readConnection(
  context: Context,
  node: Node,
  fields: Fields | undefined,
): (() => Action["action"]) | undefined {
  const errors = context.diagnostics.length;
  const peer = fields === undefined ? peerOfText(context, node) : peerOfFields(context, fields);
  const protocol = fields?.read("protocol", (n) => v.oneOf(context, n, "the protocol", PROTOCOLS));
  if (peer === undefined) return undefined;
  const request = peer.method !== "" || peer.path !== "";
  if (request && protocol !== undefined && protocol !== "http") {
    context.error(
      fields?.originOf("protocol") ?? node.origin,
      "value",
      `a connection of the protocol "${protocol}" shows no method and no path`,
      'Remove them, or say "protocol: http".',
    );
  }
  const address = parseAddress(peer.name);
  const host = normalizeHost(peer.name);
  if (address === undefined && (host.includes("*") || hostPatternError(host) !== undefined)) {
    context.error(
      node.origin,
      "value",
      `"${peer.name}" is not the name or address of a host`,
      'Write it like "example.com:443".',
    );
  }
  const { port } = peer;
  if (context.diagnostics.length > errors || port === undefined) return undefined;
  const seen = request ? "http" : protocol;
  const value: NetworkAction = {
    protocol: NetworkProtocol.TCP,
    host: address === undefined ? host : "",
    address: address === undefined ? "" : peer.name,
    port,
    observedHost: address === undefined && (seen === "tls" || seen === "http") ? host : "",
    observedProtocol: seen === undefined ? ObservedProtocol.NONE : OBSERVED[seen],
    rule: "",
    httpMethod: request ? peer.method || "GET" : "",
    httpPath: request ? peer.path || "/" : "",
  };
  return () => ({ $case: "network", value });
}

/** "example.com:443", "[2001:db8::1]:443", "GET http://example.com:8080/v1/x". */
function peerOfText(context: Context, node: Node): Peer | undefined {
  const value = v.text(context, node, "the connection");
  if (value === undefined) return undefined;
  const parts =
    /^(?:(?<method>[A-Za-z-]+) http:\/\/)?(?:\[(?<six>[0-9A-Fa-f:.]+)\]|(?<name>[^\s:/[\]]+))(?::(?<port>[0-9]{1,5}))?(?<path>\/\S*)?$/.exec(
      value,
    )?.groups;
  const method = parts?.method?.toUpperCase() ?? "";
  const port = Number(parts?.port ?? (method === "" ? Number.NaN : 80));
  if (parts === undefined || !(port >= 1 && port <= 65535) || (method === "" && parts.path !== undefined)) {
    return context.error(
      node.origin,
      "value",
      `"${value}" is not a connection`,
      'Write "example.com:443", or "GET http://example.com/path" for a request.',
    );
  }
  return {
    name: parts.six ?? parts.name ?? "",
    port,
    method,
    path: (parts.path ?? "").split("?", 1)[0] ?? "",
  };
}

function peerOfFields(context: Context, fields: Fields): Peer | undefined {
  if (fields.has("host") === fields.has("address")) {
    return context.error(
      fields.origin,
      "missing-key",
      'a connection has either "host" or "address"',
      'Write "host: example.com" or "address: 192.0.2.1".',
    );
  }
  const read = (key: string) => fields.read(key, (n) => v.nonEmpty(context, n, `the ${key}`));
  const portNode = fields.require("port");
  const port = portNode && v.integer(context, portNode, "the port", 1, 65535);
  const method = fields.read("method", (n) =>
    v.matching(context, n, "the method", METHOD, 'Write a method such as "GET".'),
  );
  const path = fields.read("path", (n) =>
    v.matching(context, n, "the path", /^\/[^\s?]*$/, 'Write a path such as "/v1/x".'),
  );
  const name = read("host") ?? read("address");
  if (name === undefined) return undefined;
  if (fields.has("address") && parseAddress(name) === undefined) {
    context.error(fields.originOf("address"), "value", `"${name}" is not an IPv4 or IPv6 address`);
  }
  return { name, port, method: method?.toUpperCase() ?? "", path: path ?? "" };
}
