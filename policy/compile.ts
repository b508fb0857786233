// A policy to what the loader applies on this host, or to the rules that cannot be enforced here.

import type { Capability, CreateSandboxRequest } from "../proto/gen/clawsec/v1/loader.js";
import { type Diagnostic, sortDiagnostics } from "./diagnostics.js";
import { canonicalJson } from "./hash.js";
import { lowerFiles } from "./lower/files.js";
import { lowerNetwork } from "./lower/gate.js";
import type { HostView, View } from "./lower/host.js";
import { baseLandlock, landlockAbi } from "./lower/landlock.js";
import { lowerMounts } from "./lower/mounts.js";
import { lowerOci } from "./lower/oci.js";
import { Capabilities, type ExplainRow, Report } from "./lower/report.js";
import { lowerRootfs } from "./lower/rootfs.js";
import { type Architecture, lowerSeccomp } from "./lower/seccomp.js";
import { lowerSubjects } from "./lower/subjects.js";
import type { Policy, SecretItem } from "./model.js";

/** What the host is, as data. */
export interface CompileInputs {
  readonly host: HostView;
  /** From the loader's Hello or Probe. What is not in the list is missing. */
  readonly capabilities: readonly Capability[];
  /** Name of the sandbox: its host name, where the policy has none. */
  readonly name?: string;
  /** Replaces sandbox.command when not empty. */
  readonly command?: readonly string[];
  readonly terminal?: boolean;
  readonly detached?: boolean;
  /** TERM of the caller, for terminals. */
  readonly term?: string;
  readonly epoch?: number;
  /** Host paths that no mount may contain or lie in: clawsec's own runtime and state folders, control sockets. */
  readonly protectedPaths?: readonly string[];
  /** Hard limit of open files on the host; limits.openFiles is cut to it. */
  readonly maxOpenFiles?: number;
  readonly arch?: Architecture;
}

/** A CreateSandboxRequest without what the supervisor adds: the name, and the values of the secrets. */
export type Artefacts = Omit<CreateSandboxRequest, "name" | "secrets">;

export interface CompileResult {
  /** Undefined when there are errors. */
  readonly artefacts: Artefacts | undefined;
  /** Host files whose content becomes `secrets` of the request. */
  readonly secretFiles: readonly SecretItem[];
  readonly explain: readonly ExplainRow[];
  readonly diagnostics: readonly Diagnostic[];
}

const LARGEST_OPEN_FILES = 1_048_576;

/** Lowers a policy. Deterministic: the same policy, host and inputs give the same bytes. */
export function compile(policy: Policy, inputs: CompileInputs): CompileResult {
  const report = new Report();
  const capabilities = new Capabilities(inputs.capabilities);
  const { sandbox } = policy;
  const args = inputs.command !== undefined && inputs.command.length > 0 ? inputs.command : sandbox.command;
  if (args.length === 0 || args[0] === "") {
    report.error(
      "no-command",
      "sandbox",
      "",
      sandbox.origin,
      "there is no command to run",
      'Give one after "--", or write sandbox.command.',
    );
  }
  // What every sandbox stands on, whatever its rules.
  capabilities.need(
    report,
    ["runc", "seccomp.notify", "bpf.exec_verify", "netns.sk_lookup"],
    "sandbox",
    sandbox.origin,
  );
  const abi = landlockAbi(capabilities, sandbox, report);

  const view = lowerMounts(policy, inputs.host, inputs.protectedPaths ?? [], report);
  // With a mount missing, what lies on it is missing too: one message is enough.
  if (!report.failed) checkFolders(policy, view, report);
  explainExec(policy, capabilities, report);
  const files = lowerFiles(policy, view, capabilities, report);
  const network = lowerNetwork(policy, capabilities, report);
  const subjects = lowerSubjects(policy, view, abi, capabilities, report);
  const hostname = sandbox.hostname || inputs.name || policy.name;
  const oci = lowerOci(policy, view, files, {
    hostname,
    terminal: inputs.terminal ?? false,
    term: inputs.term ?? "",
    maxOpenFiles: inputs.maxOpenFiles ?? LARGEST_OPEN_FILES,
  });
  for (const mount of view.mounts) {
    if (mount.kind === "bind")
      report.explain(
        `mount ${mount.target}`,
        mount.mode,
        "mounts",
        `${mount.source} on the host`,
        mount.origin,
      );
  }
  const secretFiles = lowerSecrets(policy, view, capabilities, report);
  const seccomp = lowerSeccomp(inputs.arch ?? "x64", { notifyNames: files.notifyNames });
  const artefacts: Artefacts = {
    ociConfig: Buffer.from(JSON.stringify(oci)),
    rootfs: lowerRootfs(policy, view, hostname),
    seccomp: Buffer.from(JSON.stringify(seccomp)),
    landlock: abi === 0 ? undefined : baseLandlock(view, policy.secrets?.mount, abi),
    subjects,
    tables: {
      epoch: inputs.epoch ?? 1,
      policyHash: policy.hash,
      network,
      fileGuards: [...files.guards],
      exec: undefined,
      facts: undefined,
    },
    args: [...args],
    terminal: inputs.terminal ?? false,
    publish: sandbox.publish.map(({ hostIp, hostPort, sandboxPort }) => ({ hostIp, hostPort, sandboxPort })),
    secretsMount: policy.secrets && {
      path: policy.secrets.mount,
      uid: sandbox.user.uid,
      gid: sandbox.user.gid,
    },
    supervisorGraceMs: sandbox.supervisorGraceMs,
    detached: inputs.detached ?? false,
    nftables: Buffer.alloc(0),
    apparmor: undefined,
  };
  return {
    artefacts: report.failed ? undefined : artefacts,
    secretFiles,
    explain: report.rows,
    diagnostics: sortDiagnostics(report.diagnostics),
  };
}

