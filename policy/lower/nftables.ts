// The second layer under the network gate, as libnftables-json(5) for the sandbox's own network namespace. The first
// layer is its shape: nothing but `lo` in it, every address local, and all TCP steered to the gate. These rules hold
// should that ever leave a way: over `lo` goes TCP, and UDP to the loopback addresses (the gate's DNS at
// 127.0.0.53:53 and what the policy's "loopback" opens); nothing else leaves a process, and nothing is forwarded.

const FAMILY = "inet";
const TABLE = "clawsec";
const LOOPBACK_4 = { prefix: { addr: "127.0.0.0", len: 8 } };
const LOOPBACK_6 = "::1";

type Match = { readonly match: { readonly op: string; readonly left: object; readonly right: unknown } };

function is(left: object, right: unknown): Match {
  return { match: { op: "==", left, right } };
}

const meta = (key: string) => ({ meta: { key } });
const field = (protocol: string, name: string) => ({ payload: { protocol, field: name } });
const OVER_LO = is(meta("oifname"), "lo");
const FROM_LO = is(meta("iifname"), "lo");
const TO_LOOPBACK_4 = is(field("ip", "daddr"), LOOPBACK_4);
const TO_LOOPBACK_6 = is(field("ip6", "daddr"), LOOPBACK_6);
const ACCEPT = { accept: null };
const DROP = { drop: null };

function chain(hook: "input" | "output" | "forward"): object {
  return {
    add: {
      chain: { family: FAMILY, table: TABLE, name: hook, type: "filter", hook, prio: 0, policy: "drop" },
    },
  };
}

function rule(name: string, expr: readonly object[]): object {
  return { add: { rule: { family: FAMILY, table: TABLE, chain: name, expr } } };
}

/** Counts what is dropped, by chain: `nft list counters` in the namespace shows it. */
function dropRest(name: string): object[] {
  const counter = `dropped-${name}`;
  return [
    { add: { counter: { family: FAMILY, table: TABLE, name: counter } } },
    rule(name, [{ counter }, DROP]),
  ];
}

/** The whole ruleset. Applied again, it replaces itself in one step. */
export function nftablesRuleset(): object {
  const table = { family: FAMILY, name: TABLE };
  return {
    nftables: [
      { metainfo: { json_schema_version: 1 } },
      // Deleting needs the table to be there.
      { add: { table } },
      { delete: { table } },
      { add: { table } },
      chain("input"),
      chain("output"),
      chain("forward"),
      rule("input", [FROM_LO, ACCEPT]),
      ...dropRest("input"),
      rule("output", [OVER_LO, is(meta("l4proto"), "tcp"), ACCEPT]),
      // Queries to the gate, and its replies: a client's own address is a loopback address, too.
      rule("output", [OVER_LO, is(meta("l4proto"), "udp"), TO_LOOPBACK_4, ACCEPT]),
      rule("output", [OVER_LO, is(meta("l4proto"), "udp"), TO_LOOPBACK_6, ACCEPT]),
      // "Nobody listens there": from the kernel itself, as the sandbox has no ICMP sockets.
      rule("output", [OVER_LO, is(field("icmp", "type"), "destination-unreachable"), TO_LOOPBACK_4, ACCEPT]),
      rule("output", [
        OVER_LO,
        is(field("icmpv6", "type"), "destination-unreachable"),
        TO_LOOPBACK_6,
        ACCEPT,
      ]),
      ...dropRest("output"),
      ...dropRest("forward"),
    ],
  };
}
