/* The ABI between the exec gate's BPF programs and src/bpf/abi.rs. Fixed-width members, no implicit padding.
 *
 * Kernel side: exec_verify.bpf.c. Both sides are built together; the loader compares the sizes of the map
 * values with its own before it attaches anything.
 */
#ifndef CLAWSEC_EXEC_GATE_H
#define CLAWSEC_EXEC_GATE_H

/* Longest argv, terminating zeros included, that is compared. A longer one is killed: hashing runs with
 * preemption off, 100 KB take about 0.1 ms. */
#define CLAWSEC_ARGV_MAX (128 * 1024)
/* The same for an environment, where the approval is bound to one. */
#define CLAWSEC_ENVIRONMENT_MAX CLAWSEC_ARGV_MAX

/* A scope cgroup lies at most this deep below the root of the hierarchy; user space refuses a deeper one. */
#define CLAWSEC_LEVEL_MAX 16

/* What an event shows at most of each text, in bytes. A longer one is cut, and the event has its whole length. All of
 * them and the event itself fit in one value of a per-cpu map, which can have 32 KiB. */
#define CLAWSEC_PATH_MAX          4096
#define CLAWSEC_ARGV_SHOWN        8192
#define CLAWSEC_ENVIRONMENT_SHOWN 8192

/* What the program found at an exec. Zero is never a permission. */
enum clawsec_exec_result {
    CLAWSEC_EXEC_UNSET = 0,
    CLAWSEC_EXEC_VERIFIED = 1,
    CLAWSEC_EXEC_NO_APPROVAL = 2,
    CLAWSEC_EXEC_OTHER_FILE = 3,
    CLAWSEC_EXEC_OTHER_ARGC = 4,
    CLAWSEC_EXEC_OTHER_ARGV_LENGTH = 5,
    CLAWSEC_EXEC_OTHER_ARGV = 6,
    CLAWSEC_EXEC_ARGV_TOO_LONG = 7,
    CLAWSEC_EXEC_ARGV_UNREADABLE = 8,
    CLAWSEC_EXEC_OTHER_CGROUP = 9,
    CLAWSEC_EXEC_OTHER_ENVIRONMENT = 10,
    CLAWSEC_EXEC_ENVIRONMENT_UNREADABLE = 11,
    CLAWSEC_EXEC_OTHER_CWD = 12,
    CLAWSEC_EXEC_SHARED_CWD = 13,
    /* An approval without its files: see struct clawsec_chain. */
    CLAWSEC_EXEC_NO_CHAIN = 20,
};

enum clawsec_event_kind {
    CLAWSEC_EVENT_EXEC = 1,
    CLAWSEC_EVENT_EXIT = 2,
    /* By exec_lsm.bpf.c: struct clawsec_refusal, whose event has the members of an exec that did not come about. */
    CLAWSEC_EVENT_REFUSED = 3,
};

/* Indexes of the `counters` map. */
enum clawsec_counter {
    CLAWSEC_COUNT_VERIFIED = 0,
    CLAWSEC_COUNT_KILLED = 1,
    /* Events of execs that found the ring buffer full. */
    CLAWSEC_COUNT_EXEC_LOST = 2,
    /* SIGKILL could not be sent: the loader must kill the sandbox. */
    CLAWSEC_COUNT_KILL_FAILED = 3,
    /* The lineage of an exec could not be kept because `images` was full. */
    CLAWSEC_COUNT_IMAGES_FULL = 4,
    /* Events of exits that found the ring buffer full. */
    CLAWSEC_COUNT_EXIT_LOST = 5,
    CLAWSEC_COUNTERS = 6,
};

/* Bits of `flags` of an event. */
enum clawsec_event_flag {
    /* Exit: the process had its image from the process that forked it, and executed nothing itself. */
    CLAWSEC_FLAG_FORKED = 1,
    /* Exec: the file that was loaded has no name any more. */
    CLAWSEC_FLAG_DELETED = 2,
    /* Exec: the path of the file, or of the working directory, does not lead to the root of the process: it is cut, or
     * begins at a mount that the process has not. */
    CLAWSEC_FLAG_PATH_PARTIAL = 4,
    CLAWSEC_FLAG_CWD_PARTIAL = 8,
    /* Exec: the arguments, or the environment, could not be read; none are shown. */
    CLAWSEC_FLAG_ARGV_UNREADABLE = 16,
    CLAWSEC_FLAG_ENVIRONMENT_UNREADABLE = 32,
};

/* Value of `scopes`, whose key is the id of a cgroup. */
struct clawsec_scope {
    /* Index of the sandbox in the loader's table. */
    __u32 sandbox;
    __u32 reserved;
};

/* What of an approval is compared beyond file and argv: bits of `bound`. */
enum clawsec_bound {
    CLAWSEC_BOUND_ENVIRONMENT = 1,
    CLAWSEC_BOUND_CWD = 2,
};

