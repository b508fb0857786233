import { run } from "./exec.ts";
import { failed, passed, type Step } from "./steps.ts";

/** The parts of `cargo metadata` that say who depends on whom. */
export interface Metadata {
  packages: { id: string; name: string }[];
  workspace_members: string[];
  resolve: { nodes: { id: string; dependencies: string[] }[] };
}

/**
 * Ways from a crate of the workspace to a crate that reads YAML, as "clawsec-loader > config > yaml-rust".
 * The loader knows no policy language, and YAML is how it would learn one.
 */
export function waysToYaml(metadata: Metadata): string[] {
  const names = new Map(metadata.packages.map(({ id, name }) => [id, name]));
  const dependencies = new Map(metadata.resolve.nodes.map((node) => [node.id, node.dependencies]));
  const ways: string[] = [];
  for (const member of metadata.workspace_members) {
    const seen = new Set([member]);
    const queue = [[member]];
    for (let way = queue.shift(); way !== undefined; way = queue.shift()) {
      const last = way.at(-1) ?? member;
      if (/ya?ml/i.test(names.get(last) ?? "")) {
        ways.push(way.map((id) => names.get(id) ?? id).join(" > "));
        break;
      }
      for (const next of dependencies.get(last) ?? []) {
        if (seen.has(next)) continue;
        seen.add(next);
        queue.push([...way, next]);
      }
    }
  }
  return ways;
}

/** Lint: no crate of the workspace depends on a YAML crate, not even through others. */
export const noYamlInLoader: Step = {
  name: "the loader knows no YAML",
  async run() {
    const outcome = await run(["cargo", "metadata", "--format-version", "1", "--locked"], { cwd: "bpf" });
    if (outcome.code !== 0) return failed(outcome.stderr, outcome.ending);
    const ways = waysToYaml(JSON.parse(outcome.stdout) as Metadata);
    return ways.length === 0 ? passed : failed(...ways.map((way) => `depends on a YAML crate: ${way}`));
  },
};
