// Runs the ways: each in a container without clawsec, where its effect must be seen, and in the sandbox, where it must not.

import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runContained } from "./container.js";
import { type Outcome, outcome } from "./effects.js";
import { makePlace, type Place, writePlan } from "./place.js";
import { names, runSandboxed } from "./sandbox.js";
import type { Stage } from "./setup.js";
import type { Solo } from "./solo/way.js";
import type { Control, Way } from "./way.js";

/** What one way came to, with all subjects that tried it. */
export interface Result {
  readonly way: Pick<Way, "id" | "tries" | "layer"> & { readonly subjects: readonly string[] };
  readonly control: Outcome;
  readonly sandbox: Outcome;
}

/** The longest that a stage may take. */
const STAGE_MS = 150_000;
/** The longest that a way with a sandbox of its own may take. */
const SOLO_MS = 30_000;

let runs = 0;

/** Tries all of them. Can be called again with the same stage. */
export async function runWays(stage: Stage, ways: readonly Way[]): Promise<readonly Result[]> {
  const { folder, programs, listeners, hosts, openclaw, clawsec, root, hash, hostWords } = stage;
  runs += 1;
  const at = (name: string) => join(folder, `${runs}-${name}`);
  const outcomes = new Map<string, Outcome>();
  const judge = (place: Place, kind: "control" | "sandbox") => {
    for (const attempt of place.tries)
      outcomes.set(`${kind} ${attempt.id}`, outcome(place, attempt, listeners, hostWords));
  };
  for (const [number, control] of (["plain", "root"] as const satisfies Control[]).entries()) {
    const its = ways.filter((way) => way.control === control);
    if (its.length === 0) continue;
    const place = makePlace(at(control), programs, its, 20_000 + 1000 * number);
    writePlan(place, listeners, clawsec.runtime);
    const environment = { CLAWSEC_ESCAPE_WORDS: hostWords, GATEWAY_WORDS: place.gatewayText };
    await runContained(
      place,
      openclaw,
      control,
      names(hosts),
      folder,
      environment,
      STAGE_MS,
      clawsec.runtime,
    );
    await arrive();
    judge(place, "control");
  }
  const place = makePlace(at("sandbox"), programs, ways, 22_000);
  writePlan(place, listeners, clawsec.runtime);
  await runSandboxed(clawsec, root, place, openclaw, hosts, hash, STAGE_MS);
  await arrive();
  judge(place, "sandbox");
  return ways.map((way) => {
    const of = (kind: string) =>
      way.subjects.map((subject) => outcomes.get(`${kind} ${way.id}.${subject}`) ?? "not tried");
    return { way, control: fewest(of("control")), sandbox: most(of("sandbox")) };
  });
}

/** What is on its way when a stage ends has come by then. */
const arrive = () => new Promise((resolve) => setTimeout(resolve, 500));

/** A control works when it worked for each subject. */
function fewest(outcomes: readonly Outcome[]): Outcome {
  return outcomes.find((one) => one === "not tried") ?? outcomes.find((one) => one === "none") ?? "effect";
}

/** An effect counts when one subject had it. */
function most(outcomes: readonly Outcome[]): Outcome {
  return outcomes.find((one) => one === "effect") ?? outcomes.find((one) => one === "not tried") ?? "none";
}

/** Tries those that need a sandbox of their own, one after the other. What goes wrong is "not tried". */
export async function runSolo(
  stage: Stage,
  ways: readonly Solo[],
  say: (text: string) => void,
): Promise<readonly Result[]> {
  const results: Result[] = [];
  for (const way of ways) {
    const attempt = async (kind: "control" | "sandbox"): Promise<Outcome> => {
      runs += 1;
      const folder = join(stage.folder, `${runs}-${way.id}`);
      mkdirSync(folder);
      try {
        const late = new Promise<never>((_, reject) => {
          setTimeout(() => reject(new Error(`it took longer than ${SOLO_MS} ms`)), SOLO_MS).unref();
        });
        return (await Promise.race([way[kind](stage, folder), late])) ? "effect" : "none";
      } catch (error) {
        say(`${way.id}: ${error instanceof Error ? error.message : String(error)}`);
        return "not tried";
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    };
    const control = await attempt("control");
    const sandbox = await attempt("sandbox");
    results.push({ way: { ...way, subjects: [way.who] }, control, sandbox });
  }
  return results;
}
