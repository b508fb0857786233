/** ReloadPolicy: the whole candidate is checked and compiled before anything changes. */
import { status } from "@grpc/grpc-js";
import { needsRestart } from "../../../policy/index.js";
import type { ReloadPolicyRequest, ReloadPolicyResponse } from "../../../proto/gen/clawsec/v1/control.js";
import { call, Refusal } from "../../common/grpc.js";
import { nowUs } from "../../common/time.js";
import { isLive } from "../../common/verdict.js";
import { ownRecord } from "../audit/record.js";
import type { Parts } from "../parts.js";
import { type Compiled, compileFor, loadPolicy } from "../sandboxes/compile.js";
import type { SandboxRecord } from "../sandboxes/store.js";
import { connectedLoader } from "./loader.js";

export async function reload(
  parts: Parts,
  request: ReloadPolicyRequest,
  by: string,
): Promise<ReloadPolicyResponse> {
  const sandbox = parts.sandboxes.get(request.name);
  if (sandbox === undefined || (sandbox.info !== undefined && !isLive(sandbox.info.state))) {
    throw new Refusal(status.NOT_FOUND, `No sandbox of the name ${request.name} is running.`);
  }
  const loader = connectedLoader(parts);
  const before = sandbox.record;
  const policyPath = request.policyPath || before.policyPath;
  let candidate: SandboxRecord;
  let compiled: Compiled;
  try {
    const { policy, sources } = loadPolicy(policyPath, before.variables);
    candidate = { ...before, policyPath, sources, policyHash: policy.hash, epoch: before.epoch + 1 };
    compiled = compileFor(candidate, parts.link.capabilities, parts.paths);
  } catch (error) {
    if (!(error instanceof Refusal) || error.code !== status.INVALID_ARGUMENT) throw error;
    const { epoch, policyHash } = before;
    return { applied: false, epoch, policyHash, diagnostics: error.message, needsRestart: [] };
  }
  const restart = needsRestart(
    compileFor(before, parts.link.capabilities, parts.paths).artefacts,
    compiled.artefacts,
  );
  // Ours first: from the moment the loader has the new epoch, answers of the old one are void. Answers of the new
  // policy under the new epoch are never weaker than asked for; a failed apply puts the old one back.
  parts.sandboxes.put(candidate, compiled.policy);
  try {
    const { tables } = compiled.artefacts;
    await call(loader, loader.applyPolicy, { name: request.name, tables }, 30_000);
  } catch (error) {
    if (!("unreadable" in sandbox.policy)) parts.sandboxes.put(before, sandbox.policy);
    throw error;
  }
  parts.audit.append(
    ownRecord(
      {
        kind: "policy",
        timeUs: nowUs(),
        sandbox: request.name,
        policyHash: candidate.policyHash,
        summary: `policy ${compiled.policy.name} applied, epoch ${candidate.epoch}`,
      },
      { path: policyPath, epoch: candidate.epoch, by, needsRestart: restart, before: before.policyHash },
    ),
  );
  parts.decider.reconsider(request.name);
  return {
    applied: true,
    epoch: candidate.epoch,
    policyHash: candidate.policyHash,
    diagnostics: compiled.warnings.join("\n"),
    needsRestart: restart,
  };
}
