/** Explain: rule by rule, the layer that enforces it on this host. */
import { status } from "@grpc/grpc-js";
import { renderDiagnostics } from "../../../policy/index.js";
import type { ExplainRequest, ExplainResponse } from "../../../proto/gen/clawsec/v1/control.js";
import { Refusal } from "../../common/grpc.js";
import type { Parts } from "../parts.js";
import { compileFor, compileHere, loadPolicy } from "../sandboxes/compile.js";

export function explain(parts: Parts, request: ExplainRequest): ExplainResponse {
  if (request.policyPath === "") {
    const sandbox = parts.sandboxes.get(request.name);
    if (sandbox === undefined) {
      throw new Refusal(
        status.NOT_FOUND,
        `No sandbox of the name ${request.name} is known. Name one, or a policy.`,
      );
    }
    const { explain: rules } = compileFor(sandbox.record, parts.link.capabilities, parts.paths);
    return { rules: [...rules] };
  }
  const policy = loadPolicy(request.policyPath, request.variables).policy;
  // Any command will do: which layer enforces a rule does not depend on it.
  const inputs = policy.sandbox.command.length === 0 ? { command: ["/bin/sh"] } : {};
  const result = compileHere(policy, parts.link.capabilities, parts.paths, inputs);
  if (result.artefacts === undefined && result.explain.length === 0) {
    throw new Refusal(status.INVALID_ARGUMENT, renderDiagnostics(result.diagnostics));
  }
  return { rules: [...result.explain] };
}