/** The working directory and the home folder must be there when the command starts. */
function checkFolders(policy: Policy, view: View, report: Report): void {
  const { workspace, home, origin } = policy.sandbox;
  for (const [what, path] of [
    ["workspace", workspace],
    ["home folder", home],
  ] as const) {
    const located = view.locate(path);
    const above = view.mounts.some((m) => m.target !== path && m.target.startsWith(`${path}/`));
    const exists =
      located === undefined ? above : located.kind === "directory" || located.mount.target === path;
    if (exists) continue;
    if (what === "workspace") {
      report.error(
        "missing-path",
        "sandbox",
        "mounts",
        origin,
        `the workspace ${path} does not exist in the sandbox`,
        "Mount a folder there, or name another under sandbox.workspace.",
      );
    } else {
      report.warning(
        "missing-path",
        "sandbox",
        origin,
        `the home folder ${path} does not exist in the sandbox`,
        "Mount a folder (or a tmpfs) there, or name another under sandbox.home.",
      );
    }
  }
}

function explainExec(policy: Policy, capabilities: Capabilities, report: Report): void {
  for (const rule of policy.exec) {
    if (rule.action === "hold") capabilities.need(report, ["ptrace.hold"], rule.id, rule.origin);
    const layer = rule.action === "hold" ? "exec gate, person" : "exec gate";
    const facts = [
      rule.argv === undefined ? "" : "arguments",
      rule.script.length === 0 ? "" : "script",
      rule.cwd.length === 0 ? "" : "working directory",
    ].filter((fact) => fact !== "");
    const looks =
      facts.length === 0 ? "looks at the file only" : `looks at the file and its ${facts.join(", ")}`;
    report.explain(
      rule.id,
      rule.action,
      layer,
      `${looks}; BPF checks that what runs is what was approved`,
      rule.origin,
    );
  }
  if (policy.defaults.exec === "hold")
    capabilities.need(report, ["ptrace.hold"], "exec/default", policy.sandbox.origin);
}

function lowerSecrets(
  policy: Policy,
  view: View,
  capabilities: Capabilities,
  report: Report,
): readonly SecretItem[] {
  const { secrets } = policy;
  if (secrets === undefined) return [];
  const outer = view.mountOf(secrets.mount);
  capabilities.need(report, ["tmpfs.noswap"], "secrets", secrets.origin);
  if (outer !== undefined && (outer.kind !== "tmpfs" || outer.target === secrets.mount)) {
    report.error(
      "mount-point",
      "secrets",
      "mounts",
      secrets.origin,
      `the secrets' folder ${secrets.mount} lies in the mount ${outer.target}`,
      "Use the default /run/secrets/clawsec, or a folder of its own.",
    );
  }
  for (const item of secrets.items) {
    const shown = view.mounts.find(
      (m) => m.kind === "bind" && (item.file === m.source || item.file.startsWith(`${m.source}/`)),
    );
    if (shown !== undefined) {
      report.warning(
        "secret-in-view",
        "secrets",
        item.origin,
        `the secret file ${item.file} lies in the mount source ${shown.source}, where the sandbox can read it`,
        'Keep it elsewhere, or mask it by a rule of "file".',
      );
    }
    report.explain(
      `secret ${item.name}`,
      "provide",
      "secret tmpfs",
      `only as ${secrets.mount}/${item.name}; never in the environment or on disk`,
      item.origin,
    );
  }
  return secrets.items;
}

/**
 * What of `after` cannot be applied to a sandbox that runs with `before`, one sentence each. Empty: only tables and
 * the supervisor's own rules differ, and ApplyPolicy does it in one step.
 */
export function needsRestart(before: Artefacts, after: Artefacts): string[] {
  const parts: readonly (readonly [string, (a: Artefacts) => unknown])[] = [
    ["its mounts, user, environment or limits", (a) => a.ociConfig.toString("base64")],
    [
      "the generated files or mount points",
      (a) => a.rootfs.map((e) => [e.path, e.kind?.$case, String(e.kind?.value)]),
    ],
    ["the system calls that are refused or asked about", (a) => a.seccomp.toString("base64")],
    ["the Landlock ruleset", (a) => a.landlock],
    ["the subjects, their entries or loopback ports", (a) => a.subjects],
    ["the files that are asked about", (a) => a.tables?.fileGuards],
    ["the published ports", (a) => a.publish],
    ["the secrets' folder", (a) => a.secretsMount],
  ];
  return parts
    .filter(([, part]) => canonicalJson(part(before)) !== canonicalJson(part(after)))
    .map(([what]) => `The new policy changes ${what}, which needs a new sandbox.`);
}
