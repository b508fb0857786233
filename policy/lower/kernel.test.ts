// The lowered mount view and system call filter, applied by runc to the real kernel. Harmless: the sandbox sees
// /usr read-only and one temporary folder; its network namespace has nothing in it. Needs root and runc.
//
// The filter's notifications are left out, as nobody answers them here; everything it refuses is as lowered.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RootfsEntry } from "../../proto/gen/clawsec/v1/loader.js";
import { compile } from "../compile.js";
import { renderDiagnostics } from "../diagnostics.js";
import { parsePolicy } from "../schema.js";
import { capabilities } from "../testing/host.js";
import type { HostView, PathKind } from "./host.js";

const possible = process.getuid?.() === 0 && spawnSync("runc", ["--version"]).status === 0;

function attempt<T>(what: () => T): T | undefined {
  try {
    return what();
  } catch {
    return undefined;
  }
}

const host: HostView = {
  kind(path): PathKind {
    const stat = attempt(() => lstatSync(path));
    if (stat === undefined) return "missing";
    if (stat.isSymbolicLink()) return "symlink";
    return stat.isDirectory() ? "directory" : stat.isFile() ? "file" : "other";
  },
  readlink: (path) => attempt(() => readlinkSync(path)),
  resolve: (path) => attempt(() => realpathSync(path)),
};

/** system calls by number, x86-64: what each of them gives inside, as errno names or "ok". */
const PERL = `
use Errno; use POSIX ();
sub name { my $e = $! + 0; for my $k (keys %!) { no strict; return $k if &{"Errno::$k"}() == $e } "errno $e" }
while (my $line = <STDIN>) { chomp $line; my ($label, @call) = split / /, $line;
  # In a child: a call that is permitted may change or end the process.
  my $pid = open(my $out, "-|"); if (!$pid) { my @a = map { /^s:(.*)/ ? $1 : 0 + eval $_ } @call;
    my $r = syscall(shift @a, @a); $| = 1; print $r == -1 ? name() : "ok"; POSIX::_exit(0) }
  my $said = <$out>; close $out; print "$label=$said\\n"; }
`;

