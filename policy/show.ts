// An effective policy as one flat YAML text: everything filled in, nothing extended, each rule with where it is
// written. Reading it again gives a policy with the same hash. Examples in rules are left out: they have been run.

import { Document, isMap } from "yaml";
import { formatPolicy } from "./format.js";
import { DAYS } from "./language/names.js";
import type {
  ArgvPattern,
  ExecRule,
  FileRule,
  HealthCheck,
  HoldTerms,
  Mount,
  NetworkRule,
  Policy,
  RuleBase,
  SubjectModel,
  SubjectTree,
  TimeWindow,
} from "./model.js";
import { comment, line } from "./show-notes.js";

/** Renders a policy. Deterministic; ends with a line break. */
export function renderPolicy(policy: Policy): string {
  const document = new Document(escaped(flat(policy)));
  const top = document.contents;
  if (isMap(top)) comment(top, policy);
  const layers = policy.layers.map(({ reference }) => reference);
  document.commentBefore = line(
    ` The effective policy of ${layers.at(-1) ?? policy.sourceFile}, hash ${policy.hash}.`,
  );
  if (layers.length > 1)
    document.commentBefore += `\n${line(` It extends ${layers.slice(0, -1).reverse().join(", ")}.`)}`;
  const text = document.toString({ lineWidth: 0 });
  return formatPolicy(text, policy.sourceFile).text ?? text;
}

type Members = Readonly<Record<string, unknown>>;

function flat(policy: Policy): Members {
  const { sandbox, secrets } = policy;
  return present({
    apiVersion: policy.apiVersion,
    kind: "Policy",
    metadata: present({ name: policy.name, description: policy.description || undefined }),
    mode: policy.mode === "observe" ? "observe" : undefined,
    waive: some(policy.waive.map(({ name, reason }) => ({ name, reason }))),
    sandbox: present({
      backend: sandbox.backend,
      command: some(sandbox.command),
      user: sandbox.user,
      home: sandbox.home,
      workspace: sandbox.workspace,
      hostname: sandbox.hostname || undefined,
      environment: Object.keys(sandbox.environment).length === 0 ? undefined : sandbox.environment,
      mounts: sandbox.mounts.map(mount),
      limits: {
        memory: bytes(sandbox.limits.memoryBytes),
        pids: sandbox.limits.pids,
        cpus: sandbox.limits.milliCpus / 1000,
        openFiles: sandbox.limits.openFiles,
        tmpfs: bytes(sandbox.limits.tmpfsBytes),
      },
      publish: some(
        sandbox.publish.map(({ hostIp, hostPort, sandboxPort }) => ({
          host: `${hostIp.includes(":") ? `[${hostIp}]` : hostIp}:${hostPort}`,
          sandbox: sandboxPort,
        })),
      ),
      healthCheck: sandbox.healthCheck && healthCheck(sandbox.healthCheck),
      supervisorGrace: duration(sandbox.supervisorGraceMs),
    }),
    subjects: policy.subjects.map(subject),
    defaults: policy.defaults,
    approvals: hold(policy.approvals),
    exec: some(policy.exec.map(execRule)),
    file: some(policy.file.map(fileRule)),
    network: some(policy.network.map(networkRule)),
    secrets: secrets && {
      mount: secrets.mount,
      items: secrets.items.map(({ name, file }) => ({ name, file })),
    },
    resolver: Object.keys(policy.resolverHosts).length === 0 ? undefined : { hosts: policy.resolverHosts },
  });
}

function mount(m: Mount): Members {
  if (m.kind === "tmpfs") return { type: "tmpfs", target: m.target, exec: m.exec, size: bytes(m.sizeBytes) };
  return present({
    source: m.source,
    target: m.target === m.source ? undefined : m.target,
    mode: m.mode,
    exec: m.exec ? undefined : false,
    optional: m.optional || undefined,
  });
}

function healthCheck(check: HealthCheck): Members {
  return present({
    command: check.command,
    subject: check.subject,
    interval: duration(check.intervalMs),
    timeout: duration(check.timeoutMs),
    retries: check.retries,
    startPeriod: check.startPeriodMs === 0 ? undefined : duration(check.startPeriodMs),
  });
}

function subject(s: SubjectModel): Members {
  const trees = (list: readonly SubjectTree[]) =>
    list.map(({ path, optional }) => (optional ? { path, optional } : path));
  return present({
    name: s.name,
    enters: some(
      s.enters.map((way) =>
        present({
          from: oneOf(way.from),
          executable: some(way.executable),
          script: some(way.script),
          argv: argv(way.argv),
        }),
      ),
    ),
    entry: s.entry && { path: s.entry.path, exec: s.entry.exec },
    files: s.files && { read: trees(s.files.read), write: trees(s.files.write), exec: trees(s.files.exec) },
    loopback: s.loopback === "any" ? "any" : s.loopback.length === 0 ? undefined : { ports: s.loopback },
  });
}

