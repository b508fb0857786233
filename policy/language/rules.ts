// The rules of "exec", "file" and "network".

import { CATEGORIES } from "../categories.js";
import { EXEC_ACTION, FILE_ACTION, NETWORK_ACTION } from "./actions.js";
import * as n from "./names.js";
import { ARGV_SHAPE, HOLD, RATE, WINDOW } from "./parts.js";
import {
  among,
  anyKey,
  bool,
  either,
  integer,
  type Key,
  type Mapping,
  mapping,
  oneKey,
  pathPattern,
  plain,
  port,
  some,
  subject,
  text,
  when,
  word,
} from "./shape.js";

const STRICT = ["deny", "hold"];

function rule(
  section: string,
  doc: string,
  action: Mapping,
  keys: Record<string, Key>,
  constraints: Mapping["constraints"],
): Mapping {
  const examples = some(either(text(), mapping(action), mapping(wrapped(section, action))));
  return {
    name: `${section}Rule`,
    doc,
    keys: {
      id: {
        doc: `Its name, unique in its section; verdicts speak of \`${section}/ID\`.`,
        type: text(n.RULE_ID),
        required: true,
      },
      action: {
        doc: "What it says: `allow`, `deny`, `hold` (a person is asked) or `log` (goes on, and is marked in the audit).",
        type: word(n.ACTIONS),
        required: true,
      },
      subject: { doc: "One subject or a list; without it, all.", type: subject },
      message: { doc: "What the caller is told on a denial.", type: text(/^[\s\S]/) },
      because: { doc: "Why the rule is there, for the person who is asked.", type: text(/^[\s\S]/) },
      hold: {
        doc: "How long it waits and what then, for `action: hold`; what is missing comes from `approvals`.",
        type: mapping(HOLD),
      },
      mode: {
        doc: "`observe`: what the rule would have done is recorded, and the rules after it decide.",
        type: word(n.MODES),
        default: "enforce",
      },
      locked: {
        doc: "A floor, for `deny` and `hold`: whatever other rules say, what it matches is at least that strict, and no policy that extends this one can replace, observe or waive it.",
        type: bool,
        default: false,
      },
      severity: {
        doc: "For whoever reads the audit; it decides nothing.",
        type: word(n.SEVERITIES),
        default: "info",
      },
      tags: {
        doc: "Words for the audit: `clawsec audit search --tag secrets`.",
        type: some(text(n.RULE_ID)),
        example: ["credentials"],
      },
      when: { doc: "Times of the week in which it holds; without it, always.", type: some(mapping(WINDOW)) },
      rate: { doc: "How often it matches at most. Not for `deny`.", type: mapping(RATE) },
      match: {
        doc: "Examples of actions that the rule matches. A policy with a wrong one does not load.",
        type: examples,
      },
      notMatch: { doc: "Examples of actions that the rule does not match.", type: examples },
      ...keys,
    },
    constraints: [
      when("hold", among("action", ["hold"])),
      when("rate", among("action", ["allow", "hold", "log"])),
      {
        if: { required: ["locked"], properties: { locked: { const: true } } },
        // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema.
        then: { allOf: [among("action", STRICT), among("mode", ["enforce"])] },
      },
      ...(constraints ?? []),
    ],
  };
}

function wrapped(section: string, action: Mapping): Mapping {
  return {
    name: `${section}Example`,
    doc: `An action, with its section's name.`,
    keys: { [section]: { doc: "The action.", type: either(text(), mapping(action)), required: true } },
  };
}

const CATEGORY = CATEGORIES.length > 0 ? word(CATEGORIES) : text(n.RULE_ID);

