/**
 * The supervisor: puts its parts together and keeps them in step with the loader.
 *
 * Order of the start: the control socket is claimed first (two supervisors must not both answer the loader), then the
 * stores are opened, then the loader is reached.
 */
import { mkdirSync } from "node:fs";
import { type Hold, HoldChangeKind } from "../../proto/gen/clawsec/v1/control.js";
import { type Event, type HelloResponse, SandboxState, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { isLive } from "../../proto/words.js";
import { call, sentence } from "../common/grpc.js";
import type { Logger } from "../common/log.js";
import type { Paths } from "../common/paths.js";
import { nowUs } from "../common/time.js";
import { Audit } from "./audit/audit.js";
import { HoldRecords } from "./audit/hold-records.js";
import { ownRecord } from "./audit/record.js";
import { ControlSocket } from "./control/server.js";
import { controlService } from "./control/service.js";
import { Decider } from "./decide/decider.js";
import { RateBook } from "./decide/rates.js";
import { HealthMonitor } from "./health/monitor.js";
import { HoldBook } from "./holds/book.js";
import { HoldStore } from "./holds/store.js";
import { LoaderLink, NoLoader } from "./loader/link.js";
import { endLoader, notRoot, runningLoader } from "./loader/process.js";
import type { Parts } from "./parts.js";
import { SandboxRegistry } from "./sandboxes/registry.js";
import { SandboxStore } from "./sandboxes/store.js";

export interface SupervisorOptions {
  readonly paths: Paths;
  readonly log: Logger;
  /** Starts a loader when none answers. */
  readonly spawnLoader: boolean;
  /**
   * Mechanisms of the kernel that the loader leaves unused. A loader that runs already and leaves others unused is an
   * error; undefined: it is taken as it is.
   */
  readonly without?: readonly string[] | undefined;
  /** How long the loader may take, after a connect, to ask again about what it holds. */
  readonly holdGraceMs?: number;
  /** How long the first connect to the loader may take. */
  readonly loaderTimeoutMs?: number;
}

/** A supervisor that serves. */
export interface Supervisor {
  readonly parts: Parts;
  /**
   * Stops serving. Sandboxes that live go on under the loader, which denies what it does not know; a loader without
   * a live sandbox that clawsec started is ended too.
   */
  stop(): Promise<void>;
}

/** Starts the supervisor. Throws a sentence, with everything closed again, when it cannot. */
export async function startSupervisor(options: SupervisorOptions): Promise<Supervisor> {
  const { paths, log } = options;
  const startedUs = nowUs();
  const refused = options.spawnLoader ? notRoot() : undefined;
  if (refused !== undefined) throw new NoLoader(refused, true);
  mkdirSync(paths.state, { recursive: true, mode: 0o700 });
  const closers: (() => void | Promise<void>)[] = [];
  let spawned = () => false;
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const socket = new ControlSocket(paths.controlSocket, log);
    closers.push(() => socket.close());
    await socket.claim();
    const sandboxes = new SandboxRegistry(new SandboxStore(paths.sandboxesDb), (name) =>
      health.look(name, sandboxes.get(name)),
    );
    closers.push(() => sandboxes.close());
    const holds = new HoldBook(new HoldStore(paths.holdsDb), options.holdGraceMs);
    closers.push(() => holds.close());
    const rates = new RateBook(paths.ratesDb);
    closers.push(() => rates.close());
    const audit = await Audit.open({ path: paths.auditDb, log });
    // What was handed over is written first, and what it says of sandboxes and holds is taken over.
    closers.push(() => audit.close());
    sandboxes.tellPolicies((hash, notes) => audit.remember(hash, notes));
    const holdRecords = new HoldRecords((record) => audit.append(record), log);
    const link = new LoaderLink({
      paths,
      log,
      spawn: options.spawnLoader,
      without: options.without,
      ingest: async (bootId, batch) => {
        const { upTo, news } = await audit.ingest(bootId, batch, health.checks());
        for (const event of news) {
          health.event(event);
          sandboxEvent(parts, event);
        }
        return upTo;
      },
    });
    closers.push(() => link.close());
    spawned = () => link.spawned;
    const health = new HealthMonitor({
      log,
      client: () => link.client(),
      append: (record) => audit.append(record),
      heldBy: (name, pid) => holds.list(name).find(({ id }) => holds.holds(id, pid))?.rule,
    });
    closers.push(() => health.close());
    closers.push(() => socket.close());
    const decider = new Decider({
      holds,
      rates,
      log,
      sandbox: (name) => sandboxes.get(name),
      send: (decision) => link.decide(decision),
      recorded: (holdId) => holdRecords.written(holdId),
    });
    const parts: Parts = {
      paths,
      log,
      startedUs,
      audit,
      holdRecords,
      holds,
      health,
      link,
      sandboxes,
      decider,
      socket,
    };
    wire(parts);
    socket.serve(controlService(parts));
    await link.start(options.loaderTimeoutMs);
    log.info({ socket: paths.controlSocket, pid: process.pid }, "the supervisor serves");
    return { parts, stop: () => stop(parts, close, options.spawnLoader) };
  } catch (error) {
    await close();
    // Only one that was started just now: a loader that was found may guard sandboxes.
    if (spawned()) await endIdleLoader(paths, log);
    throw error;
  }
}

