// A clawsec of a test file's own (supervisor, loader, folders), with test hosts when asked for.

import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Hold } from "../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { Clawsec, type CliResult } from "../support/clawsec.js";
import { firstLine, makeTestHosts, type TestHosts } from "../support/hosts.js";

/** Top of the repository. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

let made = 0;

/** What a test file works with. */
export class Fixture {
  readonly folder = mkdtempSync("/var/tmp/clawsec-e2e-");
  readonly workspace = join(this.folder, "workspace");
  readonly guarded = join(this.folder, "guarded");
  readonly state = join(this.folder, "state");
  readonly runtime: string;
  readonly clawsec: Clawsec;
  #hosts: TestHosts | undefined;
  #sandboxes = 0;

  constructor() {
    made += 1;
    this.runtime = `/run/clawsec-e2e-${process.pid}-${made}`;
    chmodSync(this.folder, 0o755);
    for (const folder of [this.workspace, this.guarded, this.state, this.runtime]) {
      mkdirSync(folder, { recursive: true });
    }
    chownSync(this.workspace, 1000, 1000);
    for (const name of ["denied", "held", "logged", "plain"]) {
      writeFileSync(join(this.guarded, name), `words of ${name}\n`);
    }
    this.clawsec = new Clawsec(root, this.runtime, this.state);
  }

  /** Starts the supervisor (`up`: with these arguments), and the test hosts of the verdicts policy. */
  async start(options: { hosts?: boolean; up?: readonly string[] } = {}): Promise<void> {
    if (options.hosts) {
      this.#hosts = await makeTestHosts(process.pid % 250);
      const { addresses } = this.#hosts;
      const server = this.#hosts.spawn(process.execPath, [
        join(root, "dist/test/support/host-server.js"),
        `${addresses["allowed.test"]}=web`,
        `${addresses["other.test"]}=other`,
      ]);
      await firstLine(server, 20_000);
    }
    await this.clawsec.up(options.up);
  }

  async stop(): Promise<void> {
    await this.clawsec.down();
    await this.#hosts?.close();
    rmSync(this.folder, { recursive: true, force: true });
    rmSync(this.runtime, { recursive: true, force: true });
  }

  /** Arguments of `clawsec run` for the verdicts policy. */
  arguments(name: string, command: readonly string[], extra: readonly string[] = []): string[] {
    const variables: Record<string, string> = {
      workspace: this.workspace,
      guarded: this.guarded,
      node: realpathSync(process.execPath),
      ...this.hostVariables(),
    };
    if (this.#hosts) variables.other = this.#hosts.addresses["other.test"];
    const flags = Object.entries(variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
    const policy = join(root, "test/e2e/verdicts.policy.yaml");
    return ["run", "--name", name, "--policy", policy, ...flags, ...extra, "--", ...command];
  }

  /** Values for the variables of a policy that speaks of the test hosts. */
  hostVariables(): Record<string, string> {
    return this.#hosts === undefined
      ? {}
      : { range: this.#hosts.range, web: this.#hosts.addresses["allowed.test"] };
  }

  /** A name that no sandbox of this fixture has had. */
  name(): string {
    this.#sandboxes += 1;
    return `t${this.#sandboxes}`;
  }

  /** Runs a shell script in a new sandbox; `onHold` answers its holds, one after the other. */
  async run(script: string, onHold?: (hold: Hold) => Promise<void>): Promise<CliResult & { name: string }> {
    const name = this.name();
    const holding = onHold ? this.clawsec.nextHold(name, 30_000).then(onHold) : Promise.resolve();
    const [result] = await Promise.all([
      this.clawsec.cli(...this.arguments(name, ["/usr/bin/sh", "-c", script])),
      holding,
    ]);
    return { ...result, name };
  }

  /** A file in the workspace, as the sandbox left it; undefined when it is not there. */
  left(file: string): string | undefined {
    try {
      return readFileSync(join(this.workspace, file), "utf8");
    } catch {
      return undefined;
    }
  }

  approve = async (hold: Hold): Promise<void> => void (await this.clawsec.must("approve", hold.id));
  deny = async (hold: Hold): Promise<void> => void (await this.clawsec.must("deny", hold.id));

  /** Audit records of actions in a sandbox that this rule decided for good; waits up to 4 s for the first. */
  async records(sandbox: string, rule: string) {
    for (let attempt = 0; attempt < 40; attempt++) {
      const found = (await this.clawsec.audit({ sandbox, kinds: ["exec", "file", "network"] })).filter(
        (record) => record.rule === rule && record.verdict !== Verdict.HOLD,
      );
      if (found.length > 0) return found;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return [];
  }
}
