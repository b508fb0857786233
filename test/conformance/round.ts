// A round: one sandbox, several policies one after the other, some actions under each. Made from a seed, then run.

import type { Policy } from "../../policy/index.js";
import type { Attempt } from "./attempt.js";
import { someConnection } from "./connections.js";
import { type Documents, meaning, type PolicyDocument, show, writeDocuments } from "./document.js";
import { someExec } from "./execs.js";
import { expect, type Judge } from "./expect.js";
import { type Difference, difference, type Expected, type Observed } from "./expected.js";
import type { Feature } from "./features.js";
import { fileRules } from "./file-rules.js";
import { someFileAction, victimsOf } from "./files.js";
import { effectOf } from "./observe.js";
import { makeFrame, makePolicy, type Setting, SUBJECTS } from "./policies.js";
import type { Random } from "./random.js";
import type { Rig } from "./rig.js";
import { makePlace, placeOf, removePlace, type World } from "./world.js";

/** Uid that victims belong to. */
const OWNER = 1000;

/** Actions under one policy. */
export interface Epoch {
  readonly documents: Documents;
  readonly attempts: readonly Attempt[];
}

export interface Round {
  readonly name: string;
  /** Files that are there when it begins. Rules may name those of actions that a smaller round leaves out. */
  readonly victims: readonly string[];
  readonly epochs: readonly Epoch[];
}

export interface RoundResult {
  /** Pairs that were compared, each in words: "exec refused, by a rule". */
  readonly pairs: readonly string[];
  readonly differences: readonly Difference[];
  /** The compiler's words when it refused the policy: then there are no pairs. */
  readonly refused: string | undefined;
}

export interface Tools {
  readonly world: World;
  readonly rig: Rig;
  readonly features: ReadonlySet<Feature>;
  readonly judge?: Judge;
}

function attempts(random: Random, setting: Setting, prefix: string, count: number): Attempt[] {
  const { world } = setting;
  return Array.from({ length: count }, (_, i) => {
    const id = `${prefix}${i.toString(36)}`;
    const subject = random.pick(SUBJECTS);
    return random.weighted<Attempt>([
      [50, () => someExec(random, setting, id, subject)],
      [22, () => someConnection(random, world, id, subject)],
      [28, () => someFileAction(random, id, subject, OWNER)],
    ]);
  });
}

/** Makes a round of `pairs` attempts under `epochs` policies. */
export function makeRound(
  random: Random,
  tools: Pick<Tools, "world" | "features">,
  name: string,
  pairs: number,
  epochs: number,
): Round {
  const setting: Setting = { ...tools, place: placeOf(tools.world, name) };
  const counts = Array.from({ length: epochs }, (_, i) => Math.floor((pairs + i) / epochs)).filter(
    (n) => n > 0,
  );
  const lists = counts.map((count, i) =>
    attempts(random, setting, `${name}${String.fromCharCode(97 + i)}`, count),
  );
  const frame = makeFrame(random, setting);
  const victims = victimsOf(lists.flat());
  const file = fileRules(random, setting, victims);
  return {
    name,
    victims,
    epochs: lists.map((list) => ({ documents: makePolicy(random, setting, frame, file), attempts: list })),
  };
}

/** The same round under another name, in folders of its own. */
export function renamed(round: Round, name: string, { world }: Pick<Tools, "world">): Round {
  const from = placeOf(world, round.name);
  const to = placeOf(world, name);
  const move = (document: PolicyDocument): PolicyDocument => {
    const text = JSON.stringify(document);
    return JSON.parse(
      text
        .replaceAll(`"${from.work}"`, `"${to.work}"`)
        .replaceAll(`"${from.data}"`, `"${to.data}"`)
        .replaceAll(`"${from.readOnly}"`, `"${to.readOnly}"`),
    );
  };
  return {
    name,
    victims: round.victims,
    epochs: round.epochs.map(({ documents: { main, base }, attempts }) => ({
      documents: { main: move(main), base: base === undefined ? undefined : move(base) },
      attempts,
    })),
  };
}

/** Runs a round in a sandbox of its own, and compares. */
export async function runRound(tools: Tools, round: Round): Promise<RoundResult> {
  const { world, rig } = tools;
  const place = placeOf(world, round.name);
  const all = round.epochs.flatMap((epoch) => epoch.attempts);
  makePlace(world, place, round.victims);
  rig.expect(all);
  const differences: Difference[] = [];
  const pairs: string[] = [];
  try {
    const paths = round.epochs.map(({ documents }, i) =>
      writeDocuments(world.folder, `${round.name}-${i}`, documents),
    );
    const policies = round.epochs.map(({ documents }) => meaning(documents));
    const [first = ""] = paths;
    let sandbox: Awaited<ReturnType<Rig["start"]>>;
    try {
      sandbox = await rig.start(round.name, first);
    } catch (error) {
      const refused = refusal(error);
      if (refused === undefined) throw error;
      return { pairs: [], differences: [], refused };
    }
    try {
      for (const [i, { attempts, documents }] of round.epochs.entries()) {
        const policy = policies[i];
        const path = paths[i];
        if (policy === undefined || path === undefined) throw new Error("An epoch has no policy.");
        if (i > 0) await rig.reload(round.name, path);
        const answers = await sandbox.perform(attempts).catch((error: unknown) => {
          const why = error instanceof Error ? error.message : String(error);
          throw new Error(`${why}\n${show(documents)}`);
        });
        for (const attempt of attempts) {
          const answer = answers.get(attempt.id);
          if (answer === undefined) throw new Error(`The driver left out ${attempt.id}.`);
          const { expected, found } = await compare(tools, place, policy, attempt, answer);
          if (found !== undefined) differences.push(found);
          pairs.push(words(attempt, expected));
        }
      }
    } finally {
      sandbox.close();
      await rig.kill(round.name);
    }
  } finally {
    removePlace(place);
  }
  if (rig.failure !== undefined) throw new Error(`The supervisor's streams broke: ${rig.failure}`);
  return { pairs, differences, refused: undefined };
}

async function compare(
  { rig, judge }: Tools,
  place: ReturnType<typeof placeOf>,
  policy: Policy,
  attempt: Attempt,
  answer: Observed["answer"],
): Promise<{ expected: Expected; found: Difference | undefined }> {
  const expected = expect(policy, attempt, judge);
  const observed: Observed = {
    answer,
    ...effectOf(place, attempt, answer),
    held: rig.wasHeld(attempt.id),
    rules: await rig.rules(attempt.id, expected.rule),
  };
  const facts = rig.facts(attempt.id);
  const why = difference(expected, facts === undefined ? observed : { ...observed, facts });
  return { expected, found: why === "" ? undefined : { attempt, expected, observed, why } };
}

function words({ meant }: Attempt, { outcome, held, rule }: Expected): string {
  const by = rule === undefined ? "by no rule" : rule.endsWith("/default") ? "by default" : "by a rule";
  return `${meant.kind} ${outcome}${held ? ", held" : ""}, ${by}`;
}

/** The diagnostics of a policy that cannot be enforced here; undefined for every other error. */
function refusal(error: unknown): string | undefined {
  const text = error instanceof Error ? error.message : String(error);
  return /INVALID_ARGUMENT/.test(text) ? text : undefined;
}
