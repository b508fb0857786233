// Connections to test hosts by name and by address, with first bytes of each protocol; datagrams; loopback.

import { type NetworkAction, NetworkProtocol, ObservedProtocol } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt } from "./attempt.js";
import type { Random } from "./random.js";
import { LOOPBACK_PORTS, type World } from "./world.js";

export const HOST_PORTS = [80, 443, 8080, 9000] as const;
/** On these the gate takes nothing but TLS, HTTP (and SSH): bpf/net-gate/src/first_bytes.rs. */
export const STRICT_PORTS: readonly number[] = [80, 443, 8080, 8443];

/** Names that the policies' resolver knows, each with the test host it leads to. */
export const NAMES: Readonly<Record<string, keyof World["hosts"]["addresses"]>> = {
  "one.test": "allowed.test",
  "a.one.test": "allowed.test",
  "b.a.one.test": "other.test",
  "two.test": "other.test",
  "xtwo.test": "model.test",
  "three.example": "model.test",
};

interface FirstBytes {
  readonly payload: Uint8Array;
  readonly protocol: ObservedProtocol;
  readonly host: string;
  readonly method?: string;
  readonly path?: string;
}

function http(random: Random, host: string): FirstBytes {
  const method = random.pick(["GET", "POST", "HEAD", "DELETE"]);
  const path = random.pick(["/", "/v1/x", "/v1/y/z", "/admin"]);
  const query = random.pick(["", "?q=1"]);
  const body = method === "POST" ? "Content-Length: 2\r\n" : "";
  const text = `${method} ${path}${query} HTTP/1.1\r\nHost: ${host}\r\n${body}Connection: close\r\n\r\n`;
  const payload = Buffer.from(body === "" ? text : `${text}{}`);
  return { payload, protocol: ObservedProtocol.HTTP, host, method, path };
}

/** A ClientHello of TLS 1.2 (RFC 5246, 7.4.1.2) with a name (RFC 6066, 3) unless it is an address. */
function tls(host: string): FirstBytes {
  const sized = (bytes: readonly number[], width: number) => [
    ...Array.from({ length: width }, (_, i) => (bytes.length >> (8 * (width - 1 - i))) & 255),
    ...bytes,
  ];
  const extension = (type: number, bytes: readonly number[]) => [0, type, ...sized(bytes, 2)];
  const isName = !/^[0-9.]+$/.test(host);
  const name = isName ? extension(0, sized([0, ...sized([...Buffer.from(host)], 2)], 2)) : [];
  const groups = extension(10, sized([0, 29, 0, 23], 2));
  const formats = extension(11, sized([0], 1));
  const signatures = extension(13, sized([4, 3, 8, 4, 4, 1], 2));
  const random = Array.from({ length: 32 }, (_, i) => i);
  const suites = sized([0xc0, 0x2b, 0xc0, 0x2f], 2);
  const extensions = sized([...name, ...groups, ...formats, ...signatures], 2);
  const body = [3, 3, ...random, 0, ...suites, ...sized([0], 1), ...extensions];
  const record = [22, 3, 1, ...sized([1, ...sized(body, 3)], 2)];
  return { payload: Uint8Array.from(record), protocol: ObservedProtocol.TLS, host: isName ? host : "" };
}

function firstBytes(random: Random, host: string): FirstBytes {
  // Another name inside than the one that was dialled.
  const inside = random.chance(10) ? random.pick(Object.keys(NAMES)) : host;
  return random.weighted<FirstBytes>([
    [6, () => http(random, inside)],
    [2, () => tls(inside)],
    [2, () => ({ payload: Buffer.from("HELLO\n"), protocol: ObservedProtocol.OTHER, host: "" })],
  ]);
}

function action(facts: Partial<NetworkAction>): NetworkAction {
  return {
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
}

function byName(random: Random, world: World): Pick<Attempt, "call" | "meant"> {
  const name = random.pick(Object.keys(NAMES));
  const to = NAMES[name];
  if (to === undefined) throw new Error(`${name} leads nowhere.`);
  const spelled = random.pick([name, name, name.toUpperCase(), `${name}.`]);
  const port = random.pick(HOST_PORTS);
  const { payload, protocol, host, method = "", path = "" } = firstBytes(random, name);
  const common = { host: name, port };
  const http = { httpMethod: method, httpPath: path };
  return {
    call: { operation: "connect", host: spelled, port, payload },
    meant: {
      kind: "connection",
      facts: action({ ...common, observedHost: host, observedProtocol: protocol, ...http }),
      lookup: action({ ...common, protocol: NetworkProtocol.DNS, port: 53 }),
      address: world.hosts.addresses[to],
    },
  };
}

function byAddress(random: Random, world: World): Pick<Attempt, "call" | "meant"> {
  const address = random.pick(Object.values(world.hosts.addresses));
  const port = random.pick(HOST_PORTS);
  const { payload, protocol, host, method = "", path = "" } = firstBytes(random, address);
  const how = random.chance(25) ? "mapped" : "v4";
  const http = { httpMethod: method, httpPath: path };
  return {
    call: { operation: "connect", how, address, port, payload },
    meant: {
      kind: "connection",
      facts: action({ address, port, observedHost: host, observedProtocol: protocol, ...http }),
      lookup: undefined,
      address,
    },
  };
}

function datagram(random: Random, world: World): Pick<Attempt, "call" | "meant"> {
  const address = random.pick(Object.values(world.hosts.addresses));
  const payload = Buffer.from("HELLO\n");
  return {
    call: { operation: "connect", how: "udp", address, port: 80, payload },
    meant: { kind: "datagram", facts: action({ protocol: NetworkProtocol.UDP, address, port: 80 }) },
  };
}

function loopback(random: Random): Pick<Attempt, "call" | "meant"> {
  const port = random.pick(LOOPBACK_PORTS);
  const how = random.chance(25) ? "mapped" : "v4";
  return {
    call: { operation: "connect", how, address: "127.0.0.1", port, payload: Buffer.from("x") },
    meant: { kind: "loopback", port },
  };
}

/** Some connection of a subject. */
export function someConnection(random: Random, world: World, id: string, subject: string): Attempt {
  const made = random.weighted([
    [60, () => byName(random, world)],
    [22, () => byAddress(random, world)],
    [4, () => datagram(random, world)],
    [14, () => loopback(random)],
  ]);
  return { id, subject, ...made, answer: random.chance(50) ? "allow" : "deny" };
}
