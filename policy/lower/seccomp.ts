// The seccomp profile, as OCI LinuxSeccomp JSON. Allow by default, because what a program may do with files,
// addresses and programs is decided by better layers; refused is what would get round those layers. Each group says
// what it would get round. Order is fixed: the same policy gives the same bytes.

/** x86-64 and arm64 are the same here: libseccomp leaves out names that an architecture does not have. */
export type Architecture = "x64" | "arm64";

interface Argument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: "SCMP_CMP_EQ" | "SCMP_CMP_NE" | "SCMP_CMP_GT" | "SCMP_CMP_MASKED_EQ";
}

interface Rule {
  readonly names: readonly string[];
  readonly action: "SCMP_ACT_ERRNO" | "SCMP_ACT_NOTIFY";
  readonly errnoRet?: number;
  readonly args?: readonly Argument[];
}

export interface SeccompProfile {
  readonly defaultAction: "SCMP_ACT_ALLOW";
  readonly architectures: readonly string[];
  readonly syscalls: readonly Rule[];
}

const EPERM = 1;
const EINVAL = 22;
const ENOSYS = 38;

function refuse(names: readonly string[], args?: readonly Argument[]): Rule {
  const rule: Rule = { names, action: "SCMP_ACT_ERRNO", errnoRet: EPERM };
  return args === undefined ? rule : { ...rule, args };
}

const eq = (index: number, value: number): Argument => ({ index, value, op: "SCMP_CMP_EQ" });
const ne = (index: number, value: number): Argument => ({ index, value, op: "SCMP_CMP_NE" });
const gt = (index: number, value: number): Argument => ({ index, value, op: "SCMP_CMP_GT" });
/** Compares some bits only, and so also ignores the upper half of a register where the kernel takes an int. */
const bits = (index: number, mask: number, value: number): Argument => ({
  index,
  value: mask,
  valueTwo: value,
  op: "SCMP_CMP_MASKED_EQ",
});

