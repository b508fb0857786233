// Small policies and actions for tests.

import {
  type ExecAction,
  ExecCode,
  ExecutableKind,
  type FileAction,
  type FileOperation,
  type NetworkAction,
  NetworkProtocol,
  ObservedProtocol,
} from "../../proto/gen/clawsec/v1/loader.js";
import { renderDiagnostics } from "../diagnostics.js";
import type { Action } from "../evaluate.js";
import type { Policy } from "../model.js";
import { parsePolicy } from "../schema.js";

/** A whole policy around the sections that a test is about. */
export function policyText(sections: string): string {
  const lines = ["apiVersion: clawsec/v1", "kind: Policy", "metadata: { name: test }"];
  if (!/^sandbox:/m.test(sections)) {
    lines.push(
      "sandbox:",
      "  command: [/bin/sh]",
      "  mounts:",
      "    - { source: /usr }",
      "    - { source: /srv/home, target: /home/agent, mode: rw }",
      "    - { source: /srv/data, target: /data }",
    );
  }
  return `${lines.join("\n")}\n${sections}\n`;
}

/** Parses, and fails the test with the findings when that does not work. */
export function policy(sections: string, variables: Record<string, string> = {}): Policy {
  const result = parsePolicy(policyText(sections), "test.yaml", { variables });
  if (result.policy === undefined) throw new Error(renderDiagnostics(result.diagnostics));
  return result.policy;
}

export function exec(facts: Partial<ExecAction>, subject = "main"): Action {
  const value: ExecAction = {
    requestedPath: facts.executable ?? "",
    executable: "",
    script: "",
    argv: [],
    argvTruncated: false,
    cwd: "/home/agent",
    environmentNames: [],
    fileId: "8:1",
    scriptFileId: "",
    kind: ExecutableKind.FILE,
    execId: "x1",
    argvHash: "",
    contextHash: "",
    executableSha256: "",
    scriptSha256: "",
    nestedScripts: [],
    nestedSha256: [],
    loader: "",
    loaderSha256: "",
    code: ExecCode.UNSPECIFIED,
    scriptUnknown: "",
    check: false,
    ...facts,
  };
  return { subject, process: undefined, action: { $case: "exec", value } };
}

export function file(operation: FileOperation, path: string, targetPath = "", subject = "main"): Action {
  const value: FileAction = { operation, path, targetPath, fileId: "", ownerUid: 1000 };
  return { subject, process: undefined, action: { $case: "file", value } };
}

/** A connection to a name, or to a literal address when the text is one. */
export function connect(
  peer: string,
  port: number,
  subject = "main",
  more: Partial<NetworkAction> = {},
): Action {
  const isAddress = /^[0-9.]+$/.test(peer) || peer.includes(":");
  const value: NetworkAction = {
    protocol: NetworkProtocol.TCP,
    host: isAddress ? "" : peer,
    address: isAddress ? peer : "",
    port,
    observedHost: "",
    observedProtocol: ObservedProtocol.NONE,
    rule: "",
    httpMethod: "",
    httpPath: "",
    ...more,
  };
  return { subject, process: undefined, action: { $case: "network", value } };
}
