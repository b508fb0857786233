// Actions as they are written in examples and tests: a command line, "delete /path", "example.com:443", or a mapping.

import {
  ExecCode,
  ExecutableKind,
  type FileAction,
  FileOperation,
  type Process,
} from "../../proto/gen/clawsec/v1/loader.js";
import { EXEC_ACTION, FILE_ACTION, NETWORK_ACTION } from "../language/actions.js";
import { ASKED_OPERATIONS, CODES, KINDS, LARGEST_ID } from "../language/names.js";
import { keysOf } from "../language/shape.js";
import type { Action, ExecCodeName, ExecKind, Policy } from "../model.js";
import type { Section } from "./base.js";
import { readConnection } from "./connection.js";
import { type Context, describe, Fields, type Node } from "./context.js";
import * as v from "./values.js";
import { shellWords } from "./words.js";

/** What an action has when it is not said. */
export interface ActionDefaults {
  readonly subject: string;
  /** Working directory. */
  readonly workspace: string;
  /** The sandbox's user, who owns what is not said to be another's. */
  readonly uid: number;
  /** Names of the variables that are set; see `environmentNames`. */
  readonly environment: readonly string[];
}

/** Set in each sandbox, whatever its policy says. */
const ALWAYS_SET = ["PATH", "HOME", "USER", "LOGNAME"];

/**
 * Names of the variables that the main command starts with, so that a rule about one of them is not missed where nobody
 * says which are set. `environment`: the policy's own.
 */
export function environmentNames(environment: Readonly<Record<string, string>>): readonly string[] {
  return [...ALWAYS_SET, ...Object.keys(environment)];
}

/** What an action has that is asked of this policy. */
export function actionDefaults({ subjects, sandbox }: Pick<Policy, "subjects" | "sandbox">): ActionDefaults {
  return {
    subject: subjects[0]?.name ?? "",
    workspace: sandbox.workspace,
    uid: sandbox.user.uid,
    environment: environmentNames(sandbox.environment),
  };
}

/** An action, but for what is taken from the policy it is asked of. */
export interface WrittenAction {
  readonly section: Section;
  /** "" for the default. */
  readonly subject: string;
  /** As written, on one line. */
  readonly text: string;
  readonly node: Node;
  with(defaults: ActionDefaults): Action;
}

const MAPPINGS = { exec: EXEC_ACTION, file: FILE_ACTION, network: NETWORK_ACTION };

type Facts = (defaults: ActionDefaults) => Action["action"];

/** Reads an action; undefined when it is wrong, which is reported. */
export function readWrittenAction(context: Context, node: Node, section: Section): WrittenAction | undefined {
  const fields =
    node.kind === "map"
      ? Fields.of(context, node, `an action of ${section}`, keysOf(MAPPINGS[section]))
      : undefined;
  if (node.kind === "list") {
    return context.error(node.origin, "type", `an action must be text or a mapping, not ${describe(node)}`);
  }
  if (node.kind === "map" && fields === undefined) return undefined;
  const facts = READERS[section](context, node, fields);
  const subject = fields?.read("subject", (n) => v.nonEmpty(context, n, "the subject")) ?? "";
  if (facts === undefined) return undefined;
  const parentNode = fields?.get("parent");
  const parent = parentNode && v.path(context, parentNode, "the parent");
  const ancestors = fields?.read("ancestors", (n) =>
    v.list(context, n, "ancestors", (i) => v.path(context, i, "an ancestor")),
  );
  const process = parent === undefined && ancestors === undefined ? undefined : caller(parent, ancestors);
  return {
    section,
    subject,
    text: written(node),
    node,
    with: (defaults) => ({ subject: subject || defaults.subject, process, action: facts(defaults) }),
  };
}

/** Reads an action and fills in what is not said; undefined when it is wrong, which is reported. */
export function readAction(
  context: Context,
  node: Node,
  section: Section,
  defaults: ActionDefaults,
): Action | undefined {
  return readWrittenAction(context, node, section)?.with(defaults);
}

const READERS: Readonly<
  Record<Section, (context: Context, node: Node, fields: Fields | undefined) => Facts | undefined>
> = { exec: readExec, file: readFile, network: readConnection };

/** Without a parent and ancestors the caller is not known, and no rule takes it for one that it permits. */
function caller(executable: string | undefined, ancestors: readonly string[] | undefined): Process {
  return {
    pid: 0,
    sandboxPid: 0,
    uid: 0,
    gid: 0,
    execId: "",
    ancestors: [],
    executable: executable ?? "",
    comm: "",
    ancestorExecutables: [...(ancestors ?? [])],
    ancestorsTruncated: false,
  };
}

const EXEC_KINDS: Readonly<Record<ExecKind, ExecutableKind>> = {
  file: ExecutableKind.FILE,
  anonymous: ExecutableKind.ANONYMOUS,
  deleted: ExecutableKind.DELETED,
};

/** The contract's number of each. */
export const EXEC_CODES: Readonly<Record<ExecCodeName | "none", ExecCode>> = {
  none: ExecCode.UNSPECIFIED,
  file: ExecCode.FILE,
  inline: ExecCode.INLINE,
  module: ExecCode.MODULE,
  stream: ExecCode.STREAM,
};

