// The section "sandbox".

import * as n from "./names.js";
import {
  bool,
  duration,
  integer,
  list,
  type Mapping,
  mapping,
  names,
  path,
  plain,
  size,
  text,
  word,
} from "./shape.js";

export const USER: Mapping = {
  name: "user",
  doc: "As whom the command runs. Never 0.",
  keys: {
    uid: { doc: "User id, never 0.", type: integer(1, n.LARGEST_ID), default: 1000 },
    gid: { doc: "Group id, never 0.", type: integer(1, n.LARGEST_ID), default: 1000 },
    name: { doc: "User name.", type: text(n.USER_NAME), default: "agent" },
  },
};

export const MOUNT: Mapping = {
  name: "mount",
  doc: "Something of the host that exists in the sandbox, or a tmpfs.",
  keys: {
    type: { doc: "`bind` shows a path of the host.", type: word(["bind", "tmpfs"]), default: "bind" },
    source: { doc: "Path on the host. It must exist, unless `optional: true`.", type: path },
    target: { doc: "Path in the sandbox; without it, the source's.", type: path },
    mode: { doc: "Read-only or writable.", type: word(["ro", "rw"]), default: "ro" },
    exec: {
      doc: "Whether anything on it can be executed; without it, true for `bind` and false for `tmpfs`.",
      type: bool,
    },
    optional: { doc: "A missing source is skipped.", type: bool, default: false },
    size: { doc: "Size of a tmpfs.", type: size, example: "512Mi" },
  },
  constraints: [
    {
      if: { required: ["type"], properties: { type: { const: "tmpfs" } } },
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema.
      then: { required: ["target"], properties: { source: false, optional: false, mode: false } },
    },
    {
      if: { properties: { type: { const: "bind" } } },
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema.
      then: { required: ["source"], properties: { size: false } },
    },
  ],
};

export const LIMITS: Mapping = {
  name: "limits",
  doc: "How much the sandbox may use.",
  keys: {
    memory: { doc: "Memory.", type: size, default: "2Gi" },
    pids: { doc: "Processes and threads.", type: integer(2, 4_194_304), default: 512 },
    cpus: { doc: "CPUs, also parts of one.", type: { kind: "number", min: 0.01, max: 1024 }, default: 2 },
    openFiles: { doc: "Open files of each process.", type: integer(16, 1_048_576), default: 4096 },
    tmpfs: {
      doc: "Size of each of `/tmp`, `/var/tmp`, `/run` and `/dev/shm`.",
      type: size,
      default: "512Mi",
    },
  },
};

export const PUBLISH: Mapping = {
  name: "publish",
  doc: "A port of the sandbox that the host can connect to.",
  keys: {
    host: {
      doc: "Address and port on the host; port 0 takes a free one. Other addresses than loopback are warned about.",
      type: plain(/^(?:\[[0-9a-fA-F:.]+\]:|[0-9.]+:)?[0-9]{1,5}$/),
      required: true,
      example: "127.0.0.1:18789",
    },
    sandbox: { doc: "Port in the sandbox.", type: integer(1, 65535), required: true, example: 18789 },
  },
};

export const HEALTH_CHECK: Mapping = {
  name: "healthCheck",
  doc: "A command that says whether the sandbox's main command does what it should: 0 is yes, anything else is no.",
  keys: {
    command: {
      doc: "What is run in the sandbox, as `clawsec exec` runs it: under the same rules. Required, here or in a policy that this one extends. An empty list: nothing is checked.",
      type: list(plain()),
      example: ["/usr/bin/curl", "-f", "http://127.0.0.1:8080/health"],
    },
    subject: {
      doc: "Whose rules it has; without it, those of the main command.",
      type: text(n.SUBJECT_NAME),
    },
    interval: {
      doc: "How long after the start the first check begins, and each other one after the end of the one before.",
      type: duration,
      default: "30s",
    },
    timeout: {
      doc: "How long a check may take; then it is killed, and counts as failed.",
      type: duration,
      default: "30s",
    },
    retries: {
      doc: "After how many failed checks in a row the sandbox is unhealthy. One that the policy denies counts for all of them.",
      type: integer(1, n.MAX_RETRIES),
      default: 3,
    },
    startPeriod: {
      doc: "How long after the start failed checks do not count, unless one has succeeded; without it, all count.",
      type: duration,
      example: "1m",
    },
  },
};

export const SANDBOX: Mapping = {
  name: "sandbox",
  doc: "What exists in the sandbox, and as whom and with how much its command runs.",
  keys: {
    backend: { doc: "What sets the sandbox up.", type: word(["runc"]), default: "runc" },
    command: {
      doc: "The main command; `clawsec run --policy FILE -- COMMAND` replaces it.",
      type: list(plain()),
    },
    user: { doc: USER.doc, type: mapping(USER) },
    home: { doc: "`$HOME`.", type: path, default: "/home/agent" },
    workspace: { doc: "Working directory of the command; without it, `home`.", type: path },
    hostname: { doc: "Without it, the sandbox's name.", type: text(n.HOSTNAME) },
    environment: {
      doc: "Added to `PATH`, `HOME`, `USER`, `LOGNAME` (and `TERM` on a terminal). Nothing of your own environment gets in. `LD_*` is refused.",
      type: names(plain(), /^(?!LD_|DYLD_)[A-Za-z_][A-Za-z0-9_]*$/),
    },
    mounts: {
      doc: "What exists. Required, here or in a policy that this one extends.",
      type: list(mapping(MOUNT)),
    },
    limits: { doc: LIMITS.doc, type: mapping(LIMITS) },
    publish: { doc: "Ports that the host can connect to.", type: list(mapping(PUBLISH)) },
    healthCheck: { doc: HEALTH_CHECK.doc, type: mapping(HEALTH_CHECK) },
    supervisorGrace: {
      doc: "How long a question waits for a supervisor that is away, before it is denied.",
      type: duration,
      default: "10s",
    },
  },
};
