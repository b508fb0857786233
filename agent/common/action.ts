/** What is asked about: the three kinds of action of the contract, and one line of words for each. */
import {
  ExecAction,
  ExecutableKind,
  FileAction,
  NetworkAction,
  NetworkProtocol,
  ObservedProtocol,
} from "../../proto/gen/clawsec/v1/loader.js";
import { operationWord } from "../../proto/words.js";
import { escapeArgv, escapeTo, escapeWord } from "./escape.js";

export type Action =
  | { $case: "exec"; value: ExecAction }
  | { $case: "file"; value: FileAction }
  | { $case: "network"; value: NetworkAction };

/** One line for people, escaped, safe to print. */
export function actionLine(action: Action | undefined): string {
  switch (action?.$case) {
    case "exec":
      return execLine(action.value);
    case "file":
      return fileLine(action.value);
    case "network":
      return networkLine(action.value);
    default:
      return "an action of an unknown kind";
  }
}

/** The action as JSON, as the contract's JSON mapping has it. */
export function actionJson(action: Action | undefined): unknown {
  switch (action?.$case) {
    case "exec":
      return { exec: ExecAction.toJSON(action.value) };
    case "file":
      return { file: FileAction.toJSON(action.value) };
    case "network":
      return { network: NetworkAction.toJSON(action.value) };
    default:
      return {};
  }
}

/** Reads back what {@link actionJson} wrote; undefined for anything else. */
export function actionFromJson(json: unknown): Action | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  if ("exec" in json) return { $case: "exec", value: ExecAction.fromJSON(json.exec) };
  if ("file" in json) return { $case: "file", value: FileAction.fromJSON(json.file) };
  if ("network" in json) return { $case: "network", value: NetworkAction.fromJSON(json.network) };
  return undefined;
}

function execLine(exec: ExecAction): string {
  // Both are shown: what an interpreter's name or argv[0] says of a script is the caller's word.
  const by =
    exec.script === "" || exec.script === exec.executable ? "" : ` (by ${escapeWord(exec.executable, 200)})`;
  const file = escapeWord(exec.script === "" ? exec.executable : exec.script, 200);
  const argv = exec.argv.length > 0 ? escapeArgv(exec.argv) : "";
  const kind =
    exec.kind === ExecutableKind.ANONYMOUS
      ? " (anonymous file)"
      : exec.kind === ExecutableKind.DELETED
        ? " (deleted file)"
        : "";
  const truncated = exec.argvTruncated ? " (arguments cut)" : "";
  // argv[0] is the caller's word; the file is what runs. Both are shown unless they say the same.
  const check = exec.check ? " (nothing is executed)" : "";
  return `${file}${by}${check}${kind}${argv === "" ? "" : ` [${argv}]`}${truncated}`;
}

function fileLine(file: FileAction): string {
  const target = file.targetPath === "" ? "" : ` -> ${escapeTo(file.targetPath, 200)}`;
  return `${operationWord(file.operation)} ${escapeTo(file.path, 200)}${target}`;
}

function networkLine(network: NetworkAction): string {
  const host = escapeTo(network.host === "" ? network.address : network.host, 200);
  const bracketed = network.host === "" && network.address.includes(":") ? `[${host}]` : host;
  const observed =
    network.observedHost !== "" && network.observedHost !== network.host
      ? ` (${network.observedProtocol === ObservedProtocol.TLS ? "SNI" : "Host"} ${escapeTo(network.observedHost, 100)})`
      : "";
  return `${protocolWord(network.protocol)} ${bracketed}:${network.port}${observed}`;
}

function protocolWord(protocol: NetworkProtocol): string {
  switch (protocol) {
    case NetworkProtocol.TCP:
      return "tcp";
    case NetworkProtocol.UDP:
      return "udp";
    case NetworkProtocol.DNS:
      return "dns";
    default:
      return "unknown protocol";
  }
}
