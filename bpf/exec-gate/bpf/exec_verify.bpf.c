// One idea: inside a scope cgroup, an image that was not approved dies before its first user instruction.
//
// The loader reads the arguments of execve while the caller can still change them, so what it read is only a
// promise. `sched_process_exec` fires when the new image is complete and has not run; this program compares
// it with the promise. The programs are pinned: when the loader dies, nothing is approved any more and every
// exec in the scope is killed.
//
// The tracepoint runs with preemption off, so the program cannot re-enter on its cpu by another exec. The
// kernel counts such misses all the same (`recursion_misses`), and the loader alarms on one.
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "exec_gate.h"
#include "exec_images.bpf.h"
#include "exec_scope.bpf.h"

// Compiled twice: for typed tracepoints, and with -DCLAWSEC_RAW_TP for a kernel that cannot attach those. What a raw one
// is given are only numbers to the verifier, so everything but the current task is read with BPF_CORE_READ.
#ifdef CLAWSEC_RAW_TP
#define TRACEPOINT(name) SEC("raw_tp/" name)
#else
#define TRACEPOINT(name) SEC("tp_btf/" name)
#endif

#define SIGKILL           9
#define SIGNAL_GROUP_EXIT 0x00000004
#define CHUNK             1024

// Key of the hash, fresh for each load: who cannot read it cannot aim for a collision.
SEC(".rodata.key") const volatile __u64 hash_key[2] = {};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct clawsec_approval);
} approvals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CLAWSEC_COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4 * 1024 * 1024);
} events SEC(".maps");

struct chunk {
    __u64 words[CHUNK / 8];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct chunk);
} scratch SEC(".maps");

static __always_inline void count(__u32 which) {
    __u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        __sync_fetch_and_add(counter, 1);
}

#include "exec_report.h"

struct sip_state {
    __u64 v0, v1, v2, v3;
    // Address of the bytes, and how many of them make whole words.
    __u64 from;
    __u32 whole;
    __u32 failed;
};

static __always_inline __u64 rotate(__u64 x, int by) {
    return (x << by) | (x >> (64 - by));
}

static __always_inline void sip_round(struct sip_state *h) {
    h->v0 += h->v1;
    h->v1 = rotate(h->v1, 13) ^ h->v0;
    h->v0 = rotate(h->v0, 32);
    h->v2 += h->v3;
    h->v3 = rotate(h->v3, 16) ^ h->v2;
    h->v0 += h->v3;
    h->v3 = rotate(h->v3, 21) ^ h->v0;
    h->v2 += h->v1;
    h->v1 = rotate(h->v1, 17) ^ h->v2;
    h->v2 = rotate(h->v2, 32);
}

static __always_inline void take_word(struct sip_state *h, __u64 word) {
    h->v3 ^= word;
    sip_round(h);
    sip_round(h);
    h->v0 ^= word;
}

// One word of the chunk. A call for each, and not a loop: the verifier follows a loop from step to step, which is 128 times
// this for each chunk and took it a third of a second, and ten under emulation.
static long hash_word(__u32 index, struct sip_state *h) {
    __u32 zero = 0;
    struct chunk *buffer = bpf_map_lookup_elem(&scratch, &zero);
    if (!buffer) {
        h->failed = 1;
        return 1;
    }
    take_word(h, buffer->words[index & (CHUNK / 8 - 1)]);
    return 0;
}

static long hash_chunk(__u32 index, struct sip_state *h) {
    __u32 zero = 0;
    struct chunk *buffer = bpf_map_lookup_elem(&scratch, &zero);
    if (!buffer) {
        h->failed = 1;
        return 1;
    }
    __u32 offset = index * CHUNK;
    if (offset >= h->whole)
        return 1;
    // 64 bits wide, and behind a barrier: the verifier must see the bound on the register that is used.
    __u64 size = h->whole - offset;
    barrier_var(size);
    if (size > CHUNK)
        size = CHUNK;
    if (bpf_probe_read_user(buffer, size, (void *)(h->from + offset))) {
        h->failed = 1;
        return 1;
    }
    bpf_loop(size / 8, hash_word, h, 0);
    return 0;
}