/** Who tells whom. */
function wire(parts: Parts): void {
  const { log, holdRecords, holds, link, sandboxes, decider } = parts;
  link.on("message", (message) => decider.receive(message));
  link.on("connected", (hello) => {
    holds.connected();
    reconcile(parts, hello).catch((error: unknown) => {
      log.warn({ error: sentence(error) }, "the loader did not list its sandboxes");
    });
  });
  link.on("disconnected", (why) => {
    decider.disconnected();
    for (const sandbox of sandboxes.markLost()) {
      note(parts, sandbox, `the loader is away: ${why}; the sandbox is denied what is not decided yet`);
    }
  });
  holds.on("failed", (error) =>
    log.error({ error: sentence(error) }, "the end of a hold could not be recorded"),
  );
  holds.on("change", (kind: HoldChangeKind, hold: Hold) => {
    if (kind !== HoldChangeKind.UPDATED) holdRecords.write(kind, hold);
  });
}

/** After a connect: what the loader has not any more has ended. */
async function reconcile(parts: Parts, hello: HelloResponse): Promise<void> {
  const loader = parts.link.client();
  // A sandbox that is made while the list is on its way is not in it, and has not ended.
  const before = parts.sandboxes.all().map(({ record }) => record.name);
  const { sandboxes } = await call(loader, loader.listSandboxes, {}, 10_000);
  for (const name of parts.sandboxes.reconcile(sandboxes, before)) {
    note(parts, name, `sandbox ended: the loader (boot ${hello.loaderBootId}) does not have it any more`);
    parts.holds.sandboxGone(name, "the sandbox has ended");
  }
}

/** A sandbox that ended, as the loader's events say. */
function sandboxEvent(parts: Parts, event: Event): void {
  if (event.kind?.$case !== "sandboxEvent") return;
  const { state, exit } = event.kind.value;
  const info = parts.sandboxes.get(event.sandbox)?.info;
  // A late event of an earlier sandbox of the same name must not end the present one.
  if (info === undefined || event.timeUs < info.createdUs) return;
  const now = { ...info, state, exit: exit ?? info.exit };
  switch (state) {
    case SandboxState.EXITED:
    case SandboxState.KILLED:
      parts.sandboxes.ended({ ...now, endedUs: event.timeUs });
      parts.holds.sandboxGone(event.sandbox, "the sandbox has ended");
      break;
    default:
      parts.sandboxes.seen(now);
  }
}

function note({ audit, log }: Parts, sandbox: string, summary: string): void {
  log.warn({ sandbox }, summary);
  const record = ownRecord({
    kind: "sandbox",
    timeUs: nowUs(),
    sandbox,
    summary,
    verdict: Verdict.UNSPECIFIED,
  });
  audit.append(record).catch((error: unknown) => {
    log.error({ error: sentence(error) }, "the audit could not be written");
  });
}

/** How long the last events of sandboxes that have ended may take until they are in the audit. */
const DRAIN_MS = 3000;

async function stop(parts: Parts, close: () => Promise<void>, spawned: boolean): Promise<void> {
  let idle = false;
  try {
    const loader = parts.link.client();
    const { sandboxes } = await call(loader, loader.listSandboxes, {}, 3000);
    idle = !sandboxes.some(({ state }) => isLive(state));
    // What a loader that is ended now has not delivered would be lost.
    const ended = sandboxes.filter(
      ({ name, state }) => !isLive(state) && parts.sandboxes.get(name) !== undefined,
    );
    const until = performance.now() + DRAIN_MS;
    while (ended.some(({ name }) => !parts.sandboxes.hasEnded(name)) && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  } catch {
    // A loader that does not answer is left alone: what it guards stays guarded.
  }
  await close();
  if (idle && spawned) await endIdleLoader(parts.paths, parts.log);
  parts.log.info("the supervisor has stopped");
}

async function endIdleLoader(paths: Paths, log: Logger): Promise<void> {
  const loader = runningLoader(paths);
  if (loader === undefined) return;
  if (await endLoader(paths)) log.info({ pid: loader.pid }, "ended the loader");
  else log.warn({ pid: loader.pid }, "the loader did not end on SIGTERM");
}
