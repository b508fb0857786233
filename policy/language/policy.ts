// The policy file, and its sections but the rules.

import * as n from "./names.js";
import { ARGV_SHAPE, HOLD } from "./parts.js";
import { EXEC_RULE, FILE_RULE, NETWORK_RULE } from "./rules.js";
import { SANDBOX } from "./sandbox.js";
import {
  anyKey,
  bool,
  either,
  integer,
  list,
  type Mapping,
  mapping,
  names,
  path,
  pathPattern,
  plain,
  some,
  subject,
  text,
  word,
} from "./shape.js";

export const METADATA: Mapping = {
  name: "metadata",
  doc: "What the policy is called.",
  keys: {
    name: {
      doc: "At most 40 lower-case letters, digits and `-`.",
      type: text(n.POLICY_NAME),
      required: true,
    },
    description: { doc: "One line about it.", type: text() },
  },
};

export const WAIVER: Mapping = {
  name: "waiver",
  doc: "Something that a host may lack.",
  keys: {
    name: {
      doc: "A rule, e.g. `file/dotenv`, or a mechanism: `landlock`, `nftables`, `tmpfs.noswap`, `fanotify.perm`, `apparmor`, `cgroup.memory`, `cgroup.pids` or `cgroup.cpu`.",
      type: text(n.WAIVER_NAME),
      required: true,
    },
    reason: {
      doc: "Why this host may lack it; it is said at each start.",
      type: text(/^[\s\S]/),
      required: true,
    },
  },
};

export const TRANSITION: Mapping = {
  name: "transition",
  doc: "A way into the subject: an exec by one of `from` that matches.",
  keys: {
    from: { doc: "Whose exec it is.", type: subject, required: true },
    executable: { doc: "Patterns for the file that the kernel loads.", type: some(pathPattern) },
    script: { doc: "Patterns for the file with the `#!` line.", type: some(pathPattern) },
    argv: { doc: "Arguments, as in rules.", type: ARGV_SHAPE },
  },
  constraints: [anyKey(["executable", "script"])],
};

