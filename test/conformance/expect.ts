// What must come of an attempt: the evaluator's verdict, and what mounts, Landlock and the gate add to it, as
// docs/policy.md has it. Nothing here asks the loader.

import { type Action, type Evaluation, evaluate, type Policy } from "../../policy/index.js";
import { ExecFact, ObservedProtocol, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt, MeantConnection, MeantExec } from "./attempt.js";
import { STRICT_PORTS } from "./connections.js";
import { expectFile } from "./expect-file.js";
import { type Expected, refused } from "./expected.js";

export type Judge = (policy: Policy, action: Action) => Evaluation;

/** Holds shorter than this are for the deadline: nobody answers them. */
export const SHORT_HOLD_MS = 1000;

/** What must come of it under this policy. `judge`: the evaluator, or a wrong one that a test brings. */
export function expect(policy: Policy, attempt: Attempt, judge: Judge = evaluate): Expected {
  const { meant } = attempt;
  switch (meant.kind) {
    case "exec":
      return expectExec(policy, attempt, meant, judge);
    case "file":
      return expectFile(policy, attempt, meant, judge);
    case "connection":
      return expectConnection(policy, attempt, meant, judge);
    case "datagram": {
      // The kernel refuses it, in words of its own.
      const evaluation = judge(policy, ask(attempt, { $case: "network", value: meant.facts }));
      return { ...settle(evaluation, attempt), rule: undefined };
    }
    case "loopback":
      return expectLoopback(policy, attempt.subject, meant.port);
  }
}

/** The caller as the loader must see it: the driver of the subject. */
export function ask(attempt: Attempt, action: Action["action"]): Action {
  const executable = attempt.subject === "side" ? "/opt/t/side" : "/opt/t/driver";
  return {
    subject: attempt.subject,
    process: {
      pid: 0,
      sandboxPid: 0,
      uid: 1000,
      gid: 1000,
      execId: "",
      ancestors: [],
      executable,
      comm: "",
      ancestorExecutables: [],
      ancestorsTruncated: false,
    },
    action,
  };
}

/** The evaluator's verdict after the person's, or the deadline's. */
export function settle(evaluation: Evaluation, attempt: Attempt): Expected {
  const { verdict, rule, hold } = evaluation;
  switch (verdict) {
    case Verdict.ALLOW:
    case Verdict.LOG:
      return { outcome: "happens", rule, held: false, why: `${rule} permits it` };
    case Verdict.HOLD: {
      const isShort = hold !== undefined && hold.timeoutMs < SHORT_HOLD_MS;
      const answer = isShort ? hold.onTimeout : attempt.answer;
      const who = isShort ? "its deadline" : "the person";
      const outcome = answer === "allow" ? "happens" : "refused";
      return { outcome, rule, held: true, why: `${rule} holds it, and ${who} says ${answer}` };
    }
    default:
      return { outcome: "refused", rule, held: false, why: `${rule} denies it` };
  }
}

const NOEXEC = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

export function isIn(path: string, trees: readonly string[]): boolean {
  return trees.some((tree) => path === tree || path.startsWith(`${tree}/`));
}

function expectExec(policy: Policy, attempt: Attempt, meant: MeantExec, judge: Judge): Expected {
  const evaluation = judge(policy, ask(attempt, { $case: "exec", value: meant.facts }));
  const expected = { ...settle(evaluation, attempt), ...asMeant(meant, evaluation) };
  // Refused before anybody is asked, in the gate's own words.
  if (meant.facts.argvTruncated) return { ...expected, rule: undefined };
  if (meant.isRefused)
    return {
      outcome: "refused",
      rule: undefined,
      held: false,
      why: "the dynamic loader's option is not known",
    };
  const files = policy.subjects.find(({ name }) => name === attempt.subject)?.files;
  const trees = files?.exec.map(({ path }) => path);
  const closed = meant.opened.find(
    (path) => isIn(path, NOEXEC) || (trees !== undefined && !isIn(path, trees)),
  );
  const isDenied = expected.outcome === "refused" && expected.held === false;
  const nested = isDenied ? undefined : expectSeveral(policy, meant, evaluation, expected);
  if (nested !== undefined) return nested;
  if (closed === undefined || isDenied) return expected;
  // The exec fails by itself, so that what was to be held may have gone before it stood still.
  const why = `${expected.why}, but ${closed} cannot be executed there`;
  return { ...expected, outcome: "refused", held: expected.held ? undefined : false, why };
}

