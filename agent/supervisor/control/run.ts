/** Run: a policy file becomes a sandbox. Everything is checked before anything is made. */
import { status } from "@grpc/grpc-js";
import type { RunRequest, RunResponse } from "../../../proto/gen/clawsec/v1/control.js";
import { SandboxInfo } from "../../../proto/gen/clawsec/v1/loader.js";
import { call, isServiceError, Refusal, sentence } from "../../common/grpc.js";
import { SANDBOX_NAME } from "../../common/names.js";
import { nowUs } from "../../common/time.js";
import { ownRecord } from "../audit/record.js";
import type { Parts } from "../parts.js";
import { compileFor, loadPolicy, requireCapabilities } from "../sandboxes/compile.js";
import { readSecrets } from "../sandboxes/secrets.js";
import type { SandboxRecord } from "../sandboxes/store.js";
import { connectedLoader } from "./loader.js";

/** Compiles, creates and starts. A failure leaves nothing behind. */
export async function run(parts: Parts, request: RunRequest, by: string, term: string): Promise<RunResponse> {
  const { policy, sources } = loadPolicy(request.policyPath, request.variables);
  const name = request.name || policy.name;
  if (!SANDBOX_NAME.test(name)) {
    throw new Refusal(
      status.INVALID_ARGUMENT,
      `${JSON.stringify(name)} is not a sandbox name: lower-case letters, digits and inner hyphens, at most 40.`,
    );
  }
  const loader = connectedLoader(parts);
  requireCapabilities(parts.link.capabilities);
  const record: SandboxRecord = {
    name,
    policyPath: request.policyPath,
    sources,
    startedFrom: sources,
    policyHash: policy.hash,
    variables: request.variables,
    command: request.command,
    terminal: request.terminal,
    detached: request.detached,
    term,
    epoch: 1,
  };
  const compiled = compileFor(record, parts.link.capabilities, parts.paths);
  const { secrets, warnings } = readSecrets(compiled.secretFiles);
  const candidate = { ...compiled.artefacts, name, secrets };
  // The loader knows best whether one of the name lives; until it says no, nothing of ours about that one changes.
  const created = await call(loader, loader.createSandbox, candidate, 60_000).catch((error: unknown) => {
    throw isServiceError(error) && error.code === status.ALREADY_EXISTS ? nameTaken(name) : error;
  });
  // Before the start: the first exec asks at once, and is judged under this policy.
  try {
    parts.sandboxes.put(record, compiled.policy, created.sandbox);
    await parts.audit.append(
      ownRecord(
        {
          kind: "policy",
          timeUs: nowUs(),
          sandbox: name,
          policyHash: policy.hash,
          summary: `policy ${policy.name} applied, epoch 1`,
        },
        { path: request.policyPath, epoch: 1, by, command: request.command, variables: request.variables },
      ),
    );
    const started = await call(loader, loader.startSandbox, { name }, 60_000);
    if (started.sandbox !== undefined) parts.sandboxes.seen(started.sandbox);
    await parts.audit.append(
      ownRecord(
        {
          kind: "sandbox",
          timeUs: nowUs(),
          sandbox: name,
          policyHash: policy.hash,
          summary: `sandbox started by ${by}`,
        },
        started.sandbox === undefined ? {} : SandboxInfo.toJSON(started.sandbox),
      ),
    );
    return {
      sandbox: started.sandbox ?? created.sandbox,
      cleaned: created.cleaned,
      warnings: [...compiled.warnings, ...warnings],
    };
  } catch (error) {
    await undo(parts, name);
    throw error;
  }
}

async function undo(parts: Parts, name: string): Promise<void> {
  try {
    const loader = connectedLoader(parts);
    await call(loader, loader.killSandbox, { name, reason: "the sandbox could not be started" }, 30_000);
    parts.sandboxes.remove(name);
  } catch (error) {
    parts.log.error(
      { sandbox: name, error: sentence(error) },
      "a sandbox that did not start could not be removed",
    );
  }
}

function nameTaken(name: string): Refusal {
  return new Refusal(
    status.ALREADY_EXISTS,
    `A sandbox of the name ${name} is running. Give this one another name with --name, or end it with clawsec kill ${name}.`,
  );
}
