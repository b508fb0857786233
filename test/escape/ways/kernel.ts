// Calls that get round a careless filter, namespaces and mounts of one's own.

import { call, changed, type Family, read, sh, shown, type Way } from "../way.js";

const FILTER = "seccomp filter";
const root = { control: "root" } as const;

const calls: readonly Way[] = [
  call("bpf-map", "a BPF map of its own", FILTER, shown, root),
  call("perf-counter", "perf_event_open", FILTER, shown, root),
  call("keyring", "a key in the user's keyring, which no namespace divides", FILTER, shown),
  call("userfault-call", "userfaultfd: readers of its memory wait for it", FILTER, shown),
  call("filter-prctl", "a system call filter of its own, by prctl", FILTER, shown),
  call("filter-call", "a system call filter of its own, by seccomp", FILTER, shown),
  call("filter-listener", "a seccomp listener of its own", FILTER, shown),
  call("fanotify-group", "a fanotify group of its own", FILTER, shown, root),
  call("data-is-code", "personality: data that is executable", FILTER, shown),
  call("terminal-input", "TIOCSTI: typing into a terminal", FILTER, shown, root),
  call("kernel-log", "the kernel's log", FILTER, shown, root),
  call("segments", "modify_ldt", FILTER, shown, { needs: "has-segments" }),
  call("ports", "iopl", FILTER, shown, { ...root, needs: "has-ports" }),
  call("algorithm", "AF_ALG: the kernel's cryptography", FILTER, shown, { needs: "has-algorithm" }),
  call("vsock", "AF_VSOCK", FILTER, shown, { needs: "has-vsock" }),
  call("netlink-user", "netlink beside the route family", FILTER, shown),
  call("character-node", "mknod of a character device", FILTER, shown, root),
  call("block-node", "mknodat of a block device", FILTER, shown, root),
];

const users: readonly Way[] = [
  sh(
    "set-user",
    "a program of root with the set-user-ID bit",
    "OCI configuration: no_new_privs, and nosuid mounts",
    shown,
    '"/home/agent/.openclaw/workspace/set-user"',
  ),
  sh(
    "file-capability",
    "a program with a capability in its file",
    "OCI configuration: no_new_privs, and nosuid mounts",
    shown,
    '"/home/agent/.openclaw/workspace/file-capability"',
  ),
];

const namespaces: readonly Way[] = [
  call("unshare-user", "unshare of a user namespace", FILTER, shown),
  call("unshare-mount", "unshare of a mount namespace", FILTER, shown),
  call("unshare-net", "unshare of a network namespace", FILTER, shown),
  call("unshare-cgroup", "unshare of a cgroup namespace", FILTER, shown),
  call("clone-user", "clone into a user namespace", FILTER, shown),
  call("clone-mount", "clone into a mount namespace", FILTER, shown),
  call("clone-pid", "clone into a pid namespace", FILTER, shown),
  call("clone-upper", "clone with bits that the kernel drops", FILTER, shown),
  call("clone3-user", "clone3, whose flags no filter sees", FILTER, shown),
  call("enter-first", "setns into the namespaces of PID 1", FILTER, shown, root),
  call("enter-pidfd", "setns by a pidfd", FILTER, shown, root),
  call("host-name", "sethostname", FILTER, shown, root),
];

const mounts: readonly Way[] = [
  call("user-mount", "a mount over /etc as root of a user namespace", FILTER, shown),
  call("mount-over", "a mount over /etc", FILTER, shown, root),
  call("new-filesystem", "fsopen, fsmount, move_mount over /etc", FILTER, shown, root),
  call("take-mask", "umount of what masks a folder", FILTER, read("victim"), { ...root, victim: "masked" }),
  call("remount", "a read-only mount made writable by mount", FILTER, changed, { ...root, victim: "locked" }),
  call("set-attributes", "a read-only mount made writable by mount_setattr", FILTER, changed, {
    ...root,
    victim: "read-only",
  }),
  call("clone-tree", "open_tree: a clone of the mount without its masks", FILTER, read("victim"), {
    ...root,
    victim: "masked",
  }),
  call("chroot-out", "chroot, and up by ..", FILTER, shown, root),
  call("pivot", "pivot_root", FILTER, shown, root),
  call("by-handle", "open_by_handle_at: a masked file by its number", FILTER, read("victim"), {
    ...root,
    victim: "masked",
  }),
];

export const kernelFamily: Family = { name: "kernel", ways: [...calls, ...users, ...namespaces, ...mounts] };
