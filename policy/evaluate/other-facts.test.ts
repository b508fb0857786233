// The matchers of file and network rules, with their near misses.

import { describe, expect, test } from "vitest";
import {
  FileOperation,
  NetworkProtocol,
  ObservedProtocol,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import { type Action, evaluate } from "../evaluate.js";
import type { Policy } from "../model.js";
import { connect, file, policy } from "../testing/policy.js";

const said = (p: Policy, action: Action) => {
  const { verdict, rule } = evaluate(p, action);
  return `${Verdict[verdict]} ${rule}`;
};

describe("file operations and owners", () => {
  const p = policy(`file:
  - { id: new, path: /home/agent/fixed, operations: [create], action: deny }
  - { id: mode, path: /home/agent/mode, operations: [chmod], action: hold }
  - { id: still, path: /home/agent/still, operations: [write], action: deny }
  - { id: free, path: /home/agent/free, operations: [write], action: log }
  - { id: root, path: /home/agent/mixed, operations: [delete, rename, link], owner: root, action: deny }
  - { id: mine, path: /home/agent/mine, operations: [delete], owner: [user, 7], action: log }
`);
  const owned = (operation: FileOperation, path: string, ownerUid: number, target = ""): Action => {
    const asked = file(operation, path, target);
    if (asked.action?.$case !== "file") throw new Error("not a file");
    return { ...asked, action: { $case: "file", value: { ...asked.action.value, ownerUid } } };
  };
  test.each([
    ["DENY file/new", file(FileOperation.CREATE, "/home/agent/fixed/a")],
    ["ALLOW file/mounts", file(FileOperation.CREATE, "/home/agent/other")],
    // A rename or a link into it makes a name there; out of it, none.
    ["DENY file/new", file(FileOperation.RENAME, "/home/agent/a", "/home/agent/fixed/a")],
    ["DENY file/new", file(FileOperation.LINK, "/home/agent/a", "/home/agent/fixed/a")],
    ["ALLOW file/mounts", file(FileOperation.RENAME, "/home/agent/fixed/a", "/home/agent/a")],
    ["HOLD file/mode", file(FileOperation.CHMOD, "/home/agent/mode")],
    ["ALLOW file/mounts", file(FileOperation.CHMOD, "/home/agent/modes")],
    ["DENY file/still", file(FileOperation.CHMOD, "/home/agent/still")],
    ["DENY file/still", file(FileOperation.CREATE, "/home/agent/still/a")],
    ["LOG file/free", file(FileOperation.CREATE, "/home/agent/free/a")],
    ["ALLOW file/mounts", file(FileOperation.CHMOD, "/home/agent/free/a")],
    ["DENY file/root", owned(FileOperation.DELETE, "/home/agent/mixed/a", 0)],
    ["ALLOW file/mounts", owned(FileOperation.DELETE, "/home/agent/mixed/a", 1000)],
    ["DENY file/root", owned(FileOperation.RENAME, "/home/agent/mixed/a", 0, "/home/agent/b")],
    ["ALLOW file/mounts", owned(FileOperation.RENAME, "/home/agent/mixed/a", 1000, "/home/agent/b")],
    // Who owns what is replaced is not known.
    ["DENY file/root", owned(FileOperation.RENAME, "/home/agent/b", 1000, "/home/agent/mixed/a")],
    ["ALLOW file/mounts", owned(FileOperation.LINK, "/home/agent/b", 1000, "/home/agent/mixed/a")],
    ["LOG file/mine", owned(FileOperation.DELETE, "/home/agent/mine/a", 1000)],
    ["LOG file/mine", owned(FileOperation.DELETE, "/home/agent/mine/a", 7)],
    ["ALLOW file/mounts", owned(FileOperation.DELETE, "/home/agent/mine/a", 0)],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });
});

describe("protocols and requests", () => {
  const p = policy(`network:
  - { id: post, host: api.x.com, method: [post, PUT], action: deny }
  - { id: admin, host: api.x.com, path: /admin/**, action: hold }
  - { id: read, host: api.x.com, method: GET, path: ["/v1/**", /], action: allow }
  - { id: tls, host: s.x.com, protocol: tls, action: allow }
  - { id: plain, host: d.x.com, protocol: http, action: deny }
  - { id: any, host: d.x.com, action: allow }
  - { id: odd, host: o.x.com, protocol: other, action: log }
`);
  const request = (httpMethod: string, httpPath: string) =>
    connect("api.x.com", 80, "main", { observedProtocol: ObservedProtocol.HTTP, httpMethod, httpPath });
  const begins = (host: string, observedProtocol: ObservedProtocol) =>
    connect(host, 443, "main", { observedProtocol });
  test.each([
    ["ALLOW network/read", request("GET", "/v1/a")],
    ["ALLOW network/read", request("GET", "/")],
    ["DENY network/default", request("GET", "/v2/a")],
    ["DENY network/default", request("HEAD", "/v1/a")],
    ["DENY network/default", request("get", "/v1/a")],
    ["DENY network/post", request("POST", "/v1/a")],
    ["DENY network/post", request("put", "/v1/a")],
    ["HOLD network/admin", request("GET", "/admin/a")],
    ["HOLD network/admin", request("GET", "/%61dmin/a")],
    ["ALLOW network/read", request("GET", "/v1/%61dmin")],
    // Nobody knows what a server makes of these: restricted, not permitted.
    ["HOLD network/admin", request("GET", "/v1/../admin/a")],
    ["HOLD network/admin", request("GET", "/v1/%2e%2e/x")],
    ["HOLD network/admin", request("GET", "/v1//a")],
    ["HOLD network/admin", request("GET", "/v1\\a")],
    // The requests are not known yet.
    ["DENY network/post", request("", "")],
    ["DENY network/default", begins("api.x.com", ObservedProtocol.TLS)],
    ["ALLOW network/tls", begins("s.x.com", ObservedProtocol.TLS)],
    ["DENY network/default", begins("s.x.com", ObservedProtocol.HTTP)],
    ["DENY network/default", begins("s.x.com", ObservedProtocol.NONE)],
    ["DENY network/default", begins("s.x.com", ObservedProtocol.UNSPECIFIED)],
    ["DENY network/plain", begins("d.x.com", ObservedProtocol.HTTP)],
    ["DENY network/plain", begins("d.x.com", ObservedProtocol.UNSPECIFIED)],
    ["ALLOW network/any", begins("d.x.com", ObservedProtocol.TLS)],
    ["LOG network/odd", begins("o.x.com", ObservedProtocol.OTHER)],
    ["LOG network/odd", begins("o.x.com", ObservedProtocol.NONE)],
    ["DENY network/default", begins("o.x.com", ObservedProtocol.TLS)],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("a doubtful path permits nothing, where no rule restricts paths", () => {
    const reads = policy("network:\n  - { id: read, host: api.x.com, path: /**, action: allow }");
    expect(said(reads, request("GET", "/v1/a"))).toBe("ALLOW network/read");
    expect(said(reads, request("GET", "/v1/../a"))).toBe("DENY network/default");
    expect(said(reads, request("", ""))).toBe("DENY network/default");
  });

  test("a denial of some requests or protocols leaves the name to be looked up, a right to some asks for it", () => {
    const lookup = (host: string) => said(p, connect(host, 53, "main", { protocol: NetworkProtocol.DNS }));
    expect(lookup("api.x.com")).toBe("ALLOW network/admin");
    expect(lookup("d.x.com")).toBe("ALLOW network/any");
    expect(lookup("s.x.com")).toBe("ALLOW network/tls");
    expect(lookup("q.x.com")).toBe("DENY network/default");
    const closed = policy(
      "network:\n  - { id: no, host: d.x.com, action: deny }\n  - { id: all, host: '*', action: allow }",
    );
    const asked = connect("d.x.com", 53, "main", { protocol: NetworkProtocol.DNS });
    expect(said(closed, asked)).toBe("DENY network/no");
  });
});
