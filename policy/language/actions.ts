// Actions as examples and tests write them, and the test file.

import * as n from "./names.js";
import {
  either,
  integer,
  list,
  type Mapping,
  mapping,
  names,
  oneKey,
  path,
  plain,
  type Shape,
  some,
  text,
  word,
} from "./shape.js";

const WHOSE = { doc: "Whose action it is; without it, the first subject's.", type: text(/^[\s\S]/) };

export const EXEC_ACTION: Mapping = {
  name: "execAction",
  doc: "The start of a program.",
  keys: {
    executable: {
      doc: "The file that the kernel loads.",
      type: path,
      required: true,
      example: "/usr/bin/git",
    },
    argv: {
      doc: "All arguments, or one text that is split like a shell splits words. Without it, the program's name alone.",
      type: either(list(plain()), text()),
      example: "git push",
    },
    script: { doc: "The file with the `#!` line, or that an interpreter is given.", type: path },
    code: {
      doc: "What the interpreter runs. Without it, `file` when there is a script; else the program is no interpreter.",
      type: word(n.CODES),
    },
    loader: {
      doc: "The dynamic loader, where it was called by its own name to run `executable`.",
      type: path,
    },
    cwd: { doc: "Working directory; without it, the workspace.", type: path },
    environment: { doc: "Names of the environment variables that are set.", type: some(text(/^[\s\S]/)) },
    parent: { doc: "The program that calls. Without `parent` and `ancestors`, nobody knows.", type: path },
    ancestors: { doc: "The programs that led to the caller, nearest first.", type: list(path) },
    sha256: { doc: "SHA-256 of the script, or of the executable when there is none.", type: plain(n.SHA256) },
    kind: { doc: "What kind of file it is.", type: word(n.KINDS), default: "file" },
    subject: WHOSE,
  },
};

export const FILE_ACTION: Mapping = {
  name: "fileAction",
  doc: "An operation on a file.",
  keys: {
    operation: { doc: "What is done.", type: word(n.ASKED_OPERATIONS), required: true },
    path: { doc: "On what.", type: path, required: true },
    target: { doc: "The other name, for `rename` and `link`.", type: path },
    owner: {
      doc: "Owner of the file: `root`, `user` (the sandbox's) or a uid.",
      type: either(word(["root", "user"]), integer(0, n.LARGEST_ID)),
      default: "user",
    },
    subject: WHOSE,
  },
};

export const NETWORK_ACTION: Mapping = {
  name: "networkAction",
  doc: "A connection.",
  keys: {
    host: { doc: "The name that was looked up.", type: text(/^[\s\S]/), example: "example.com" },
    address: { doc: "The literal address.", type: text(/^[0-9A-Fa-f:.]+$/), example: "192.0.2.1" },
    port: { doc: "The port.", type: integer(1, 65535), required: true, example: 443 },
    protocol: { doc: "What the first bytes are; without it, none have come.", type: word(n.PROTOCOLS) },
    method: { doc: "The method of an HTTP request.", type: text(n.METHOD) },
    path: { doc: "The path of an HTTP request, without its query.", type: text(/^\/[^\s?]*$/) },
    subject: WHOSE,
  },
  constraints: [oneKey(["host", "address"])],
};

const action = (declared: Mapping): Shape => either(text(), mapping(declared));

export const EXPECT: Mapping = {
  name: "expect",
  doc: "What the evaluation must say; what is not named can be anything.",
  keys: {
    verdict: { doc: "The verdict.", type: word(n.ACTIONS) },
    rule: { doc: "The rule that decides.", type: text(), example: "exec/git-push" },
    layer: { doc: "The layer that enforces it.", type: text() },
    subject: { doc: "The subject that the exec enters.", type: text() },
    observed: { doc: "What an observing rule, or policy, would have decided.", type: word(n.ACTIONS) },
  },
  constraints: [{ minProperties: 1 }],
};

export const CASE: Mapping = {
  name: "case",
  doc: "An action, and what the policy says to it.",
  keys: {
    name: { doc: "Its name, unique in the file.", type: text(/^[\s\S]/), required: true },
    exec: {
      doc: "The start of a program, as a command line or a mapping.",
      type: action(EXEC_ACTION),
      example: "/usr/bin/git push",
    },
    file: {
      doc: "An operation on a file, as text or a mapping.",
      type: action(FILE_ACTION),
      example: "delete /work/x",
    },
    network: {
      doc: "A connection, as text or a mapping.",
      type: action(NETWORK_ACTION),
      example: "example.com:443",
    },
    subject: { doc: "Whose action it is.", type: text(/^[\s\S]/) },
    at: { doc: "When it happens, with its zone.", type: text(n.TIME), example: "2026-11-22T10:00:00Z" },
    expect: {
      doc: "A verdict, or a mapping that says more.",
      type: either(word(n.ACTIONS), mapping(EXPECT)),
      required: true,
      example: "deny",
    },
  },
  constraints: [oneKey(["exec", "file", "network"])],
};

export const POLICY_TEST: Mapping = {
  name: "policyTest",
  doc: "Cases of a policy: actions, and what the policy says to them.",
  keys: {
    apiVersion: {
      doc: "Version of the language.",
      type: { kind: "word", words: ["clawsec/v1"], literal: true },
      required: true,
    },
    kind: {
      doc: "What the file is.",
      type: { kind: "word", words: ["PolicyTest"], literal: true },
      required: true,
    },
    policy: {
      doc: "The policy: a path relative to this file, or `builtin:NAME`.",
      type: text(/^[\s\S]/),
      required: true,
      example: "./policy.yaml",
    },
    variables: {
      doc: "Values for the policy's variables. The cases can use them, too.",
      type: names(plain(), /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/),
    },
    cases: { doc: "The cases.", type: list(mapping(CASE)), required: true },
  },
};
