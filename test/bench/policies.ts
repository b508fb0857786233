// Policies of any size for the figures: a mix of what people write, the same for the same size.

/** The kinds of rules, in the order in which they alternate. */
const EXEC = 6;
const NETWORK = 3;

/**
 * A policy of `rules` rules: of ten, six are about programs (half of them look at the arguments), three about hosts
 * and addresses, and one about a file in `folder`, named f0, f1 and so on.
 * @returns YAML text
 */
export function policyOf(rules: number, folder: string): string {
  const exec: string[] = [];
  const network: string[] = [];
  const file: string[] = [];
  for (let i = 0; i < rules; i++) {
    const turn = i % 10;
    if (turn < EXEC) exec.push(execRule(i, turn));
    else if (turn < EXEC + NETWORK) network.push(networkRule(i, turn));
    else
      file.push(
        `  - { id: f${i}, path: ${folder}/f${file.length}, operations: write, action: deny, optional: true }`,
      );
  }
  return `apiVersion: clawsec/v1
kind: Policy
metadata: { name: bench-policy }
sandbox:
  command: [/usr/bin/true]
  home: ${folder}
  workspace: ${folder}
  mounts:
    - { source: /usr }
    - { source: ${folder}, mode: rw }
exec:
${exec.join("\n")}
  - { id: programs, executable: /usr/**, action: allow }
network:
${network.join("\n")}
file:
${file.join("\n") || "  []"}
`;
}

function execRule(i: number, turn: number): string {
  switch (turn) {
    case 0:
      return `  - { id: e${i}, executable: /usr/bin/program-${i}, argv: ["*", "**", push, "**"], action: hold, because: it publishes }`;
    case 1:
      return `  - { id: e${i}, executable: "/usr/lib/tool-${i}/**", action: deny, message: not this tool }`;
    case 2:
      return `  - { id: e${i}, executable: /usr/bin/remove-${i}, argv: { flags: ["-r|--recursive"] }, action: hold }`;
    case 3:
      return `  - { id: e${i}, executable: "/usr/bin/{one,two,three}-${i}", action: deny }`;
    case 4:
      return `  - { id: e${i}, executable: /usr/bin/other-${i}, argv: { prefix: [run, task-${i}] }, action: deny }`;
    default:
      return `  - { id: e${i}, executable: /usr/bin/allowed-${i}, action: allow }`;
  }
}

function networkRule(i: number, turn: number): string {
  switch (turn) {
    case EXEC:
      return `  - { id: n${i}, host: host-${i}.example, port: 443, action: allow }`;
    case EXEC + 1:
      return `  - { id: n${i}, host: "*.domain-${i}.example", action: hold }`;
    default:
      return `  - { id: n${i}, cidr: 198.${18 + ((i >> 16) % 2)}.${(i >> 8) % 256}.${i % 256}/32, port: 22, action: deny }`;
  }
}