/** The facts that an event must tell, and what is read: the script as it was when it was decided about. */
function asMeant(
  { facts, reads, swapped }: MeantExec,
  { dependsOn }: Evaluation,
): Pick<Expected, "facts" | "reads"> {
  const isBound = dependsOn.includes(ExecFact.SCRIPT);
  const [first, ...rest] = reads;
  if (swapped === undefined || isBound) return { facts, reads };
  return { facts, reads: first === undefined ? reads : [swapped, ...rest] };
}

/**
 * The loader hands over one script. Where several are read, one of them or what its name leads through can be changed, and
 * the answer went by them, it refuses.
 */
function expectSeveral(
  policy: Policy,
  { facts, through }: MeantExec,
  evaluation: Evaluation,
  expected: Expected,
): Expected | undefined {
  if (facts.nestedScripts.length === 0 || !evaluation.dependsOn.includes(ExecFact.SCRIPT)) return undefined;
  const writable = policy.sandbox.mounts.filter(({ mode }) => mode === "rw").map(({ target }) => target);
  const changeable = through.find((path) => isIn(path, [...writable, ...NOEXEC, "/proc", "/dev", "memory"]));
  if (changeable === undefined) return undefined;
  const why = `${expected.why}, but it is one of several scripts, and ${changeable} can be changed`;
  return { outcome: "refused", rule: undefined, held: false, why };
}

function expectConnection(policy: Policy, attempt: Attempt, meant: MeantConnection, judge: Judge): Expected {
  const { facts, lookup, address } = meant;
  if (lookup !== undefined) {
    const looked = judge(policy, ask(attempt, { $case: "network", value: lookup }));
    // Many look-ups in a short time make one event.
    if (looked.verdict === Verdict.DENY)
      return { ...refused(looked, "the name is not looked up"), rule: undefined };
  }
  const evaluation = judge(policy, ask(attempt, { $case: "network", value: facts }));
  const expected = settle(evaluation, attempt);
  if (evaluation.rule === "network/observed-host") return { ...expected, rule: undefined };
  if (facts.observedProtocol === ObservedProtocol.OTHER && STRICT_PORTS.includes(facts.port))
    return { outcome: "refused", rule: undefined, held: false, why: "the port is for TLS and HTTP" };
  const floors = policy.network.filter(({ locked, cidr }) => locked && cidr.length > 0);
  // A private address that a floor's range does not open is refused in that rule's name before the others are looked at.
  if (expected.outcome === "refused" && !expected.held)
    return lookup === undefined && floors.length > 0 ? { ...expected, rule: undefined } : expected;
  const rule = policy.network.find(({ id }) => id === evaluation.rule);
  const opened = rule?.resolvesTo ?? [];
  const ranges = lookup === undefined ? [...opened, ...(rule?.cidr ?? []).filter(isReserved)] : opened;
  if (ranges.some((range) => inRange(address, range))) return expected;
  const why = `${expected.why}, but ${address} is private and not what the rule opens`;
  // A literal address that no rule opens is refused before anybody is asked; one that another rule opens, and a name, after.
  return {
    outcome: "refused",
    rule: evaluation.rule,
    held: lookup === undefined && expected.held ? undefined : expected.held,
    why,
  };
}

/** A range that lies in a reserved one as a whole opens it; 0.0.0.0/0 does not open 10.0.0.0/8 by the way. */
function isReserved(cidr: string): boolean {
  return cidr.startsWith("10.");
}

function inRange(address: string, cidr: string): boolean {
  const number = (text: string) => text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const [network = "", bits = "32"] = cidr.split("/");
  const size = 2 ** (32 - Number(bits));
  return Math.floor(number(address) / size) === Math.floor(number(network) / size);
}

function expectLoopback(policy: Policy, subject: string, port: number): Expected {
  const loopback = policy.subjects.find(({ name }) => name === subject)?.loopback ?? [];
  const granted = loopback === "any" || loopback.includes(port);
  const why = granted ? "the subject has the port" : "the subject does not have the port";
  return { outcome: granted ? "happens" : "refused", rule: undefined, held: false, why };
}