function readExec(context: Context, node: Node, fields: Fields | undefined): Facts | undefined {
  const errors = context.diagnostics.length;
  const words = fields === undefined ? shellWords(context, node, "the command") : undefined;
  const executableNode = fields?.require("executable", 'Write "executable: /usr/bin/git".');
  const executable = words?.[0] ?? (executableNode && v.path(context, executableNode, "the executable"));
  if (words !== undefined && !executable?.startsWith("/")) {
    return context.error(
      node.origin,
      "value",
      `the command "${executable ?? ""}" is not an absolute path`,
      "Write the whole path of the program: rules speak of files, not of names.",
    );
  }
  const argv = fields?.read("argv", (n) =>
    n.kind === "list"
      ? v.list(context, n, "argv", (i) => v.text(context, i, "an argument", { plain: true }))
      : shellWords(context, n, "argv"),
  );
  const script = fields?.read("script", (n) => v.path(context, n, "the script")) ?? "";
  const code = fields?.read("code", (n) => v.oneOf(context, n, "the code", CODES));
  const loader = fields?.read("loader", (n) => v.path(context, n, "the loader")) ?? "";
  const cwd = fields?.read("cwd", (n) => v.path(context, n, "the working directory"));
  const names =
    fields?.get("environment") &&
    fields.each("environment", "environment", (n) => v.nonEmpty(context, n, "the name of a variable"));
  const hash = fields?.read("sha256", (n) => v.sha256(context, n, "the sha256")) ?? "";
  const kind = fields?.read("kind", (n) => v.oneOf(context, n, "the kind", KINDS)) ?? "file";
  if (context.diagnostics.length > errors || executable === undefined) return undefined;
  return (defaults) => ({
    $case: "exec",
    value: {
      requestedPath: script || executable,
      executable,
      script,
      argv: [...(words ?? argv ?? [script || executable])],
      argvTruncated: false,
      cwd: cwd ?? defaults.workspace,
      environmentNames: [...new Set(names ?? defaults.environment)].sort(),
      fileId: "",
      scriptFileId: "",
      kind: EXEC_KINDS[kind],
      execId: "",
      argvHash: "",
      contextHash: "",
      executableSha256: script === "" ? hash : "",
      scriptSha256: script === "" ? "" : hash,
      nestedScripts: [],
      nestedSha256: [],
      loader,
      loaderSha256: "",
      code: EXEC_CODES[code ?? (script === "" ? "none" : "file")],
      scriptUnknown: "",
      check: false,
    },
  });
}

const FILE_OPERATIONS: Readonly<Record<(typeof ASKED_OPERATIONS)[number], FileOperation>> = {
  open: FileOperation.OPEN,
  create: FileOperation.CREATE,
  delete: FileOperation.DELETE,
  rename: FileOperation.RENAME,
  link: FileOperation.LINK,
  truncate: FileOperation.TRUNCATE,
  chmod: FileOperation.CHMOD,
};

function readFile(context: Context, node: Node, fields: Fields | undefined): Facts | undefined {
  const errors = context.diagnostics.length;
  const words = fields === undefined ? shellWords(context, node, "the action") : undefined;
  if (fields === undefined && words === undefined) return undefined;
  const origin = node.origin;
  const part = (at: number): Node | undefined => {
    const text = words?.[at];
    // Variables are filled in already.
    return text === undefined
      ? undefined
      : { kind: "scalar", value: text.replaceAll("$", "$$$$"), text: text.replaceAll("$", "$$$$"), origin };
  };
  const operationNode = fields === undefined ? part(0) : fields.require("operation");
  const pathNode = fields === undefined ? part(1) : fields.require("path");
  const targetNode = fields === undefined ? part(2) : fields.get("target");
  const operation = operationNode && v.oneOf(context, operationNode, "the operation", ASKED_OPERATIONS);
  const path = pathNode && v.path(context, pathNode, "the path");
  const target = targetNode && v.path(context, targetNode, "the other path");
  const owner = fields?.read("owner", (n) => readOwner(context, n));
  const two = operation === "rename" || operation === "link";
  const shape = words !== undefined && words.length !== (two ? 3 : 2);
  if (operation !== undefined && (shape || two !== (targetNode !== undefined))) {
    context.error(
      origin,
      "value",
      two ? `"${operation}" has two paths` : `"${operation}" has one path`,
      two ? `Write "${operation} /from /to".` : `Write "${operation} /path".`,
    );
  }
  if (context.diagnostics.length > errors || operation === undefined || path === undefined) return undefined;
  return (defaults) => {
    const value: FileAction = {
      operation: FILE_OPERATIONS[operation],
      path,
      targetPath: target ?? "",
      fileId: "",
      ownerUid: owner === "user" || owner === undefined ? defaults.uid : owner,
    };
    return { $case: "file", value };
  };
}

function readOwner(context: Context, node: Node): number | "user" | undefined {
  if (node.kind === "scalar" && typeof node.value === "string" && !node.value.includes("${")) {
    const name = v.oneOf(context, node, "the owner", ["root", "user"] as const);
    return name === "root" ? 0 : name;
  }
  return v.integer(context, node, "the owner's uid", 0, LARGEST_ID);
}

/** A node on one line, for messages. */
function written(node: Node): string {
  switch (node.kind) {
    case "scalar":
      return node.text;
    case "list":
      return `[${node.items.map(written).join(", ")}]`;
    case "map":
      return `{ ${node.entries.map(({ key, value }) => `${key}: ${written(value)}`).join(", ")} }`;
  }
}
