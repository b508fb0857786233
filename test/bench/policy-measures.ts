// Figures of the policy language: reading and compiling, deciding, and the tables that the loader keeps.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { hostView } from "../../agent/common/host.js";
import { judge } from "../../agent/supervisor/decide/judge.js";
import type { SandboxRecord } from "../../agent/supervisor/sandboxes/store.js";
import {
  type Action,
  type CompileInputs,
  compile,
  evaluate,
  type Policy,
  parsePolicy,
} from "../../policy/index.js";
import {
  CapabilityState,
  Decision,
  ExecAction,
  ExecutableKind,
  NetworkAction,
  NetworkProtocol,
  ObservedProtocol,
  PolicyTables,
  Process,
  Question,
} from "../../proto/gen/clawsec/v1/loader.js";
import { policyOf } from "./policies.js";
import { type Figure, figure } from "./stats.js";

export const SIZES = [10, 1000, 10_000] as const;

/** What this kernel and loader can do does not matter to the time of compiling: everything is there. */
const INPUTS: CompileInputs = {
  host: hostView(),
  capabilities: [
    "runc",
    "seccomp.notify",
    "bpf.exec_verify",
    "netns.sk_lookup",
    "ptrace.hold",
    "fanotify.perm",
    "tmpfs.noswap",
    "cgroup.memory",
    "cgroup.pids",
    "cgroup.cpu",
    "nftables",
    "landlock",
  ].map((name) => ({
    name,
    state: CapabilityState.PRESENT,
    detail: "",
    remedy: "",
    level: name === "landlock" ? "7" : "",
    required: false,
  })),
};

function parsed(text: string): Policy {
  const { policy, diagnostics } = parsePolicy(text, "bench.yaml");
  if (policy === undefined)
    throw new Error(`The policy of the benchmark is wrong: ${JSON.stringify(diagnostics[0])}`);
  return policy;
}

function compiled(policy: Policy): PolicyTables {
  const { artefacts, diagnostics } = compile(policy, INPUTS);
  if (artefacts?.tables === undefined)
    throw new Error(`The policy of the benchmark does not compile: ${JSON.stringify(diagnostics[0])}`);
  return artefacts.tables;
}

const milliseconds = (action: () => unknown): number => {
  const since = process.hrtime.bigint();
  action();
  return Number(process.hrtime.bigint() - since) / 1e6;
};

/** From the text of a policy to what the loader applies, against the YAML library alone on the same text. */
export function compileFigure(rules: number, folder: string, rounds: number): Figure {
  const text = policyOf(rules, folder);
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    bare?.push(milliseconds(() => parseDocument(text)));
    ours?.push(milliseconds(() => compiled(parsed(text))));
  }
  return figure(`read and compile ${rules} rules`, "ms", "the YAML library alone", bare ?? [], ours ?? []);
}

/** Compiling alone: from the policy that was read to what the loader applies. */
export function lowerFigure(rules: number, folder: string, rounds: number): Figure {
  const text = policyOf(rules, folder);
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    let policy: Policy | undefined;
    bare?.push(
      milliseconds(() => {
        policy = parsed(text);
      }),
    );
    ours?.push(milliseconds(() => policy && compiled(policy)));
  }
  return figure(
    `compile ${rules} rules that were read`,
    "ms",
    "reading the same policy",
    bare ?? [],
    ours ?? [],
  );
}

type Section = "exec" | "network";

/** Actions that meet rules everywhere in the list, and some that meet none. */
function actions(section: Section, rules: number, count: number): Action[] {
  return Array.from({ length: count }, (_, i) => {
    const n = Math.floor((i * rules) / count);
    const process = Process.create({ executable: "/usr/bin/bash" });
    const action: Action["action"] =
      section === "exec"
        ? {
            $case: "exec",
            value: ExecAction.create({
              executable: execPath(n, i),
              argv: ["x", "-f", "push", `task-${n}`],
              cwd: "/home/agent",
              kind: ExecutableKind.FILE,
            }),
          }
        : {
            $case: "network",
            value: NetworkAction.create({
              protocol: NetworkProtocol.TCP,
              host: i % 2 === 0 ? `host-${n}.example` : `a.b.domain-${n}.example`,
              port: 443,
              observedProtocol: ObservedProtocol.TLS,
            }),
          };
    return { subject: "main", process, action };
  });
}

function execPath(n: number, i: number): string {
  const names = [`program-${n}`, `remove-${n}`, `two-${n}`, `other-${n}`, `allowed-${n}`, "git"];
  return i % 7 === 0 ? `/usr/lib/tool-${n}/bin/x` : `/usr/bin/${names[i % names.length]}`;
}

/** What is measured of a decision. */
export type Part =
  /** The evaluator alone, in the supervisor's process. */
  | "evaluator"
  /** From the bytes of a question to the bytes of its decision, as the supervisor does it. */
  | "question to decision";

/**
 * One decision among 10,000 rules, against one among 10. The actions go through the whole list, so that what one
 * decision left in the processor's caches does not serve the next.
 */
export function decisionFigure(
  part: Part,
  section: Section,
  folder: string,
  rounds = 40,
  each = 500,
): Figure {
  const [small, large] = [10, 10_000].map((rules) => ({
    sandbox: sandboxOf(parsed(policyOf(rules, folder))),
    questions: actions(section, rules, each).map((action, id) => question(id + 1, action)),
  }));
  const [bare, ours]: number[][] = [[], []];
  const moment = { timeMs: Date.now() };
  const measure = (of: typeof small, i: number): number => {
    const [asked, sandbox] = [of?.questions[i], of?.sandbox];
    if (asked === undefined || sandbox === undefined) return Number.NaN;
    const since = process.hrtime.bigint();
    if (part === "evaluator") evaluate(sandbox.policy, asked.question, moment);
    else Decision.encode(judge(Question.decode(asked.bytes), sandbox).decision).finish();
    return Number(process.hrtime.bigint() - since) / 1000;
  };
  for (let round = -2; round < rounds; round++) {
    for (let i = 0; i < each; i++) {
      const [before, after] = [measure(small, i), measure(large, i)];
      // The first rounds are for the compiler of the JavaScript engine, and build the indexes.
      if (round < 0) continue;
      bare?.push(before);
      ours?.push(after);
    }
  }
  const name = `decision among 10,000 rules (${section}, ${part})`;
  return figure(name, "us", "among 10 rules", bare ?? [], ours ?? []);
}

function question(id: number, action: Action) {
  const question = Question.create({ ...action, id, sandbox: "bench", epoch: 1 });
  return { question, bytes: Question.encode(question).finish() };
}

function sandboxOf(policy: Policy) {
  const record: SandboxRecord = {
    name: "bench",
    policyPath: "bench.yaml",
    sources: [],
    startedFrom: [],
    policyHash: policy.hash,
    variables: {},
    command: [],
    terminal: false,
    detached: false,
    term: "",
    epoch: 1,
  };
  return { record, policy, info: undefined, lost: false };
}

/** Bytes of the tables as they are sent to the loader. */
export function tableBytes(rules: number, folder: string): number {
  return PolicyTables.encode(compiled(parsed(policyOf(rules, folder)))).finish().length;
}

/** Resident memory of a process, in KiB, as proc(5) has it. */
export function residentKiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN);
}

/** Writes a policy of a size to a file; returns its path. */
export function writePolicy(rules: number, folder: string, into: string): string {
  const path = join(into, `policy-${rules}.yaml`);
  writeFileSync(path, policyOf(rules, folder));
  return path;
}
