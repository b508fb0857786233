// One idea: inside a scope cgroup, an exec that was not approved is refused before the image is replaced.
//
// A second layer in front of exec_verify.bpf.c, for kernels with BPF-LSM. There an image dies; here the call fails, and
// the caller lives and sees EACCES. `bprm_check_security` runs once for each file that the kernel comes to: first the
// script, then its interpreter. What is compared is what the kernel has opened, so it can't be swapped behind this.
//
// The arguments are not compared here: they lie in the memory of an image that is not there yet, and the hook that comes
// after it (`bprm_committed_creds`) can't refuse. exec_verify.bpf.c compares them when they are in their place.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "exec_gate.h"
#include "exec_scope.bpf.h"

#define EACCES 13

// The maps of exec_verify.bpf.c: the loader puts them in the place of these.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct clawsec_approval);
} approvals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct clawsec_chain);
} chains SEC(".maps");

// 0: execs refused. 1: events of them that found the ring buffer full.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} refusals SEC(".maps");

static __always_inline void count(__u32 which) {
    __u64 *counter = bpf_map_lookup_elem(&refusals, &which);
    if (counter)
        __sync_fetch_and_add(counter, 1);
}

static __always_inline __u32 compare(struct linux_binprm *bprm, const struct clawsec_approval *approval,
                                     struct clawsec_chain *chain) {
    if (chain->exec != approval->exec)
        return CLAWSEC_EXEC_NO_CHAIN;
    __u64 step = chain->next;
    if (step >= chain->count || step >= CLAWSEC_CHAIN_MAX)
        return CLAWSEC_EXEC_OTHER_FILE;
    struct inode *inode = bprm->file->f_inode;
    if (inode->i_ino != chain->files[step].inode || inode->i_sb->s_dev != chain->files[step].device)
        return CLAWSEC_EXEC_OTHER_FILE;
    chain->next = step + 1;
    if (approval->cgroup && approval->cgroup != bpf_get_current_cgroup_id())
        return CLAWSEC_EXEC_OTHER_CGROUP;
    // Each script before the last file changes the number.
    if (step + 1 == chain->count && bprm->argc != approval->argc)
        return CLAWSEC_EXEC_OTHER_ARGC;
    return CLAWSEC_EXEC_VERIFIED;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(exec_check, struct linux_binprm *bprm) {
    struct task_struct *task = bpf_get_current_task_btf();
    __u64 cgroup;
    struct clawsec_scope *scope = find_scope(task, &cgroup);
    if (!scope)
        scope = find_namespace(task);
    if (!scope)
        return 0;

    __u32 thread = task->pid;
    __u32 result = CLAWSEC_EXEC_NO_APPROVAL;
    __u64 exec = 0;
    struct clawsec_approval *approval = bpf_map_lookup_elem(&approvals, &thread);
    struct clawsec_chain *chain = bpf_map_lookup_elem(&chains, &thread);
    if (approval) {
        exec = approval->exec;
        result = chain ? compare(bprm, approval, chain) : CLAWSEC_EXEC_NO_CHAIN;
    }
    if (result == CLAWSEC_EXEC_VERIFIED)
        return 0;

    // It was for one use, whatever came of it.
    bpf_map_delete_elem(&approvals, &thread);
    bpf_map_delete_elem(&chains, &thread);
    count(0);
    struct clawsec_refusal *refusal = bpf_ringbuf_reserve(&events, sizeof(*refusal), 0);
    if (!refusal) {
        count(1);
        return -EACCES;
    }
    __builtin_memset(refusal, 0, sizeof(*refusal));
    bpf_probe_read_kernel_str(refusal->name, sizeof(refusal->name), bprm->filename);
    struct clawsec_event *event = &refusal->event;
    __u64 ids = bpf_get_current_uid_gid();
    event->kind = CLAWSEC_EVENT_REFUSED;
    event->result = result;
    event->thread = thread;
    event->process = task->tgid;
    event->uid = (__u32)ids;
    event->gid = ids >> 32;
    event->sandbox = scope->sandbox;
    event->cgroup = cgroup;
    event->exec = exec;
    event->inode = bprm->file->f_inode->i_ino;
    event->device = bprm->file->f_inode->i_sb->s_dev;
    event->argc = bprm->argc;
    event->time = bpf_ktime_get_boot_ns();
    bpf_get_current_comm(event->comm, sizeof(event->comm));
    bpf_ringbuf_submit(refusal, 0);
    return -EACCES;
}

char LICENSE[] SEC("license") = "GPL";
