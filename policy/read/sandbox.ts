// The "sandbox" section: what exists in the sandbox, and as whom and with how much its command runs.

import { HOSTNAME, LARGEST_ID, USER_NAME } from "../language/names.js";
import { LIMITS, MOUNT, PUBLISH, SANDBOX, USER } from "../language/sandbox.js";
import { keysOf } from "../language/shape.js";
import { parseAddress } from "../match/cidr.js";
import type { Limits, Mount, Publish, SandboxModel } from "../model.js";
import { type Context, describe, Fields, type Node } from "./context.js";
import { readHealthCheck } from "./health-check.js";
import { mergeMaps, nearest } from "./merge.js";
import * as v from "./values.js";

const GiB = 2 ** 30;
const DEFAULT_LIMITS: Limits = {
  memoryBytes: 2 * GiB,
  pids: 512,
  milliCpus: 2000,
  openFiles: 4096,
  tmpfsBytes: GiB / 2,
};
export const DEFAULT_HOME = "/home/agent";
export const DEFAULT_UID = 1000;
const DEFAULT_USER = { uid: DEFAULT_UID, gid: 1000, name: "agent" };
const DEFAULT_GRACE_MS = 10_000;
const SMALLEST_MEMORY = 16 * 2 ** 20;

/**
 * Reads the sections of all files, furthest first; undefined when that is no mapping, which is reported. `subjects` are
 * the policy's, that of the main command first.
 */
export function readSandbox(
  context: Context,
  nodes: readonly Node[],
  subjects: readonly string[],
): SandboxModel | undefined {
  const node = mergeMaps(context, nodes, "sandbox", {
    deep: ["user", "environment", "limits", "healthCheck"],
    joined: ["mounts", "publish"],
  });
  if (node === undefined) return undefined;
  const fields = Fields.of(context, node, "sandbox", keysOf(SANDBOX));
  if (fields === undefined) return undefined;
  const get = <T>(key: string, read: (node: Node) => T | undefined): T | undefined => {
    const value = fields.get(key);
    return value === undefined ? undefined : read(value);
  };
  get("backend", (n) => v.oneOf(context, n, "the backend", ["runc"] as const));
  const home = get("home", (n) => v.path(context, n, "the home folder")) ?? DEFAULT_HOME;
  const mounts = fields.require(
    "mounts",
    "A sandbox has only what is mounted: without mounts there is no program to run.",
  );
  return {
    backend: "runc",
    command:
      get("command", (n) =>
        v.list(context, n, "the command", (i) => v.text(context, i, "an argument", { plain: true })),
      ) ?? [],
    user: get("user", (n) => readUser(context, n)) ?? DEFAULT_USER,
    home,
    workspace: get("workspace", (n) => v.path(context, n, "the workspace")) ?? home,
    hostname:
      get("hostname", (n) =>
        v.matching(context, n, "the host name", HOSTNAME, 'Use lower-case letters, digits and "-".'),
      ) ?? "",
    environment: get("environment", (n) => readEnvironment(context, n)) ?? {},
    mounts: nearest(
      mounts === undefined ? [] : v.list(context, mounts, "mounts", (n) => readMount(context, n)),
      (mount) => mount.target,
    ),
    limits: get("limits", (n) => readLimits(context, n)) ?? DEFAULT_LIMITS,
    publish: nearest(
      get("publish", (n) => v.list(context, n, "publish", (i) => readPublish(context, i))) ?? [],
      (port) => port.sandboxPort,
    ),
    healthCheck: get("healthCheck", (n) => readHealthCheck(context, n, subjects)),
    supervisorGraceMs:
      get("supervisorGrace", (n) => v.duration(context, n, "supervisorGrace")) ?? DEFAULT_GRACE_MS,
    origin: fields.origin,
  };
}

function readUser(context: Context, node: Node): SandboxModel["user"] | undefined {
  const fields = Fields.of(context, node, "user", keysOf(USER));
  if (fields === undefined) return undefined;
  const id = (key: "uid" | "gid"): number => {
    const value = fields.get(key);
    if (value === undefined) return DEFAULT_USER[key];
    const number = v.integer(context, value, `the user's ${key}`, 0, LARGEST_ID);
    if (number === 0)
      context.error(
        value.origin,
        "root",
        `the ${key} of a sandbox cannot be 0`,
        "Use an unprivileged user, e.g. 1000.",
      );
    return number ?? DEFAULT_USER[key];
  };
  const name = fields.get("name");
  return {
    uid: id("uid"),
    gid: id("gid"),
    name:
      (name && v.matching(context, name, "the user's name", USER_NAME, 'Use a user name such as "agent".')) ??
      DEFAULT_USER.name,
  };
}

function readEnvironment(context: Context, node: Node): Record<string, string> {
  const environment = new Map<string, string>();
  if (node.kind !== "map") {
    context.error(node.origin, "type", `environment must be a mapping, not ${describe(node)}`);
    return {};
  }
  for (const { key, keyOrigin, value } of node.entries) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key)) {
      context.error(keyOrigin, "value", `"${key}" is not the name of an environment variable`);
      continue;
    }
    if (/^(?:LD_|DYLD_)/.test(key)) {
      context.error(
        keyOrigin,
        "loader-variable",
        `the loader variable "${key}" cannot be set by a policy`,
        "Set it in a script that the command runs, if it must be.",
      );
      continue;
    }
    const text = v.text(context, value, `the value of ${key}`, { plain: true });
    if (text !== undefined) environment.set(key, text);
  }
  return Object.fromEntries(environment);
}

