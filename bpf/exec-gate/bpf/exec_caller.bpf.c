// One idea: what the loader must know of a thread that waits in execve, by one system call and without /proc.
//
// Each look into /proc/PID makes entries in a file system, which the end of the process has to find and remove. A process
// that only executes something is gone before that was worth it.
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "exec_gate.h"
#include "exec_images.bpf.h"

extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

// 0: the thread is there, and all members are set.
SEC("syscall")
int read_caller(struct clawsec_caller *caller) {
    struct task_struct *task = bpf_task_from_pid(caller->thread);
    if (!task)
        return 1;
    __u32 process = task->tgid;
    caller->process = process;
    caller->uid = BPF_CORE_READ(task, cred, euid.val);
    caller->gid = BPF_CORE_READ(task, cred, egid.val);
    caller->cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
    // A helper does not write to what the program was given.
    __u64 comm[2];
    BPF_CORE_READ_INTO(&comm, task, comm);
    caller->comm[0] = comm[0];
    caller->comm[1] = comm[1];

    // A thread that ends has none.
    struct fs_struct *fs = BPF_CORE_READ(task, fs);
    struct dentry *root = BPF_CORE_READ(fs, root.dentry);
    struct vfsmount *vfsmount = BPF_CORE_READ(fs, root.mnt);
    struct mount *mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
    caller->root_inode = BPF_CORE_READ(root, d_inode, i_ino);
    caller->root_device = BPF_CORE_READ(root, d_inode, i_sb, s_dev);
    caller->root_mount = BPF_CORE_READ(mount, mnt_id);
    bpf_task_release(task);

    caller->image = 0;
    struct clawsec_image *image = bpf_map_lookup_elem(&images, &process);
    if (image && image->result == CLAWSEC_EXEC_VERIFIED)
        caller->image = image->exec;
    return root ? 0 : 1;
}

char LICENSE[] SEC("license") = "GPL";
