/**
 * ReloadPolicy: every candidate is checked and compiled before anything changes; then each sandbox gets its tables in
 * one step. When the loader refuses one of them, those before it get their old policy back.
 */
import { status } from "@grpc/grpc-js";
import { needsRestart, type Policy } from "../../../policy/index.js";
import type {
  ReloadPolicyRequest,
  ReloadPolicyResponse,
  ReloadPolicyResponse_SandboxPolicy,
} from "../../../proto/gen/clawsec/v1/control.js";
import type { PolicyTables } from "../../../proto/gen/clawsec/v1/loader.js";
import { isLive } from "../../../proto/words.js";
import { call, Refusal, sentence } from "../../common/grpc.js";
import { nowUs } from "../../common/time.js";
import { ownRecord } from "../audit/record.js";
import type { Parts } from "../parts.js";
import { type Compiled, compileFor, loadPolicy } from "../sandboxes/compile.js";
import type { Sandbox } from "../sandboxes/registry.js";
import type { SandboxRecord } from "../sandboxes/store.js";
import { connectedLoader } from "./loader.js";

/** A sandbox, and what it is to run under. */
interface Candidate {
  readonly sandbox: Sandbox;
  readonly record: SandboxRecord;
  readonly compiled: Compiled;
  /** What the loader gets: the new tables, but for what stays as it was when the sandbox was started. */
  readonly tables: PolicyTables | undefined;
  readonly restart: readonly string[];
}

export async function reload(
  parts: Parts,
  request: ReloadPolicyRequest,
  by: string,
): Promise<ReloadPolicyResponse> {
  const sandboxes = targets(parts, request);
  connectedLoader(parts);
  const candidates: Candidate[] = [];
  for (const sandbox of sandboxes) {
    try {
      candidates.push(candidateOf(parts, sandbox, request.policyPath));
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== status.INVALID_ARGUMENT) throw error;
      return {
        applied: false,
        diagnostics: error.message,
        sandboxes: sandboxes.map((each) => present(each)),
      };
    }
  }
  const done: Candidate[] = [];
  for (const candidate of candidates) {
    try {
      await apply(parts, candidate.record, candidate.compiled.policy, candidate.tables);
      done.push(candidate);
    } catch (error) {
      await restore(parts, candidate.sandbox, done);
      throw error;
    }
  }
  for (const candidate of done) await record(parts, candidate, by);
  return {
    applied: true,
    diagnostics: [...new Set(done.flatMap(({ compiled }) => compiled.warnings))].join("\n"),
    sandboxes: done.map(({ record: { name, epoch, policyHash }, restart }) => ({
      name,
      epoch,
      policyHash,
      needsRestart: [...restart],
    })),
  };
}

function targets(parts: Parts, { names, all }: ReloadPolicyRequest): Sandbox[] {
  if (all === names.length > 0) {
    throw new Refusal(
      status.INVALID_ARGUMENT,
      "Name the sandboxes whose policy is to be reloaded, or say all of them.",
    );
  }
  const live = ({ info }: Sandbox) => info === undefined || isLive(info.state);
  if (all) return parts.sandboxes.all().filter(live);
  return [...new Set(names)].map((name) => {
    const sandbox = parts.sandboxes.get(name);
    if (sandbox === undefined || !live(sandbox)) {
      throw new Refusal(status.NOT_FOUND, `No sandbox of the name ${name} is running.`);
    }
    return sandbox;
  });
}

/** Reads and compiles. Throws the policy's errors as INVALID_ARGUMENT. */
function candidateOf(parts: Parts, sandbox: Sandbox, path: string): Candidate {
  const before = sandbox.record;
  const policyPath = path || before.policyPath;
  const { policy, sources } = loadPolicy(policyPath, before.variables);
  const after = { ...before, policyPath, sources, policyHash: policy.hash, epoch: before.epoch + 1 };
  const compiled = compileFor(after, parts.link.capabilities, parts.paths);
  const started = compileFor(
    { ...before, sources: before.startedFrom },
    parts.link.capabilities,
    parts.paths,
  );
  return {
    sandbox,
    record: after,
    compiled,
    tables: tablesFor(compiled, started),
    restart: needsRestart(started.artefacts, compiled.artefacts),
  };
}

/** Which opens are asked about is a matter of mounts and marks, which the loader makes at the start only. */
function tablesFor({ artefacts: { tables } }: Compiled, started: Compiled): PolicyTables | undefined {
  return tables && { ...tables, fileGuards: started.artefacts.tables?.fileGuards ?? [] };
}

/**
 * Ours first: from the moment the loader has the new epoch, answers of the old one are void. Answers of the new
 * policy under the new epoch are never weaker than asked for.
 */
async function apply(
  parts: Parts,
  record: SandboxRecord,
  policy: Policy,
  tables: PolicyTables | undefined,
): Promise<void> {
  parts.sandboxes.put(record, policy);
  const loader = connectedLoader(parts);
  await call(loader, loader.applyPolicy, { name: record.name, tables }, 30_000);
}

/** The old policies again: that of the sandbox which failed here, those of the others under an epoch of their own. */
async function restore(parts: Parts, failed: Sandbox, done: readonly Candidate[]): Promise<void> {
  if (!("unreadable" in failed.policy)) parts.sandboxes.put(failed.record, failed.policy);
  for (const { sandbox, record } of done) {
    const { name } = record;
    const back = { ...sandbox.record, epoch: record.epoch + 1 };
    try {
      const compiled = compileFor(back, parts.link.capabilities, parts.paths);
      const started = compileFor(
        { ...back, sources: back.startedFrom },
        parts.link.capabilities,
        parts.paths,
      );
      await apply(parts, back, compiled.policy, tablesFor(compiled, started));
    } catch (error) {
      // It stays under the new policy, as a whole.
      parts.log.error({ sandbox: name, error: sentence(error) }, "the old policy could not be applied again");
    }
  }
}

async function record(
  parts: Parts,
  { sandbox, record, compiled, restart }: Candidate,
  by: string,
): Promise<void> {
  const { name, policyHash, policyPath: path, epoch } = record;
  const before = sandbox.record.policyHash;
  await parts.audit.append(
    ownRecord(
      {
        kind: "policy",
        timeUs: nowUs(),
        sandbox: name,
        policyHash,
        summary: `policy ${compiled.policy.name} applied, epoch ${epoch}`,
      },
      { path, epoch, by, needsRestart: restart, before },
    ),
  );
  parts.decider.reconsider(name);
}

function present({ record: { name, epoch, policyHash } }: Sandbox): ReloadPolicyResponse_SandboxPolicy {
  return { name, epoch, policyHash, needsRestart: [] };
}