// SipHash-2-4 (Aumasson, Bernstein) of user memory. 0 when it could be read.
static __always_inline int hash_user(__u64 from, __u32 length, __u64 *result) {
    struct sip_state h = {
        .v0 = hash_key[0] ^ 0x736f6d6570736575ULL,
        .v1 = hash_key[1] ^ 0x646f72616e646f6dULL,
        .v2 = hash_key[0] ^ 0x6c7967656e657261ULL,
        .v3 = hash_key[1] ^ 0x7465646279746573ULL,
        .from = from,
        .whole = length & ~7U,
    };
    bpf_loop((h.whole + CHUNK - 1) / CHUNK, hash_chunk, &h, 0);
    if (h.failed)
        return -1;
    __u64 last = 0;
    __u32 rest = length & 7;
    if (rest && bpf_probe_read_user(&last, rest, (void *)(from + h.whole)))
        return -1;
    take_word(&h, last | (__u64)length << 56);
    h.v2 ^= 0xff;
    sip_round(&h);
    sip_round(&h);
    sip_round(&h);
    sip_round(&h);
    *result = h.v0 ^ h.v1 ^ h.v2 ^ h.v3;
    return 0;
}

// An exec leaves the working directory shared (CLONE_FS): another process could change it after this, so a shared
// one is never what was approved. Nobody can begin to share it now: the process has one thread, and that is here.
static __always_inline __u32 compare_cwd(struct task_struct *task, const struct clawsec_approval *approval) {
    struct fs_struct *fs = task->fs;
    struct dentry *dentry = BPF_CORE_READ(fs, pwd.dentry);
    struct vfsmount *vfsmount = BPF_CORE_READ(fs, pwd.mnt);
    struct mount *mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
    if (BPF_CORE_READ(fs, users) != 1)
        return CLAWSEC_EXEC_SHARED_CWD;
    if (BPF_CORE_READ(dentry, d_inode, i_ino) != approval->cwd_inode ||
        BPF_CORE_READ(dentry, d_inode, i_sb, s_dev) != approval->cwd_device ||
        BPF_CORE_READ(mount, mnt_id) != approval->cwd_mount)
        return CLAWSEC_EXEC_OTHER_CWD;
    return CLAWSEC_EXEC_VERIFIED;
}

static __always_inline __u32 compare_environment(struct task_struct *task,
                                                 const struct clawsec_approval *approval) {
    __u64 from = task->mm->env_start;
    __u64 length = task->mm->env_end - from;
    if (length != approval->environment_length || length > CLAWSEC_ENVIRONMENT_MAX)
        return CLAWSEC_EXEC_OTHER_ENVIRONMENT;
    __u64 hash;
    if (hash_user(from, length, &hash))
        return CLAWSEC_EXEC_ENVIRONMENT_UNREADABLE;
    return hash == approval->environment_hash ? CLAWSEC_EXEC_VERIFIED : CLAWSEC_EXEC_OTHER_ENVIRONMENT;
}

static __always_inline __u32 compare(struct task_struct *task, struct linux_binprm *bprm,
                                     const struct clawsec_approval *approval) {
    struct inode *inode = BPF_CORE_READ(bprm, file, f_inode);
    if (BPF_CORE_READ(inode, i_ino) != approval->inode ||
        BPF_CORE_READ(inode, i_sb, s_dev) != approval->device)
        return CLAWSEC_EXEC_OTHER_FILE;
    if (approval->cgroup && approval->cgroup != bpf_get_current_cgroup_id())
        return CLAWSEC_EXEC_OTHER_CGROUP;
    if (BPF_CORE_READ(bprm, argc) != approval->argc)
        return CLAWSEC_EXEC_OTHER_ARGC;
    __u64 from = task->mm->arg_start;
    __u64 length = task->mm->arg_end - from;
    if (length > CLAWSEC_ARGV_MAX)
        return CLAWSEC_EXEC_ARGV_TOO_LONG;
    if (length != approval->argv_length)
        return CLAWSEC_EXEC_OTHER_ARGV_LENGTH;
    __u64 hash;
    if (hash_user(from, length, &hash))
        return CLAWSEC_EXEC_ARGV_UNREADABLE;
    if (hash != approval->argv_hash)
        return CLAWSEC_EXEC_OTHER_ARGV;
    if (approval->bound & CLAWSEC_BOUND_CWD) {
        __u32 result = compare_cwd(task, approval);
        if (result != CLAWSEC_EXEC_VERIFIED)
            return result;
    }
    return approval->bound & CLAWSEC_BOUND_ENVIRONMENT ? compare_environment(task, approval)
                                                       : CLAWSEC_EXEC_VERIFIED;
}