export const EXEC_RULE = rule(
  "exec",
  "A rule about starting programs. The first rule that matches decides.",
  EXEC_ACTION,
  {
    executable: {
      doc: "Patterns for the file that the kernel loads. For a script, that is its interpreter.",
      type: some(pathPattern),
      example: "/usr/bin/git",
    },
    sha256: {
      doc: "One or more hashes of the content of the executable or the script.",
      type: some(plain(n.SHA256)),
    },
    script: {
      doc: "Patterns for the script: the file with the `#!` line, or that a known interpreter is given (`sh FILE`). Where its interpreter is a script itself, that one counts, too: one is enough to restrict, all must match to permit.",
      type: some(pathPattern),
    },
    inWorkspace: {
      doc: "`true`: the executable or the script lies in `sandbox.workspace`; `false`: neither does.",
      type: bool,
    },
    code: {
      doc: "What a known interpreter runs: `file`, `inline` (`sh -c`, `node -e`), `module` (`python -m`, `node --test`), `stream` (standard input, a pipe, a terminal).",
      type: some(word(n.CODES)),
    },
    argv: {
      doc: "Arguments, as the caller wrote them: a list of patterns, or a mapping.",
      type: ARGV_SHAPE,
      example: ["*", "push", "**"],
    },
    cwd: { doc: "Patterns for the working directory.", type: some(pathPattern) },
    environment: {
      doc: "Patterns for names of environment variables of which one is set. Their values are not looked at.",
      type: some(plain(/^[^=]+$/)),
      example: "LD_*",
    },
    parent: { doc: "Patterns for the program that calls.", type: some(pathPattern) },
    ancestor: {
      doc: "Patterns, of which one program that led to the caller, or the caller's own, must match. By exec and fork as they happened: that a parent has died changes nothing.",
      type: some(pathPattern),
    },
    category: {
      doc: "Categories of commands. The catalogue is empty in this version, so every name is an error.",
      type: some(CATEGORY),
    },
    kind: {
      doc: "What the file is: `anonymous` is a memfd, `deleted` one that has lost its name. Without it, `file`; for `deny`, all three.",
      type: some(word(n.KINDS)),
    },
  },
  [anyKey(n.SELECTORS)],
);

export const FILE_RULE = rule(
  "file",
  "A rule about files. Mounts say what exists; file rules take away from it, or ask.",
  FILE_ACTION,
  {
    path: {
      doc: "One or more; without a pattern, the path and everything below.",
      type: some(pathPattern),
      required: true,
      example: "**/.env",
    },
    operations: {
      doc: "What is done.",
      type: some(word(n.OPERATIONS)),
      required: true,
      example: ["read", "write"],
    },
    owner: {
      doc: "Whose file it is: `root`, `user` (the sandbox's), or uids. Only where opens are asked about.",
      type: some(either(word(["root", "user"]), integer(0, n.LARGEST_ID))),
    },
    optional: {
      doc: "A path that does not exist is no error. It is then not guarded: the sandbox may make it.",
      type: bool,
      default: false,
    },
  },
  [],
);

export const NETWORK_RULE = rule(
  "network",
  "A rule about connections. Only TCP leaves a sandbox, and only through the gate.",
  NETWORK_ACTION,
  {
    host: {
      doc: "Host patterns: `x.com`, `*.x.com` (every name below), `*` (any name, no literal address). This or `cidr`.",
      type: some(text(/^[^\s/:]+$/)),
      example: "*.example.com",
    },
    cidr: {
      doc: "Ranges for connections to literal addresses.",
      type: some(text(/^[0-9A-Fa-f:.]+(?:\/[0-9]{1,3})?$/)),
      example: "192.0.2.0/24",
    },
    port: { doc: "One or more ports or ranges; without it, all.", type: some(port), example: 443 },
    ports: { doc: "The same as `port`.", type: some(port), example: [80, "8000-8080"] },
    protocol: {
      doc: "What the first bytes of the connection are; without it, any.",
      type: some(word(n.PROTOCOLS)),
    },
    method: {
      doc: "HTTP methods, for plain HTTP; without it, any.",
      type: some(text(n.METHOD)),
      example: "GET",
    },
    path: {
      doc: "Patterns for the path of an HTTP request, without its query, for plain HTTP.",
      type: some(pathPattern),
      example: "/v1/**",
    },
    resolvesTo: {
      doc: "Ranges in which the name's address may lie although they are private, loopback, link-local or reserved. Without it such an answer is refused. It holds for what this rule permits, whichever rule made the gate ask.",
      type: some(text(/^[0-9A-Fa-f:.]+(?:\/[0-9]{1,3})?$/)),
    },
  },
  [
    oneKey(["host", "cidr"]),
    { not: { required: ["port", "ports"] } },
    { not: { required: ["cidr", "resolvesTo"] } },
    {
      if: anyKey(["method", "path"]),
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema.
      then: { properties: { protocol: { not: { enum: ["tls", "other"] } } } },
    },
  ],
);