function ruleHead(rule: RuleBase): Members {
  return {
    id: rule.id.slice(rule.id.indexOf("/") + 1),
    locked: rule.locked || undefined,
    mode: rule.mode === "observe" ? "observe" : undefined,
    subject: oneOf(rule.subjects),
  };
}

function ruleTail(rule: RuleBase): Members {
  const when = rule.when.map(window);
  return {
    when: when.length === 1 ? when[0] : oneOf(when),
    rate: rule.rate && { max: rule.rate.max, per: duration(rule.rate.perMs) },
    action: rule.action,
    hold: rule.hold && hold(rule.hold),
    message: rule.message || undefined,
    because: rule.because || undefined,
    severity: rule.severity === "info" ? undefined : rule.severity,
    tags: oneOf(rule.tags),
  };
}

function execRule(rule: ExecRule): Members {
  return present({
    ...ruleHead(rule),
    executable: oneOf(rule.executable),
    sha256: oneOf(rule.sha256),
    script: oneOf(rule.script),
    inWorkspace: rule.inWorkspace,
    code: oneOf(rule.code),
    argv: argv(rule.argv),
    cwd: oneOf(rule.cwd),
    environment: oneOf(rule.environment),
    parent: oneOf(rule.parent),
    ancestor: oneOf(rule.ancestor),
    category: oneOf(rule.category),
    kind: isDefaultKind(rule) ? undefined : oneOf(rule.kinds),
    ...ruleTail(rule),
  });
}

function fileRule(rule: FileRule): Members {
  return present({
    ...ruleHead(rule),
    path: oneOf(rule.path),
    operations: oneOf(rule.operations),
    owner: oneOf(rule.owner),
    optional: rule.optional || undefined,
    ...ruleTail(rule),
  });
}

function networkRule(rule: NetworkRule): Members {
  return present({
    ...ruleHead(rule),
    host: oneOf(rule.host),
    cidr: oneOf(rule.cidr),
    ports: oneOf(rule.ports.map(({ first, last }) => (first === last ? first : `${first}-${last}`))),
    protocol: oneOf(rule.protocols),
    method: oneOf(rule.methods),
    path: oneOf(rule.paths),
    resolvesTo: oneOf(rule.resolvesTo),
    ...ruleTail(rule),
  });
}

function argv(pattern: ArgvPattern | undefined): unknown {
  if (pattern === undefined) return undefined;
  const flags = (list: readonly (readonly string[])[]) => some(list.map((names) => names.join("|")));
  const { glob, exact, prefix, regex, valued } = pattern;
  const more = present({
    exact,
    prefix,
    regex: some(regex),
    flags: flags(pattern.flags),
    without: flags(pattern.without),
    valued: some(valued),
  });
  if (glob !== undefined && Object.keys(more).length === 0) return glob;
  return present({ glob, ...more });
}

function window({ days, fromMinute, toMinute, timeZone }: TimeWindow): Members {
  const clock = (minute: number) =>
    `${String(Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}`;
  return { days: days.map((day) => DAYS[day]), from: clock(fromMinute), to: clock(toMinute), timeZone };
}

function hold({ timeoutMs, onTimeout }: HoldTerms): Members {
  return { timeout: duration(timeoutMs), default: onTimeout };
}

function duration(ms: number): string {
  for (const [unit, size] of [
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1000],
  ] as const)
    if (ms % size === 0) return `${ms / size}${unit}`;
  return `${ms}ms`;
}

function bytes(size: number): string | number {
  for (const [unit, power] of [
    ["Gi", 30],
    ["Mi", 20],
    ["Ki", 10],
  ] as const)
    if (size % 2 ** power === 0) return `${size / 2 ** power}${unit}`;
  return size;
}

function some<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

/** As keys take it that have one value or more. */
function oneOf<T>(list: readonly T[]): T | readonly T[] | undefined {
  return list.length === 1 ? list[0] : some(list);
}

/** What an exec rule has when it says no kind. */
function isDefaultKind({ action, kinds }: ExecRule): boolean {
  return action === "deny" ? kinds.join() === "file,anonymous,deleted" : kinds.join() === "file";
}

function present(members: Members): Members {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}

/** "$" as the language writes it; keys have no variables. */
function escaped(value: unknown): unknown {
  if (typeof value === "string") return value.replaceAll("$", "$$$$");
  if (Array.isArray(value)) return value.map(escaped);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, escaped(member)]));
}