describe.runIf(possible && process.arch === "x64")("on this kernel", () => {
  let place = "";
  let rootfs: RootfsEntry[] = [];
  let filter: { syscalls: { action: string }[] };

  const owned = (path: string) => chownSync(path, 1000, 1000);

  beforeAll(() => {
    place = mkdtempSync(join(tmpdir(), "clawsec-policy-"));
    const home = join(place, "home");
    for (const folder of ["", "/.ssh", "/state", "/state/ws", "/tools", "/tools/in"]) {
      mkdirSync(home + folder, { recursive: true });
      owned(home + folder);
    }
    for (const file of ["/.ssh/id", "/state/config", "/state/ws/keep", "/state/free"]) {
      writeFileSync(home + file, `content of ${file}\n`);
      owned(home + file);
    }
    for (const file of ["/tools/run", "/tools/in/run", "/run"]) {
      writeFileSync(home + file, "#!/bin/sh\necho ran\n");
      chmodSync(home + file, 0o755);
    }
    const text = `apiVersion: clawsec/v1
kind: Policy
metadata: { name: kernel }
sandbox:
  command: [/bin/true]
  home: /home/agent
  mounts: [{ source: /usr }, { source: "${home}", target: /home/agent, mode: rw }]
file:
  - { id: keys, path: /home/agent/.ssh, operations: read, action: deny }
  - { id: config, path: /home/agent/state/config, operations: write, action: deny }
  - { id: keep, path: /home/agent/state/ws/keep, operations: [delete, rename, link], action: deny }
  - { id: tools, path: /home/agent/tools, operations: exec, action: deny }
  - { id: inner, path: /home/agent/tools/in, operations: write, action: deny }
secrets: { items: [] }
`;
    const { policy, diagnostics } = parsePolicy(text, "kernel.yaml");
    if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
    const { artefacts, diagnostics: found } = compile(policy, { host, capabilities: capabilities() });
    if (artefacts === undefined) throw new Error(renderDiagnostics(found));
    rootfs = artefacts.rootfs;
    config = JSON.parse(artefacts.ociConfig.toString());
    filter = JSON.parse(artefacts.seccomp.toString());
  });

  afterAll(() => {
    if (place !== "") rmSync(place, { recursive: true, force: true });
  });

  let config: { process: { args: string[] }; linux: Record<string, unknown> };
  let runs = 0;

  /** A bundle for one run: runc leaves mount points in a root file system, which is why the loader makes each anew. */
  function makeBundle(): string {
    const bundle = mkdtempSync(join(place, "bundle-"));
    for (const { path, kind } of rootfs) {
      const at = join(bundle, "rootfs", path);
      mkdirSync(dirname(at), { recursive: true });
      if (kind?.$case === "directory") mkdirSync(at, { recursive: true });
      else if (kind?.$case === "symlink") symlinkSync(kind.value, at);
      else if (kind?.$case === "file") writeFileSync(at, kind.value);
    }
    return bundle;
  }

  function run(args: string[], options: { seccomp?: boolean; input?: string } = {}): string {
    const seccomp = { ...filter, syscalls: filter.syscalls.filter((s) => s.action !== "SCMP_ACT_NOTIFY") };
    const spec = {
      ...config,
      process: { ...config.process, args },
      linux: { ...config.linux, ...(options.seccomp ? { seccomp } : {}) },
    };
    const bundle = makeBundle();
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
    const id = `clawsec-policy-${process.pid}-${runs++}`;
    const done = spawnSync("runc", ["--root", join(place, "runc"), "run", "-b", bundle, id], {
      encoding: "utf8",
      input: options.input ?? "",
      timeout: 60_000,
    });
    return `${done.stdout}${done.stderr}`;
  }
  /** What a shell line says inside: "yes", or the last word of its error. */
  const sh = (line: string) => run(["/bin/sh", "-c", `if ${line} >/dev/null; then echo yes; fi 2>&1`]).trim();

  test.each([
    ["cat ~/state/config", "yes"],
    ["echo x >~/state/config", "Read-only file system"],
    ["rm ~/state/config", "Device or resource busy"],
    ["rm ~/state/free", "yes"],
    ["mv ~/state ~/elsewhere", "Device or resource busy"],
    ["cat ~/.ssh/id", "No such file or directory"],
    ["rm -f ~/state/ws/keep", "Device or resource busy"],
    ["mv ~/state/ws/keep ~/state/ws/other", "Device or resource busy"],
    ["ln ~/state/ws/keep ~/state/ws/other", "Invalid cross-device link"],
    ["echo more >>~/state/ws/keep", "yes"],
    ["~/tools/run", "Permission denied"],
    ["~/tools/in/run", "Permission denied"],
    ["cp ~/run ~/tools/made && ~/tools/made", "Permission denied"],
    ["mv ~/tools ~/elsewhere", "Device or resource busy"],
    ["~/run", "yes"],
    ["sh ~/tools/run", "yes"],
    ["touch ~/new", "yes"],
    ["touch /usr/new", "Read-only file system"],
    ["touch /new", "Read-only file system"],
    ["touch /tmp/new /var/tmp/new /dev/shm/new", "yes"],
    ["touch /run/new", "Permission denied"],
    ["ls /run/secrets/clawsec", "yes"],
    ["grep -q 127.0.0.53 /etc/resolv.conf", "yes"],
    ["echo x >>/etc/resolv.conf", "Permission denied"],
    ['test "$(id -un):$(id -u):$HOME" = agent:1000:/home/agent', "yes"],
  ])("%s: %s", (line, expected) => {
    expect(sh(line)).toContain(expected);
  });

  test("the filter refuses what gets round the other layers, and only that", () => {
    // label, number, arguments; expected. 1 << 33 beside a small number sets the upper half of a register.
    const calls: [string, string, string][] = [
      ["socket-unix", "41 1 1 0", "ok"],
      ["socket-tcp", "41 2 1 0", "ok"],
      ["socket-tcp-named", "41 2 1 6", "ok"],
      ["socket-tcp-cloexec", "41 2 0x80801 6", "ok"],
      ["socket-udp", "41 2 2 17", "ok"],
      ["socket-tcp6", "41 10 1 0", "ok"],
      ["socket-netlink-route", "41 16 3 0", "ok"],
      ["socket-unix-seqpacket", "41 1 5 0", "ok"],
      ["socket-mptcp", "41 2 1 262", "EPERM"],
      ["socket-icmp", "41 2 2 1", "EPERM"],
      ["socket-icmp6", "41 10 2 58", "EPERM"],
      ["socket-sctp", "41 2 1 132", "EPERM"],
      ["socket-udplite", "41 2 2 136", "EPERM"],
      ["socket-raw", "41 2 3 0", "EPERM"],
      ["socket-packet", "41 17 3 0", "EPERM"],
      ["socket-vsock", "41 40 1 0", "EPERM"],
      ["socket-alg", "41 38 5 0", "EPERM"],
      ["socket-audit", "41 16 3 9", "EPERM"],
      ["socket-high-bits", "41 (1<<33)|17 3 0", "EPERM"],
      ["socket-high-bits-tcp", "41 (1<<33)|2 1 0", "EPERM"],
      ["socket-high-bits-mptcp", "41 2 1 (1<<33)|262", "EPERM"],
      ["socketpair-inet", "53 2 1 0 0", "EPERM"],
      ["unshare", "272 0x10000000", "EPERM"],
      ["setns", "308 0 0", "EPERM"],
      ["clone-newuser", "56 0x10000011 0 0 0 0", "EPERM"],
      ["clone-newns", "56 0x00020011 0 0 0 0", "EPERM"],
      // Parent and child both say it.
      ["clone-fork", "56 17 0 0 0 0", "okok"],
      ["clone3", "435 0 0", "ENOSYS"],
      ["ptrace-traceme", "101 0 0 0 0", "EPERM"],
      ["io_uring_setup", "425 1 0", "EPERM"],
      ["bpf", "321 0 0 0", "EPERM"],
      ["userfaultfd", "323 0", "EPERM"],
      ["keyctl", "250 0 0", "EPERM"],
      ["open_tree", "428 0 s:/ 0", "EPERM"],
      ["fsopen", "430 s:tmpfs 0", "EPERM"],
      ["open_by_handle_at", "304 0 0 0", "EPERM"],
      ["perf_event_open", "298 0 0 -1 -1 0", "EPERM"],
      ["pidfd_getfd", "438 0 0 0", "EPERM"],
      ["process_vm_readv", "310 1 0 0 0 0 0", "EPERM"],
      ["mknod-char", "133 s:/tmp/c 0x2180 259", "EPERM"],
      ["mknod-file", "133 s:/tmp/f 0x8180 0", "ok"],
      ["mknod-fifo", "133 s:/tmp/p 0x1180 0", "ok"],
      ["ioctl-tiocsti", "16 0 0x5412 0", "EPERM"],
      ["ioctl-tiocsti-high-bits", "16 0 (1<<33)|0x5412 0", "EPERM"],
      ["ioctl-other", "16 0 0x5401 0", "ENOTTY"],
      ["personality-read", "135 0xffffffff", "ok"],
      ["personality-default", "135 0", "ok"],
      ["personality-no-random", "135 0x0040000", "EPERM"],
      ["personality-read-implies-exec", "135 0x0400000", "EPERM"],
      ["personality-almost-read", "135 0xfffffffe", "EPERM"],
      ["personality-top-bit", "135 0x80000000", "EPERM"],
      ["landlock-version", "444 0 0 1", "ok"],
      ["memfd_create", "319 s:x 0", "ok"],
      // A null program would be EFAULT where the call is let through.
      ["seccomp-filter", "317 1 0 0", "EINVAL"],
      ["prctl-seccomp", "157 22 2 0 0 0", "EINVAL"],
      ["prctl-seccomp-high-bits", "157 (1<<33)|22 2 0 0 0", "EINVAL"],
      ["prctl-name", "157 15 s:name 0 0 0", "ok"],
      ["prlimit-own", "302 0 0 s:................ 0", "ok"],
      ["prlimit-other", "302 1 0 s:................ 0", "EPERM"],
    ];
    const input = calls.map(([label, call]) => `${label} ${call}\n`).join("");
    const said = run(["/usr/bin/perl", "-e", PERL], { seccomp: true, input });
    expect(said.trim().split("\n")).toEqual(calls.map(([label, , expected]) => `${label}=${expected}`));
  });
});