/* Value of `approvals`, whose key is the thread that will call execve, as the initial pid namespace numbers
 * it. Taken (deleted) by the first exec of that thread, whatever comes of it. */
struct clawsec_approval {
    /* Inode of the file that the kernel will map: for a script, its interpreter. */
    __u64 inode;
    /* SipHash-2-4 over the bytes between arg_start and arg_end. */
    __u64 argv_hash;
    /* Number of these bytes. */
    __u64 argv_length;
    /* Cgroup in which the exec must happen; 0 for any. */
    __u64 cgroup;
    /* The loader's number for this exec. Never 0. */
    __u64 exec;
    /* Device of the inode's superblock, as the kernel encodes it: major << 20 | minor. */
    __u32 device;
    __u32 argc;
    /* SipHash-2-4 over the bytes between env_start and env_end, and their number. */
    __u64 environment_hash;
    __u64 environment_length;
    /* The working directory: inode, device of its superblock, and the mount it is reached by, which tells two
     * names of one folder apart. */
    __u64 cwd_inode;
    __u32 cwd_device;
    __s32 cwd_mount;
    /* Of enum clawsec_bound. */
    __u32 bound;
    __u32 reserved;
};

/* Most files that one exec looks at: a script, its interpreters (BINPRM_MAX_RECURSION of fs/exec.c and one), the image. */
#define CLAWSEC_CHAIN_MAX 6

struct clawsec_file {
    __u64 inode;
    __u32 device;
    __u32 reserved;
};

/* Value of `chains` of exec_lsm.bpf.c, whose key is that of `approvals`: the files that the kernel comes to on its way
 * from what execve names to what it maps. For a script that is the script and then its interpreter. */
struct clawsec_chain {
    /* The approval that it belongs to. */
    __u64 exec;
    __u32 count;
    /* Index of the file that comes next. */
    __u32 next;
    struct clawsec_file files[CLAWSEC_CHAIN_MAX];
};

/* Value of `images`, whose key is a process: what it runs. */
struct clawsec_image {
    /* Exec number. */
    __u64 exec;
    /* Since when this process runs it, ns of CLOCK_BOOTTIME. */
    __u64 began;
    /* enum clawsec_exec_result of that exec. */
    __u32 result;
    /* 1: inherited at fork. */
    __u32 forked;
};

/* What exec_caller.bpf.c says of a thread. */
struct clawsec_caller {
    /* Asked for: the thread, as the initial pid namespace numbers it. */
    __u32 thread;
    __u32 process;
    /* Effective ones. */
    __u32 uid;
    __u32 gid;
    __u64 cgroup;
    /* Exec number of the image that its process runs; 0 for unknown, or an image that was killed. */
    __u64 image;
    /* Its root directory: inode, device of the superblock, and the mount. */
    __u64 root_inode;
    __u32 root_device;
    __s32 root_mount;
    /* Its name: 16 characters, in two words. */
    __u64 comm[2];
};

/* The texts of an exec follow it, in this order, each as long as said, none with a terminating zero of its own: path of
 * the loaded file, file name of the script, working directory, argv and environment as they lie in memory. */
struct clawsec_event {
    /* enum clawsec_event_kind */
    __u32 kind;
    /* Exec: enum clawsec_exec_result. Exit: that of the image that ended. */
    __u32 result;
    /* Exec: the thread that called execve, before it took over the id of its process. Exit: the process. */
    __u32 thread;
    __u32 process;
    __u32 uid;
    __u32 gid;
    __u32 sandbox;
    /* Exit: status as wait(2) encodes it. */
    __s32 status;
    /* Cgroup of the scope that was found: the task's own, or the nearest above it. */
    __u64 cgroup;
    /* Exec number: of the approval, or one that the program gave because there was none. Exit: of the image that ended. */
    __u64 exec;
    /* Exec number of the image that called execve, 0 for unknown. */
    __u64 parent_exec;
    /* What was really loaded. */
    __u64 inode;
    __u32 device;
    __u32 argc;
    char comm[16];
    /* When, ns of CLOCK_BOOTTIME. */
    __u64 time;
    /* Exit: since when the process ran the image. */
    __u64 began;
    /* enum clawsec_event_flag */
    __u32 flags;
    /* Lengths of the texts that follow. */
    __u32 path_size;
    __u32 script_size;
    __u32 cwd_size;
    __u32 argv_size;
    __u32 environment_size;
    /* Lengths of the whole argv and environment in memory. */
    __u64 argv_length;
    __u64 environment_length;
};

/* An exec that was refused. */
struct clawsec_refusal {
    struct clawsec_event event;
    /* What execve was called with: path, or /dev/fd/N. Cut to fit; ends with a zero. */
    char name[256];
};

#endif