/** Refused with whatever arguments. */
const REFUSED: readonly Rule[] = [
  // Opens, connects and unlinks that no filter sees.
  refuse(["io_uring_setup", "io_uring_enter", "io_uring_register"]),
  // Other processes' memory and descriptors; a tracer would also take the place of the one that holds execs.
  refuse(["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"]),
  // Stops a reader of the caller's memory for as long as the caller likes.
  refuse(["userfaultfd"]),
  // Kernel programs and views.
  refuse(["bpf", "perf_event_open", "lookup_dcookie", "syslog"]),
  // Keyrings are not namespaced.
  refuse(["keyctl", "add_key", "request_key"]),
  // The mount view and namespaces.
  refuse(["mount", "umount", "umount2", "pivot_root", "chroot", "setns", "unshare"]),
  refuse([
    "open_tree",
    "open_tree_attr",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
  ]),
  // Files by inode, past every path.
  refuse(["open_by_handle_at"]),
  // fanotify groups could answer for ours.
  refuse(["fanotify_init", "fanotify_mark"]),
  // Another process's limits: a tool has its gateway's uid.
  refuse(["prlimit64"], [ne(0, 0), ne(2, 0)]),
  // The machine.
  refuse([
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "query_module",
    "get_kernel_syms",
  ]),
  refuse([
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "quotactl_fd",
    "sethostname",
    "setdomainname",
    "vhangup",
  ]),
  refuse([
    "clock_settime",
    "clock_settime64",
    "clock_adjtime",
    "clock_adjtime64",
    "settimeofday",
    "stime",
    "adjtimex",
  ]),
  refuse(["iopl", "ioperm", "modify_ldt", "vm86", "vm86old"]),
  refuse(["move_pages", "migrate_pages", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl"]),
];

/** prctl(2)'s way to install a filter. */
const PR_SET_SECCOMP = 22;

/**
 * No filters but ours. A filter answers system calls, so one that was installed before an entry could tell its shim
 * that Landlock was applied when it was not. EINVAL is what a kernel without filters says: programs go on without.
 */
function filters(): Rule[] {
  return [
    { names: ["seccomp"], action: "SCMP_ACT_ERRNO", errnoRet: EINVAL },
    {
      names: ["prctl"],
      action: "SCMP_ACT_ERRNO",
      errnoRet: EINVAL,
      args: [bits(0, 0xffffffff, PR_SET_SECCOMP)],
    },
  ];
}

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: together 0x7e020000. */
const CLONE_NEW = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000];

function clones(): Rule[] {
  return [
    ...CLONE_NEW.map((flag) => refuse(["clone"], [bits(0, flag, flag)])),
    // clone3's flags are behind a pointer, where no filter sees them. ENOSYS: the C library falls back to clone.
    { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS },
  ];
}

const AF = { UNIX: 1, INET: 2, INET6: 10, NETLINK: 16 } as const;
const FAMILIES: readonly number[] = Object.values(AF);
const TYPE = { RAW: 3, RDM: 4, SEQPACKET: 5, DCCP: 6, PACKET: 10 } as const;
/** Bits of the type argument that are the type (SOCK_TYPE_MASK of linux/net.h). */
const TYPE_MASK = 0xf;
const PROTOCOL = { TCP: 6, UDP: 17 } as const;

/**
 * Sockets of the families unix, inet, inet6 and netlink's route protocol; of inet only TCP and UDP. vsock, packet,
 * AF_ALG and the rest reach what the network gate does not stand before; MPTCP, SCTP and ICMP pass by Landlock and
 * by filters that think of TCP. The kernel reads ints: a value with bits in the register's upper half is "greater
 * than" here and refused.
 */
function sockets(): Rule[] {
  const rules: Rule[] = [];
  for (let family = 0; family <= AF.NETLINK; family++) {
    if (!FAMILIES.includes(family)) rules.push(refuse(["socket"], [eq(0, family)]));
  }
  rules.push(refuse(["socket"], [gt(0, AF.NETLINK)]));
  for (const type of [TYPE.RDM, TYPE.DCCP, TYPE.PACKET])
    rules.push(refuse(["socket"], [bits(1, TYPE_MASK, type)]));
  for (const family of [AF.INET, AF.INET6]) {
    for (const type of [TYPE.RAW, TYPE.SEQPACKET]) {
      rules.push(refuse(["socket"], [eq(0, family), bits(1, TYPE_MASK, type)]));
    }
    for (let protocol = 1; protocol < PROTOCOL.UDP; protocol++) {
      if (protocol !== PROTOCOL.TCP) rules.push(refuse(["socket"], [eq(0, family), eq(2, protocol)]));
    }
  }
  rules.push(refuse(["socket"], [gt(2, PROTOCOL.UDP)]));
  // NETLINK_ROUTE is 0. The C library lists interfaces with it; without CAP_NET_ADMIN it changes nothing.
  rules.push(refuse(["socket"], [eq(0, AF.NETLINK), ne(2, 0)]));
  rules.push(refuse(["socketpair"], [ne(0, AF.UNIX)]));
  return rules;
}

/** Terminal input injection: TIOCSTI and TIOCLINUX of asm-generic/ioctls.h. */
function ioctls(): Rule[] {
  return [0x5412, 0x541c].map((request) => refuse(["ioctl"], [bits(1, 0xffffffff, request)]));
}

/** Device nodes. The mode's type bits: 0x2000 is a character, 0x6000 a block device. */
function devices(): Rule[] {
  return [0x2000, 0x6000].flatMap((type) => [
    refuse(["mknod"], [bits(1, 0xf000, type)]),
    refuse(["mknodat"], [bits(2, 0xf000, type)]),
  ]);
}

/**
 * personality(2) but to read it (0xffffffff) and for the default (0): others switch off address randomization or
 * make data executable. "Neither all zeros nor all ones" is: somewhere a one is followed, cyclically, by a zero.
 */
function personality(): Rule[] {
  const rules: Rule[] = [];
  for (let bit = 0; bit < 32; bit++) {
    const one = 2 ** bit;
    const zero = 2 ** ((bit + 1) % 32);
    rules.push(refuse(["personality"], [bits(0, one + zero, one)]));
  }
  return rules;
}

/** Calls that change names or sizes, asked about when the policy guards them. */
const NAME_CALLS = [
  "unlink",
  "unlinkat",
  "rmdir",
  "rename",
  "renameat",
  "renameat2",
  "link",
  "linkat",
  "truncate",
];

export function lowerSeccomp(architecture: Architecture, options: { notifyNames: boolean }): SeccompProfile {
  const notified = ["execve", "execveat", ...(options.notifyNames ? NAME_CALLS : [])];
  return {
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: [architecture === "x64" ? "SCMP_ARCH_X86_64" : "SCMP_ARCH_AARCH64"],
    syscalls: [
      { names: notified, action: "SCMP_ACT_NOTIFY" },
      ...REFUSED,
      ...filters(),
      ...clones(),
      ...sockets(),
      ...ioctls(),
      ...devices(),
      ...personality(),
    ],
  };
}
