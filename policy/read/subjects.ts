// The "subjects" section: which sets of processes rules can name, and how a process comes into one.

import { SUBJECT_NAME } from "../language/names.js";
import { ENTRY, FILES, LOOPBACK, SUBJECT, TRANSITION, TREE } from "../language/policy.js";
import { keysOf } from "../language/shape.js";
import { isWithin, parent } from "../match/path.js";
import type { SubjectFiles, SubjectModel, SubjectTree, Transition } from "../model.js";
import { readArgv } from "./argv.js";
import { readSubjects } from "./base.js";
import { type Context, Fields, type Node } from "./context.js";
import { nearest } from "./merge.js";
import * as v from "./values.js";

/** Folder of the shim in the sandbox. */
export const SHIM_FOLDER = "/.clawsec";
/** Names in it that clawsec itself uses. */
const TAKEN = ["init", "entry"];

/** Reads the sections of all files, furthest first: a subject of a nearer file replaces one of the same name. */
export function readSubjectLists(context: Context, nodes: readonly Node[]): SubjectModel[] {
  const names = nodes.flatMap((node) => (node.kind === "list" ? node.items.flatMap(subjectName) : []));
  const subjects = nodes.flatMap((node) => readSubjectList(context, node, names));
  const merged = nearest(subjects, (subject) => subject.name);
  checkTransitions(context, merged);
  return merged;
}

function readSubjectList(context: Context, node: Node, names: readonly string[]): SubjectModel[] {
  const subjects = v.list(context, node, "subjects", (item) => readSubject(context, item, names));
  if (node.kind === "list" && node.items.length === 0) {
    context.error(
      node.origin,
      "value",
      "subjects must not be an empty list",
      "The first is the subject of the main command.",
    );
  }
  const seen = new Map<string, SubjectModel>();
  for (const subject of subjects) {
    const first = seen.get(subject.name);
    if (first !== undefined) {
      context.error(
        subject.origin,
        "duplicate-id",
        `the subject "${subject.name}" is already there in line ${first.origin.line}`,
        "Give each subject its own name.",
      );
    }
    seen.set(subject.name, subject);
  }
  return subjects;
}

/** Names, read ahead so that a subject can speak of a later one. */
function subjectName(item: Node): string[] {
  if (item.kind !== "map") return [];
  const value = item.entries.find((entry) => entry.key === "name")?.value;
  return value?.kind === "scalar" && typeof value.value === "string" ? [value.value] : [];
}

function readSubject(context: Context, node: Node, names: readonly string[]): SubjectModel | undefined {
  const fields = Fields.of(context, node, "a subject", keysOf(SUBJECT));
  if (fields === undefined) return undefined;
  const nameNode = fields.require("name");
  const name =
    nameNode &&
    v.matching(
      context,
      nameNode,
      "the name of a subject",
      SUBJECT_NAME,
      'Use lower-case letters, digits and "-".',
    );
  const entersNode = fields.get("enters");
  const enters =
    entersNode === undefined
      ? []
      : v.list(context, entersNode, '"enters"', (n) => readTransition(context, n, names));
  const entryNode = fields.get("entry");
  const entry = entryNode && readEntry(context, entryNode);
  const filesNode = fields.get("files");
  const files = filesNode && readFiles(context, filesNode);
  if (filesNode !== undefined && entryNode === undefined) {
    context.error(
      fields.originOf("files"),
      "no-entry",
      '"files" needs an "entry": only the shim of an entry can narrow what a subject sees',
      'Add "entry: { path: /.clawsec/NAME, exec: PROGRAM }", or rule the files for all subjects.',
    );
  }
  const loopbackNode = fields.get("loopback");
  const loopback = loopbackNode === undefined ? [] : readLoopback(context, loopbackNode);
  if (name === undefined) return undefined;
  return { name, enters, entry, files, loopback, origin: nameNode?.origin ?? fields.origin };
}

function readTransition(context: Context, node: Node, names: readonly string[]): Transition | undefined {
  const fields = Fields.of(context, node, "an item of enters", keysOf(TRANSITION));
  if (fields === undefined) return undefined;
  fields.require("from", "Say whose exec it is.");
  const from = readSubjects(context, fields, "from", names);
  const executable = v.pathPatterns(context, fields, "executable");
  const script = v.pathPatterns(context, fields, "script");
  if (!fields.has("executable") && !fields.has("script")) fields.require("executable");
  return { from, executable, script, argv: readArgv(context, fields), origin: fields.origin };
}

