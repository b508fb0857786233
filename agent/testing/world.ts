/** A supervisor of a test's own: real sockets and databases in a temporary folder, a scripted loader behind it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ControlClient } from "../../proto/gen/clawsec/v1/control.js";
import { controlClient } from "../common/grpc.js";
import { makeLog } from "../common/log.js";
import { type Paths, pathsOf } from "../common/paths.js";
import { type Supervisor, startSupervisor } from "../supervisor/daemon.js";
import { ScriptedLoader } from "./scripted-loader.js";

export class World {
  readonly folder = mkdtempSync(join(tmpdir(), "clawsec-"));
  readonly paths: Paths;
  readonly loader: ScriptedLoader;
  readonly control: ControlClient;
  supervisor: Supervisor | undefined;

  constructor() {
    this.paths = pathsOf({
      CLAWSEC_RUNTIME_DIR: join(this.folder, "run"),
      CLAWSEC_STATE_DIR: join(this.folder, "state"),
    });
    mkdirSync(this.paths.runtime);
    mkdirSync(this.paths.state);
    mkdirSync(join(this.folder, "work"));
    this.loader = new ScriptedLoader(this.paths.loaderSocket);
    this.control = controlClient(this.paths.controlSocket);
  }

  async start(): Promise<void> {
    await this.loader.start();
    await this.up();
  }

  /** Starts a supervisor (again). */
  async up(): Promise<void> {
    const log = makeLog({ kind: "none" });
    this.supervisor = await startSupervisor({
      paths: this.paths,
      log,
      spawnLoader: false,
      loaderTimeoutMs: 5000,
    });
  }

  async end(): Promise<void> {
    this.control.close();
    await this.supervisor?.stop();
    this.loader.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Writes a policy file and returns its path. `rules`: lines below `exec:`; `sandbox`: more lines below that. */
  policy(rules: readonly string[], name = "box", sandbox: readonly string[] = []): string {
    const path = join(this.folder, `${name}.yaml`);
    const lines = [
      "apiVersion: clawsec/v1",
      "kind: Policy",
      `metadata: { name: ${name} }`,
      "sandbox:",
      "  command: [/usr/bin/true]",
      "  user: { uid: 1000, gid: 1000, name: agent }",
      "  home: /work",
      "  workspace: /work",
      "  mounts:",
      "    - { source: /usr, target: /usr, mode: ro }",
      `    - { source: ${join(this.folder, "work")}, target: /work, mode: rw }`,
      ...sandbox.map((line) => `  ${line}`),
      "defaults: { exec: deny, network: deny }",
      "approvals: { timeout: 30s, default: deny }",
      "exec:",
      ...rules.map((rule) => `  - ${rule}`),
    ];
    writeFileSync(path, `${lines.join("\n")}\n`);
    return path;
  }
}
