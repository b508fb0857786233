import { expect, test } from "vitest";
import { type Metadata, waysToYaml } from "./crates.ts";

function metadata(edges: Record<string, string[]>): Metadata {
  const ids = Object.keys(edges);
  return {
    packages: ids.map((name) => ({ id: name, name })),
    workspace_members: ["clawsec-loader"],
    resolve: { nodes: ids.map((id) => ({ id, dependencies: edges[id] ?? [] })) },
  };
}

test("a YAML crate behind another crate is found, with the way to it", () => {
  const ways = waysToYaml(
    metadata({ "clawsec-loader": ["config", "libc"], config: ["serde_yaml"], libc: [], serde_yaml: [] }),
  );
  expect(ways).toEqual(["clawsec-loader > config > serde_yaml"]);
});

test("a workspace without a YAML crate has no way to one, even with a cycle", () => {
  expect(waysToYaml(metadata({ "clawsec-loader": ["a"], a: ["b"], b: ["a"] }))).toEqual([]);
});