export const ENTRY: Mapping = {
  name: "entry",
  doc: "clawsec's shim, which narrows what is seen and then runs a program.",
  keys: {
    path: {
      doc: "Where the shim is, in `/.clawsec/`.",
      type: text(/^\/\.clawsec\//),
      required: true,
      example: "/.clawsec/bash",
    },
    exec: { doc: "The program that it runs.", type: path, required: true, example: "/usr/bin/bash" },
  },
};

export const TREE: Mapping = {
  name: "tree",
  doc: "A path with all below it.",
  keys: {
    path: { doc: "The path in the sandbox.", type: path, required: true },
    optional: { doc: "A missing path is no error.", type: bool, default: false },
  },
};

const TREES = list(either(path, mapping(TREE)));

export const FILES: Mapping = {
  name: "files",
  doc: "Trees that the subject may read, write and execute (Landlock).",
  keys: {
    read: { doc: "May be read.", type: TREES },
    write: { doc: "May be read and written.", type: TREES },
    exec: { doc: "May be executed.", type: TREES },
  },
};

export const LOOPBACK: Mapping = {
  name: "loopback",
  doc: "Ports inside the sandbox that the subject may connect to.",
  keys: { ports: { doc: "The ports.", type: list(integer(1, 65535)), required: true } },
};

export const SUBJECT: Mapping = {
  name: "subject",
  doc: "A set of processes that rules can name. The first is that of the main command.",
  keys: {
    name: { doc: "Its name.", type: text(n.SUBJECT_NAME), required: true },
    enters: {
      doc: "Ways in: an exec by one of `from` with this `executable` (and `script`, `argv`). The exec must also be allowed by a rule. Children stay in the subject, and no way leads back: a cycle is an error.",
      type: list(mapping(TRANSITION)),
    },
    entry: {
      doc: "clawsec's shim, mounted at `path`, runs `exec` in its place, after it has narrowed what is seen. Then it must be the only way in.",
      type: mapping(ENTRY),
    },
    files: {
      doc: "Trees that the subject may read, write, execute (Landlock). Without an `entry` nobody could narrow, and it is an error. `/dev`, `/proc` (to read), `/etc` and the shim are always there; with `files`, everything else is not.",
      type: mapping(FILES),
    },
    loopback: {
      doc: "`any`, or the ports inside the sandbox that it may connect to; without it, none. The subject `main` of a policy without `subjects` has `any`.",
      type: either(word(["any"]), mapping(LOOPBACK)),
    },
  },
  constraints: [{ dependentRequired: { files: ["entry"] } }],
};

export const DEFAULTS: Mapping = {
  name: "defaults",
  doc: "What happens when no rule matches.",
  keys: {
    exec: { doc: "Starting programs.", type: word(n.ACTIONS), default: "deny" },
    file: { doc: "What no mount grants does not exist.", type: word(["deny"]), default: "deny" },
    network: { doc: "Connections.", type: word(n.ACTIONS), default: "deny" },
  },
};

export const SECRET: Mapping = {
  name: "secret",
  doc: "A file in the sandbox with a value from the host.",
  keys: {
    name: { doc: "Its file name.", type: text(n.SECRET_NAME), required: true },
    file: { doc: "File on the host that holds the value.", type: path, required: true },
  },
};

export const SECRETS: Mapping = {
  name: "secrets",
  doc: "Values that become files, and are emptied when the sandbox is killed.",
  keys: {
    mount: { doc: "Folder in the sandbox.", type: path, default: "/run/secrets/clawsec" },
    items: { doc: "The values.", type: list(mapping(SECRET)) },
  },
};

export const RESOLVER: Mapping = {
  name: "resolver",
  doc: "How names are resolved.",
  keys: {
    hosts: {
      doc: "Names that are resolved here instead of by the host.",
      type: names(text(/^[0-9A-Fa-f:.]+$/)),
      example: { "model.test": "192.0.2.10" },
    },
  },
};

export const POLICY: Mapping = {
  name: "policy",
  doc: "What exists in a sandbox, who runs in it, and what each of them may execute, touch and reach.",
  keys: {
    apiVersion: {
      doc: "Version of the language.",
      type: { kind: "word", words: ["clawsec/v1"], literal: true },
      required: true,
    },
    kind: {
      doc: "What the file is.",
      type: { kind: "word", words: ["Policy"], literal: true },
      required: true,
    },
    metadata: { doc: METADATA.doc, type: mapping(METADATA), required: true },
    extends: {
      doc: "Policies that this one stands on: `builtin:NAME`, or paths from the folder of the file. What is nearer wins.",
      type: some({ kind: "text", pattern: /^(?:[^$]|\$(?!\{))+$/, literal: true }),
      example: ["builtin:openclaw", "./team.yaml"],
    },
    mode: {
      doc: "`observe`: every rule but the locked ones, and the defaults, only record what they would have done.",
      type: word(n.MODES),
      default: "enforce",
    },
    waive: { doc: "What this host may lack.", type: list(mapping(WAIVER)) },
    variables: {
      doc: "`${name}` in a value is replaced. One without a value must be given by whoever runs the policy.",
      type: names(either(plain(), { kind: "nothing" }), /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/),
    },
    sandbox: { doc: SANDBOX.doc, type: mapping(SANDBOX) },
    subjects: {
      doc: "Sets of processes that rules can name; without the section there is one, `main`.",
      type: list(mapping(SUBJECT), 1),
    },
    defaults: { doc: DEFAULTS.doc, type: mapping(DEFAULTS) },
    exec: {
      doc: "Rules about starting programs. The first that matches decides.",
      type: list(mapping(EXEC_RULE)),
    },
    file: { doc: "Rules about files. The first that matches decides.", type: list(mapping(FILE_RULE)) },
    network: {
      doc: "Rules about connections. The first that matches decides.",
      type: list(mapping(NETWORK_RULE)),
    },
    secrets: { doc: SECRETS.doc, type: mapping(SECRETS) },
    approvals: { doc: "How long a hold waits, and what then.", type: mapping(HOLD) },
    resolver: { doc: RESOLVER.doc, type: mapping(RESOLVER) },
  },
  constraints: [anyKey(["sandbox", "extends"])],
};