function readEntry(context: Context, node: Node): SubjectModel["entry"] {
  const fields = Fields.of(context, node, "entry", keysOf(ENTRY));
  const pathNode = fields?.require("path");
  const execNode = fields?.require("exec");
  const path = pathNode && v.path(context, pathNode, "the path of an entry");
  const exec = execNode && v.path(context, execNode, "the program of an entry");
  if (pathNode !== undefined && path !== undefined) {
    const name = path.slice(SHIM_FOLDER.length + 1);
    if (parent(path) !== SHIM_FOLDER || TAKEN.includes(name) || !/^[A-Za-z0-9._-]+$/.test(name)) {
      return context.error(
        pathNode.origin,
        "value",
        `the path of an entry must be a name of its own in ${SHIM_FOLDER}`,
        "E.g. /.clawsec/bash.",
      );
    }
  }
  if (execNode !== undefined && exec !== undefined && isWithin(exec, SHIM_FOLDER)) {
    return context.error(
      execNode.origin,
      "value",
      "an entry cannot run the shim itself",
      "Name the real program, e.g. /bin/bash.",
    );
  }
  return path === undefined || exec === undefined
    ? undefined
    : { path, exec, origin: pathNode?.origin ?? node.origin };
}

function readFiles(context: Context, node: Node): SubjectFiles | undefined {
  const fields = Fields.of(context, node, "files", keysOf(FILES));
  if (fields === undefined) return undefined;
  const trees = (key: string): SubjectTree[] => {
    const value = fields.get(key);
    return value === undefined ? [] : v.list(context, value, `"${key}"`, (n) => readTree(context, n));
  };
  return { read: trees("read"), write: trees("write"), exec: trees("exec"), origin: fields.origin };
}

/** A path, or `{ path, optional }`. */
function readTree(context: Context, node: Node): SubjectTree | undefined {
  if (node.kind !== "map") {
    const path = v.path(context, node, "a tree");
    return path === undefined ? undefined : { path, optional: false, origin: node.origin };
  }
  const fields = Fields.of(context, node, "a tree", keysOf(TREE));
  const pathNode = fields?.require("path");
  const path = pathNode && v.path(context, pathNode, "a tree");
  const optionalNode = fields?.get("optional");
  const optional = (optionalNode && v.bool(context, optionalNode, '"optional" of a tree')) ?? false;
  return path === undefined ? undefined : { path, optional, origin: pathNode?.origin ?? node.origin };
}

function readLoopback(context: Context, node: Node): SubjectModel["loopback"] {
  if (node.kind === "scalar") return v.oneOf(context, node, "loopback", ["any"] as const) ?? [];
  const fields = Fields.of(context, node, "loopback", keysOf(LOOPBACK));
  const ports = fields?.require("ports");
  return ports === undefined
    ? []
    : v.list(context, ports, "the ports of loopback", (n) => v.integer(context, n, "a port", 1, 65535));
}

/** Nothing may come back into a subject it has left: rights would come back with it. */
function checkTransitions(context: Context, subjects: readonly SubjectModel[]): void {
  const ways = new Map(subjects.map((s) => [s.name, s.enters.flatMap((t) => t.from)]));
  for (const subject of subjects) {
    const reached = new Set<string>();
    const open = [...(ways.get(subject.name) ?? [])];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (reached.has(next)) continue;
      reached.add(next);
      open.push(...(ways.get(next) ?? []));
    }
    if (reached.has(subject.name)) {
      context.error(
        subject.origin,
        "cycle",
        `a process could leave the subject "${subject.name}" and come back into it`,
        'Take the way back out of "enters".',
      );
    }
  }
  const [main, ...others] = subjects;
  if (main !== undefined && main.enters.length > 0) {
    context.error(
      main.origin,
      "main-subject",
      `"${main.name}" is the subject of the main command and cannot be entered`,
      'Remove its "enters", or put the subject that starts first.',
    );
  }
  for (const subject of others) {
    if (subject.enters.length === 0) {
      context.error(
        subject.origin,
        "unreachable",
        `no process can come into the subject "${subject.name}"`,
        'Give it "enters".',
      );
    }
  }
}
