/** A folder of a test's own with policies, the files that they mount, and the policy commands run on them. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { capabilityJson } from "../cli/format.js";
import type { Io } from "../cli/io.js";
import { main } from "../cli/program.js";
import { type Paths, pathsOf } from "../common/paths.js";
import { capabilities } from "./scripted-loader.js";

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Sections of a policy for what the folder has. */
export const GIT = `exec:
  - id: no-push
    executable: /tools/real
    argv: ["*", push, "**"]
    action: deny
    because: what is pushed cannot be taken back
  - { id: tools, executable: /tools/*, action: allow }
network:
  - { id: api, host: "*.example.com", port: 443, action: allow }
`;

export class PolicyFolder {
  readonly folder = mkdtempSync(join(tmpdir(), "clawsec-policy-"));
  /** What a host can enforce, as `clawsec doctor --json` prints it: everything. */
  readonly host = join(this.folder, "host.json");

  constructor() {
    this.capabilities("host.json");
    for (const name of ["work", "tools"]) mkdirSync(join(this.folder, name));
    writeFileSync(join(this.folder, "tools", "real"), "\x7fELF");
    symlinkSync("real", join(this.folder, "tools", "link"));
    writeFileSync(join(this.folder, "tools", "script"), "#!/tools/link -x\necho\n");
    writeFileSync(join(this.folder, "tools", "lost"), "#!/nowhere/interpreter\n");
  }

  readonly end = () => rmSync(this.folder, { recursive: true, force: true });

  /** `clawsec policy ARGS` where no daemon runs. */
  readonly cli = (...args: string[]): Promise<Ran> =>
    this.run(
      pathsOf({
        CLAWSEC_RUNTIME_DIR: join(this.folder, "run"),
        CLAWSEC_STATE_DIR: join(this.folder, "state"),
      }),
      ...args,
    );

  /** The same with --json, parsed. */
  readonly json = async (command: string, ...args: string[]) =>
    JSON.parse((await this.cli(command, "--json", ...args)).out);

  readonly run = async (paths: Paths, ...args: string[]): Promise<Ran> => {
    let out = "";
    let err = "";
    const io: Io = {
      stdout: { write: (text) => (out += text), isTTY: false },
      stderr: { write: (text) => (err += text), isTTY: false },
      environment: {},
      paths,
      exit: 0,
    };
    return { code: await main(["policy", ...args], io), out, err };
  };

  /** Writes a file and returns its path. */
  readonly file = (name: string, text: string): string => {
    const path = join(this.folder, name);
    writeFileSync(path, text);
    return path;
  };

  /** Writes what a host without some mechanisms can enforce. */
  readonly capabilities = (name: string, without: readonly string[] = []): string =>
    this.file(name, JSON.stringify({ ok: true, capabilities: capabilities(without).map(capabilityJson) }));

  /** Writes NAME.yaml, a policy around the sections; `head` goes before its sandbox. */
  readonly policy = (name: string, sections: string, head = ""): string =>
    this.file(
      `${name}.yaml`,
      `apiVersion: clawsec/v1
kind: Policy
metadata: { name: ${basename(name)} }
${head}sandbox:
  command: [/tools/real]
  home: /work
  environment: { PATH: "/none:/tools" }
  mounts:
    - { source: ${this.folder}/tools, target: /tools }
    - { source: ${this.folder}/work, target: /work, mode: rw }
${sections}
`,
    );
}
