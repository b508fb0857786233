// Ways of a tool to the gateway: its secret, its memory, its life. Both have the same uid.

import { NODE } from "../place.js";
import { call, type Family, heard, js, ran, read, type Subject, sh, shown, type Way } from "../way.js";

const LANDLOCK = "Landlock: the tool's own domain";
const FILTER = "seccomp filter";
const ENTRY = "tool entry: the environment is cleaned";
const TOOL: readonly Subject[] = ["tool"];
const secret = read("secret");
const tool = { subjects: TOOL };

/** A variable of the caller that has code loaded into the tool. */
function entry(
  name: string,
  what: string,
  variables: Readonly<Record<string, string>>,
  command = "echo ran",
): Way {
  // Bash takes a socket as its input, which a pipe of Node's is, for a remote shell, and reads other files then.
  const text = [
    'const { spawnSync } = await import("node:child_process");',
    `const env = { ...process.env, ...environment, ...${JSON.stringify(variables)} };`,
    `const done = spawnSync("/.clawsec/bash", ["-c", ${JSON.stringify(command)}], { env, stdio: ["ignore", "pipe", "pipe"] });`,
    "say(`${done.status} ${done.stdout} ${done.stderr}`);",
  ].join("\n");
  return js(`entry-${name}`, `${what} of whoever starts a tool`, ENTRY, ran, text, { subjects: ["broker"] });
}

export const processFamily: Family = {
  name: "gateway",
  ways: [
    sh("secret-open", "the secret by its path", LANDLOCK, secret, 'cat "$SECRET"'),
    sh("secret-self-root", "the secret by /proc/self/root", LANDLOCK, secret, 'cat "/proc/self/root$SECRET"'),
    sh(
      "secret-link",
      "a hard link to the secret",
      LANDLOCK,
      secret,
      'cp -l "$SECRET" l; cat l; cp "$SECRET" c; cat c',
    ),
    call("proc-root", "/proc/GATEWAY/root and the path", LANDLOCK, secret, tool),
    call("proc-cwd", "/proc/GATEWAY/cwd and the path", LANDLOCK, secret, tool),
    call("proc-task", "/proc/GATEWAY/task/TID/root", LANDLOCK, secret, tool),
    call("proc-descriptor", "/proc/GATEWAY/fd/N", LANDLOCK, secret, tool),
    call("proc-environ", "/proc/GATEWAY/environ", LANDLOCK, read("gateway environment"), tool),
    call("proc-mem-read", "/proc/GATEWAY/mem, read", LANDLOCK, secret, tool),
    call("proc-mem-write", "/proc/GATEWAY/mem, written", LANDLOCK, heard("gateway"), tool),
    call("vm-read", "process_vm_readv", FILTER, secret, tool),
    call("vm-write", "process_vm_writev", FILTER, heard("gateway"), tool),
    call("steal-descriptor", "pidfd_getfd", FILTER, secret, tool),
    call("trace-read", "ptrace, read", FILTER, secret, tool),
    call("trace-write", "ptrace, written", FILTER, heard("gateway"), tool),
    call("trace-child", "ptrace of a child of its own", FILTER, shown),
    call("self-mem", "/proc/self/mem past its own page protection", LANDLOCK, shown),
    call("limit-gateway", "prlimit64 of the gateway's limits", FILTER, shown, tool),
    call("signal-gateway", "kill", LANDLOCK, heard("gateway"), tool),
    call("signal-pidfd", "pidfd_send_signal", LANDLOCK, heard("gateway"), tool),
    call("signal-queue", "sigqueue", LANDLOCK, heard("gateway"), tool),
    call("signal-thread", "tgkill", LANDLOCK, heard("gateway"), tool),
    call("signal-owner", "F_SETOWN: the kernel sends the signal", LANDLOCK, heard("gateway"), tool),
    call("unix-abstract-gateway", "an abstract unix socket of the gateway", LANDLOCK, heard("gateway"), {
      ...tool,
      name: "unix-abstract",
    }),
    call("loopback-tool", "the gateway's port on 127.0.0.1", "cgroup BPF: loopback ports", heard("gateway"), {
      ...tool,
      name: "loopback",
    }),
    call(
      "loopback-other",
      "the gateway's port on 127.8.9.10",
      "cgroup BPF: loopback ports",
      heard("gateway"),
      tool,
    ),
    call(
      "loopback-zero",
      "the gateway's port on 0.0.0.0",
      "cgroup BPF: loopback ports",
      heard("gateway"),
      tool,
    ),
    call("loopback-six", "the gateway's port on ::1", "cgroup BPF: loopback ports", heard("gateway"), tool),
    call(
      "loopback-mapped",
      "the gateway's port on ::ffff:127.0.0.1",
      "cgroup BPF: loopback ports",
      heard("gateway"),
      tool,
    ),
    call(
      "loopback-fast",
      "the gateway's port by MSG_FASTOPEN",
      "cgroup BPF: loopback ports",
      heard("gateway"),
      tool,
    ),
    call("loopback-udp", "the gateway's port by UDP", "cgroup BPF: loopback ports", heard("gateway"), tool),
    sh(
      "gateway-tmp",
      "a file in the gateway's temporary folder",
      LANDLOCK,
      { kind: "shown" },
      'echo x > "/var/gateway-tmp/$TOKEN" && grep -q x "/var/gateway-tmp/$TOKEN" && echo "effect $TOKEN"',
    ),
    entry("ld-preload", "LD_PRELOAD", { LD_PRELOAD: "/opt/escape/bin/preload.so" }),
    entry("ld-audit", "LD_AUDIT", { LD_AUDIT: "/opt/escape/bin/preload.so" }),
    entry("bash-env", "BASH_ENV", { BASH_ENV: "/opt/escape/bin/bash-env" }),
    entry(
      "node-options",
      "NODE_OPTIONS",
      { NODE_OPTIONS: "--require=/opt/escape/bin/required.cjs" },
      `exec "${NODE}" -e 0`,
    ),
    entry(
      "python-path",
      "PYTHONPATH",
      { PYTHONPATH: "/opt/escape/bin/python" },
      "exec /usr/bin/python3 -c pass",
    ),
    entry(
      "function",
      "an exported shell function",
      { "BASH_FUNC_ls%%": "() { echo $TOKEN > $MARK; }" },
      "ls",
    ),
  ],
};
