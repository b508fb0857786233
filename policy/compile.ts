// A policy to what the loader applies on this host, or to the rules that cannot be enforced here.

import type { Capability, CreateSandboxRequest } from "../proto/gen/clawsec/v1/loader.js";
import { type Diagnostic, sortDiagnostics } from "./diagnostics.js";
import { lowerApparmor } from "./lower/apparmor.js";
import { lowerExec } from "./lower/exec-table.js";
import { lowerFiles } from "./lower/files.js";
import { lowerNetwork } from "./lower/gate.js";
import type { HostView, View } from "./lower/host.js";
import { baseLandlock, landlockAbi } from "./lower/landlock.js";
import { lowerMounts } from "./lower/mounts.js";
import { nftablesRuleset } from "./lower/nftables.js";
import { lowerOci } from "./lower/oci.js";
import { Capabilities, type ExplainRow, everyCapability, REQUIRED, Report } from "./lower/report.js";
import { lowerRootfs } from "./lower/rootfs.js";
import { type Architecture, lowerSeccomp } from "./lower/seccomp.js";
import { lowerSubjects } from "./lower/subjects.js";
import type { Policy, SecretItem } from "./model.js";

export { artefactFiles } from "./lower/output.js";
export { needsRestart } from "./lower/restart.js";

/** What the host is, as data. */
export interface CompileInputs {
  readonly host: HostView;
  /** From the loader's Hello or Probe. What is not in the list is missing. */
  readonly capabilities: readonly Capability[];
  /** Name of the sandbox: its AppArmor profile's, and its host name where the policy has none. */
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
  const report = new Report(policy);
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
  capabilities.need(report, REQUIRED, "sandbox", sandbox.origin);
  const abi = landlockAbi(policy, capabilities, report);
  const limit = (controller: string) =>
    capabilities.need(report, [`cgroup.${controller}`], "sandbox.limits", sandbox.origin);
  const limits = { memory: limit("memory"), cpu: limit("cpu"), pids: limit("pids") };

  const view = lowerMounts(policy, inputs.host, inputs.protectedPaths ?? [], report);
  // With a mount missing, what lies on it is missing too: one message is enough.
  if (!report.failed) checkFolders(policy, view, report);
  const { table: exec, facts } = lowerExec(policy, view, capabilities, report);
  const files = lowerFiles({ policy, view, capabilities, abi }, report);
  const network = lowerNetwork(policy, capabilities, report);
  const nftables = lowerNftables(policy, capabilities, report);
  const subjects = lowerSubjects(policy, view, abi, capabilities, report);
  const name = inputs.name || policy.name;
  const apparmor = lowerApparmor(name, files.denials);
  const hostname = sandbox.hostname || name;
  const oci = lowerOci(policy, view, files, {
    hostname,
    terminal: inputs.terminal ?? false,
    term: inputs.term ?? "",
    maxOpenFiles: inputs.maxOpenFiles ?? LARGEST_OPEN_FILES,
    apparmorProfile: apparmor?.name ?? "",
    limits,
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
  explainHealthCheck(policy, report);
  const secretFiles = lowerSecrets(policy, view, capabilities, report);
  const seccomp = lowerSeccomp(inputs.arch ?? "x64", { notifyNames: files.notifyNames });
  report.checkWaivers(new Set([...policy.exec, ...policy.file, ...policy.network].map((rule) => rule.id)));
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
      exec,
      facts,
    },
    args: [...args],
    terminal: inputs.terminal ?? false,
    publish: sandbox.publish.map(({ hostIp, hostPort, sandboxPort }) => ({ hostIp, hostPort, sandboxPort })),
    secretsMount: policy.secrets && {
      path: policy.secrets.mount,
      uid: sandbox.user.uid,
      gid: sandbox.user.gid,
      maySwap: report.isWaived("tmpfs.noswap"),
    },
    supervisorGraceMs: sandbox.supervisorGraceMs,
    detached: inputs.detached ?? false,
    nftables,
    apparmor,
  };
  return {
    artefacts: report.failed ? undefined : artefacts,
    secretFiles,
    explain: report.rows,
    diagnostics: sortDiagnostics(report.diagnostics),
  };
}

/** A host on which every path is there, and is what it is named. */
const ANY_HOST: HostView = { kind: () => "directory", readlink: () => undefined, resolve: (path) => path };
/** What only the files of a host can tell. */
const OF_FILES: readonly string[] = ["missing-path", "missing-source", "source-kind"];

/** What no host can enforce, whatever its kernel and its files: errors of {@link compile} that it would have anywhere. */
export function refusedAnywhere(policy: Policy): readonly Diagnostic[] {
  const { diagnostics } = compile(policy, {
    host: ANY_HOST,
    capabilities: everyCapability(),
    command: policy.sandbox.command.length === 0 ? ["/bin/sh"] : [],
  });
  return diagnostics.filter(({ severity, code }) => severity === "error" && !OF_FILES.includes(code));
}

/** The ruleset of the sandbox's network namespace; empty when it is waived. */
function lowerNftables(policy: Policy, capabilities: Capabilities, report: Report): Buffer {
  if (!capabilities.need(report, ["nftables"], "sandbox", policy.sandbox.origin)) return Buffer.alloc(0);
  return Buffer.from(JSON.stringify(nftablesRuleset()));
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

/** No layer: the supervisor has it run, and each of its execs is decided like any other. */
function explainHealthCheck({ sandbox: { healthCheck, origin } }: Policy, report: Report): void {
  if (healthCheck === undefined) return;
  const { subject, intervalMs, timeoutMs } = healthCheck;
  report.explain(
    "health check",
    "run",
    "supervisor",
    `as ${subject} every ${intervalMs / 1000} s, killed after ${timeoutMs / 1000} s; the rules of exec decide about it`,
    origin,
  );
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
