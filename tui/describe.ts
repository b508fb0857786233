import type { AuditRecord, Hold } from "../proto/gen/clawsec/v1/control.js";
import {
  ExecutableKind,
  type NetworkAction,
  NetworkProtocol,
  ObservedProtocol,
  type Process,
} from "../proto/gen/clawsec/v1/loader.js";
import { operationWord, verdictWord } from "../proto/words.js";
import { visible, visibleArgv, visibleHost, visibleWord } from "./escape.js";

// Turns messages into words. Everything that comes out of here is safe to draw.

/** A line of a hold's details. */
export interface Fact {
  readonly label: string;
  readonly text: string;
}

/** What a hold asks for, in one line: "exec", "git push". */
export function headline({ action }: Hold): { kind: string; what: string } {
  switch (action?.$case) {
    case "exec":
      return { kind: "exec", what: visibleArgv(action.value.argv) };
    case "file":
      return { kind: operationWord(action.value.operation), what: visibleWord(action.value.path) };
    case "network":
      return { kind: "connect", what: destination(action.value) };
    case undefined:
      return { kind: "?", what: "an action that this version does not know" };
  }
}

/** Everything a person needs to answer a hold, the most important first. */
export function facts(hold: Hold): Fact[] {
  const known: (Fact | undefined)[] = [
    ...what(hold),
    fact("who", who(hold)),
    fact("chain", hold.process?.ancestorExecutables.map(visibleWord).join(" < ")),
    fact("rule", `${visible(hold.rule)}${hold.because === "" ? "" : `: ${visible(hold.because)}`}`),
    fact("policy", `${hold.policyHash.slice(0, 12)}; at the deadline: ${verdictWord(hold.defaultVerdict)}`),
    hold.asked > 1 ? fact("asked", `${hold.asked} times; one answer serves all`) : undefined,
    hold.engaged ? undefined : fact("state", "not yet stopped; what is shown may still be corrected"),
    fact("id", visible(hold.id)),
  ];
  return known.filter((line) => line !== undefined);
}

function what({ action }: Hold): (Fact | undefined)[] {
  switch (action?.$case) {
    case "exec": {
      const { argv, argvTruncated, check, executable, kind, requestedPath, script, cwd } = action.value;
      return [
        check ? fact("asks", "only whether it may be executed: nothing runs") : undefined,
        fact("argv", visibleArgv(argv) + (argvTruncated ? "  (longer than is shown)" : "")),
        fact("file", visibleWord(executable) + executableNote(kind)),
        requestedPath === executable ? undefined : fact("as", visibleWord(requestedPath)),
        fact("script", script === "" ? undefined : visibleWord(script)),
        fact("in", visibleWord(cwd)),
      ];
    }
    case "file": {
      const { operation: kind, path, targetPath, ownerUid } = action.value;
      return [
        fact(operationWord(kind), visibleWord(path)),
        fact("to", targetPath === "" ? undefined : visibleWord(targetPath)),
        fact("owner", `uid ${ownerUid}`),
      ];
    }
    case "network":
      return [fact("to", destination(action.value)), fact("seen", observed(action.value))];
    case undefined:
      return [fact("what", "an action that this version does not know; deny it, or update")];
  }
}

function fact(label: string, text: string | undefined): Fact | undefined {
  return text === undefined || text === "" ? undefined : { label, text };
}

function who({ sandbox, subject, process }: Hold): string {
  return `${visible(subject)} in ${visible(sandbox)}${process ? `: ${processText(process)}` : ""}`;
}

function processText({ executable, comm, pid, sandboxPid, uid }: Process): string {
  const name = comm === "" ? "" : ` (${visible(comm)})`;
  return `${visibleWord(executable)}${name} pid ${pid} (inside ${sandboxPid}), uid ${uid}`;
}

function executableNote(kind: ExecutableKind): string {
  switch (kind) {
    case ExecutableKind.ANONYMOUS:
      return "  (in memory only: the name means nothing)";
    case ExecutableKind.DELETED:
      return "  (deleted: the name means nothing)";
    case ExecutableKind.FILE:
    case ExecutableKind.UNSPECIFIED:
      return "";
  }
}

function destination({ host, address, port, protocol }: NetworkAction): string {
  const name = host === "" ? visibleHost(address) : visibleHost(host);
  return `${name.includes(":") ? `[${name}]` : name}:${port}${protocolNote(protocol)}`;
}

function protocolNote(protocol: NetworkProtocol): string {
  switch (protocol) {
    case NetworkProtocol.UDP:
      return "/udp";
    case NetworkProtocol.DNS:
      return " (name lookup)";
    case NetworkProtocol.TCP:
    case NetworkProtocol.UNSPECIFIED:
      return "";
  }
}

function observed({ observedHost, observedProtocol }: NetworkAction): string {
  const name = observedHost === "" ? "no name in the first bytes" : `name ${visibleHost(observedHost)}`;
  switch (observedProtocol) {
    case ObservedProtocol.TLS:
      return `TLS, ${name}`;
    case ObservedProtocol.HTTP:
      return `HTTP, ${name}`;
    case ObservedProtocol.OTHER:
      return "neither TLS nor HTTP";
    case ObservedProtocol.NONE:
    case ObservedProtocol.UNSPECIFIED:
      return "";
  }
}

/** An audit record on one line. */
export function eventLine({
  timeUs,
  sandbox,
  subject,
  kind,
  summary,
  verdict,
  rule,
  layer,
}: AuditRecord): string {
  const time = new Date(timeUs / 1000).toTimeString().slice(0, 8);
  const word = verdictWord(verdict);
  const where = [sandbox, subject].filter((part) => part !== "").join("/");
  const why = rule === "" ? "" : `  [${visible(rule)}${layer === "" ? "" : `, ${visible(layer)}`}]`;
  return `${time} ${word.padEnd(5)} ${visible(kind).padEnd(8)} ${visible(where)}  ${visible(summary)}${why}`;
}

/** Time left as "4:09"; "0:00" when it is over. */
export function clock(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Time left as a bar of `width` cells, full when nothing has passed. */
export function bar(left: number, whole: number, width: number): string {
  const share = whole <= 0 ? 0 : Math.min(1, Math.max(0, left / whole));
  const full = Math.ceil(share * width);
  return "█".repeat(full) + "░".repeat(width - full);
}