function readMount(context: Context, node: Node): Mount | undefined {
  const fields = Fields.of(context, node, "a mount", keysOf(MOUNT));
  if (fields === undefined) return undefined;
  const typeNode = fields.get("type");
  const kind =
    typeNode === undefined
      ? "bind"
      : v.oneOf(context, typeNode, "the type of a mount", ["bind", "tmpfs"] as const);
  if (kind === undefined) return undefined;
  for (const key of kind === "bind" ? (["size"] as const) : (["source", "optional", "mode"] as const)) {
    if (fields.has(key))
      context.error(fields.originOf(key), "unknown-key", `a ${kind} mount has no "${key}"`, "Remove it.");
  }
  const sourceNode = kind === "bind" ? fields.require("source") : undefined;
  const source = sourceNode === undefined ? "" : v.path(context, sourceNode, "the source of a mount");
  const targetNode = kind === "tmpfs" ? fields.require("target") : fields.get("target");
  const target = targetNode === undefined ? source : v.path(context, targetNode, "the target of a mount");
  const modeNode = fields.get("mode");
  const mode =
    modeNode === undefined
      ? undefined
      : v.oneOf(context, modeNode, "the mode of a mount", ["ro", "rw"] as const);
  const execNode = fields.get("exec");
  const optionalNode = fields.get("optional");
  const sizeNode = fields.get("size");
  if (source === undefined || target === undefined || (kind === "bind" && source === "")) return undefined;
  return {
    kind,
    source,
    target,
    mode: kind === "tmpfs" ? "rw" : (mode ?? "ro"),
    exec: (execNode && v.bool(context, execNode, '"exec" of a mount')) ?? kind === "bind",
    optional: (optionalNode && v.bool(context, optionalNode, '"optional" of a mount')) ?? false,
    sizeBytes:
      (sizeNode && v.bytes(context, sizeNode, "the size of a mount", 4096)) ?? DEFAULT_LIMITS.tmpfsBytes,
    origin: sourceNode?.origin ?? targetNode?.origin ?? fields.origin,
  };
}

function readLimits(context: Context, node: Node): Limits | undefined {
  const fields = Fields.of(context, node, "limits", keysOf(LIMITS));
  if (fields === undefined) return undefined;
  const memory = fields.get("memory");
  const pids = fields.get("pids");
  const cpus = fields.get("cpus");
  const openFiles = fields.get("openFiles");
  const tmpfs = fields.get("tmpfs");
  return {
    memoryBytes:
      (memory && v.bytes(context, memory, "the memory limit", SMALLEST_MEMORY)) ?? DEFAULT_LIMITS.memoryBytes,
    pids: (pids && v.integer(context, pids, "the limit of processes", 2, 4_194_304)) ?? DEFAULT_LIMITS.pids,
    milliCpus: (cpus && v.milliCpus(context, cpus, "the limit of cpus")) ?? DEFAULT_LIMITS.milliCpus,
    openFiles:
      (openFiles && v.integer(context, openFiles, "the limit of open files", 16, 1_048_576)) ??
      DEFAULT_LIMITS.openFiles,
    tmpfsBytes: (tmpfs && v.bytes(context, tmpfs, "the size of a tmpfs", 4096)) ?? DEFAULT_LIMITS.tmpfsBytes,
  };
}

function readPublish(context: Context, node: Node): Publish | undefined {
  const fields = Fields.of(context, node, "a published port", keysOf(PUBLISH));
  if (fields === undefined) return undefined;
  const hostNode = fields.require("host");
  const sandboxNode = fields.require("sandbox");
  if (hostNode === undefined || sandboxNode === undefined) return undefined;
  const sandboxPort = v.integer(context, sandboxNode, "the port in the sandbox", 1, 65535);
  const host = v.text(context, hostNode, "the host side of a published port", { plain: true });
  if (sandboxPort === undefined || host === undefined) return undefined;
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]:|([0-9.]+):)?([0-9]{1,5})$/.exec(host);
  const ip = parts?.[1] ?? parts?.[2] ?? "127.0.0.1";
  const address = parseAddress(ip);
  const hostPort = Number(parts?.[3]);
  if (parts === null || address === undefined || !(hostPort <= 65535)) {
    return context.error(
      hostNode.origin,
      "value",
      `"${host}" is not an address and port`,
      'Write it like "127.0.0.1:18789"; port 0 takes a free one.',
    );
  }
  if (ip !== "::1" && !(address.family === 4 && address.value >> 24n === 127n)) {
    context.warning(
      hostNode.origin,
      "published",
      `port ${sandboxPort} of the sandbox is published on ${ip}, which other machines may reach`,
      "Publish on 127.0.0.1, unless that is what you want.",
    );
  }
  return { hostIp: ip, hostPort, sandboxPort, origin: hostNode.origin };
}
