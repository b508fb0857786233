// The policy language. Pure: text and facts in, meaning out; nothing here touches the host.
//
//   parsePolicy(text, file)     -> a checked Policy, or all that is wrong with it
//   evaluate(policy, question)  -> the verdict on one action
//   compile(policy, inputs)     -> what the loader applies on this host, or which rules it cannot enforce
//   needsRestart(before, after) -> what of a new policy cannot be applied to a running sandbox

export {
  type Artefacts,
  artefactFiles,
  type CompileInputs,
  type CompileResult,
  compile,
  needsRestart,
  refusedAnywhere,
} from "./compile.js";
export {
  type Diagnostic,
  type Origin,
  renderDiagnostic,
  renderDiagnostics,
  type Severity,
} from "./diagnostics.js";
export {
  type Action,
  type Evaluation,
  evaluate,
  type Moment,
  matchesRule,
  type TraceStep,
} from "./evaluate.js";
export { renderExplain } from "./explain.js";
export { canonicalJson, policyHash } from "./hash.js";
export { policySchema, policyTestSchema } from "./language/json-schema.js";
export type { HostView, PathKind } from "./lower/host.js";
export { PROTECTED_PATHS } from "./lower/mounts.js";
export type { ExplainRow } from "./lower/report.js";
export type * from "./model.js";
export {
  type ParseOptions,
  type ParseResult,
  type PolicySource,
  parsePolicy,
  type ReadBase,
} from "./schema.js";
export {
  actionOf,
  type Expected,
  type PolicyCase,
  type PolicyTest,
  parsePolicyTest,
} from "./testfile.js";
export { type NearMiss, type Why, why } from "./why.js";