TRACEPOINT("sched_process_exec")
int BPF_PROG(exec_verify, struct task_struct *unused, pid_t old_pid, struct linux_binprm *bprm) {
    struct task_struct *task = bpf_get_current_task_btf();
    __u64 cgroup;
    struct clawsec_scope *scope = find_scope(task, &cgroup);
    if (!scope)
        scope = find_namespace(task);
    if (!scope)
        return 0;

    // The id before the exec: a thread that is not the leader takes over the leader's id during it.
    __u32 thread = old_pid;
    __u32 process = task->tgid;
    __u32 result = CLAWSEC_EXEC_NO_APPROVAL;
    struct clawsec_approval approval = {};
    struct clawsec_approval *stored = bpf_map_lookup_elem(&approvals, &thread);
    if (stored) {
        approval = *stored;
        bpf_map_delete_elem(&approvals, &thread);
        result = compare(task, bprm, &approval);
    }

    // Kill first: everything after this may fail.
    if (result != CLAWSEC_EXEC_VERIFIED) {
        if (bpf_send_signal(SIGKILL))
            count(CLAWSEC_COUNT_KILL_FAILED);
        count(CLAWSEC_COUNT_KILLED);
    } else {
        count(CLAWSEC_COUNT_VERIFIED);
    }

    __u64 now = bpf_ktime_get_boot_ns();
    struct clawsec_image *running = bpf_map_lookup_elem(&images, &process);
    __u64 parent_exec = running ? running->exec : 0;
    struct clawsec_image image = {
        .exec = stored ? approval.exec : own_number(now),
        .began = now,
        .result = result,
    };
    if (bpf_map_update_elem(&images, &process, &image, BPF_ANY))
        count(CLAWSEC_COUNT_IMAGES_FULL);

    __u32 zero = 0;
    struct draft *draft = bpf_map_lookup_elem(&drafts, &zero);
    if (!draft) {
        count(CLAWSEC_COUNT_EXEC_LOST);
        return 0;
    }
    struct clawsec_event *event = &draft->event;
    describe_task(event, CLAWSEC_EVENT_EXEC, process);
    event->result = result;
    event->thread = thread;
    event->sandbox = scope->sandbox;
    event->status = 0;
    event->cgroup = cgroup;
    event->exec = image.exec;
    event->parent_exec = parent_exec;
    event->time = now;
    event->began = now;
    report_exec(task, bprm, draft);
    return 0;
}

TRACEPOINT("sched_process_fork")
int BPF_PROG(image_fork, struct task_struct *parent, struct task_struct *child) {
    __u32 process = BPF_CORE_READ(parent, tgid);
    __u32 other = BPF_CORE_READ(child, tgid);
    if (process == other)
        return 0;
    struct clawsec_image *running = bpf_map_lookup_elem(&images, &process);
    if (!running)
        return 0;
    struct clawsec_image image = *running;
    image.began = bpf_ktime_get_boot_ns();
    image.forked = 1;
    if (bpf_map_update_elem(&images, &other, &image, BPF_ANY))
        count(CLAWSEC_COUNT_IMAGES_FULL);
    return 0;
}

TRACEPOINT("sched_process_exit")
int BPF_PROG(image_exit, struct task_struct *unused) {
    struct task_struct *task = bpf_get_current_task_btf();
    __u64 cgroup;
    struct clawsec_scope *scope = find_scope(task, &cgroup);
    if (!scope)
        scope = find_namespace(task);
    if (!scope)
        return 0;
    // An approval must not outlive its thread: the id could come again.
    __u32 thread = task->pid;
    bpf_map_delete_elem(&approvals, &thread);

    // The process ends with its last thread; the leader alone may go earlier, also at an exec of another
    // thread.
    if (task->signal->live.counter != 0)
        return 0;
    __u32 process = task->tgid;
    struct clawsec_image *running = bpf_map_lookup_elem(&images, &process);
    if (!running)
        return 0;
    struct clawsec_image image = *running;
    // Two threads that end at the same time both come here as the last one. One of them deletes.
    if (bpf_map_delete_elem(&images, &process))
        return 0;

    struct clawsec_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event) {
        count(CLAWSEC_COUNT_EXIT_LOST);
        return 0;
    }
    __builtin_memset(event, 0, sizeof(*event));
    describe_task(event, CLAWSEC_EVENT_EXIT, process);
    event->result = image.result;
    event->thread = process;
    event->sandbox = scope->sandbox;
    event->status = task->signal->flags & SIGNAL_GROUP_EXIT ? task->signal->group_exit_code
                                                            : task->group_leader->exit_code;
    event->cgroup = cgroup;
    event->exec = image.exec;
    event->time = bpf_ktime_get_boot_ns();
    event->began = image.began;
    event->flags = image.forked ? CLAWSEC_FLAG_FORKED : 0;
    bpf_ringbuf_submit(event, 0);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
