/* What an event tells of a new image: its path, arguments, environment and working directory, as they are in memory before
 * its first instruction. Part of exec_verify.bpf.c, which has the maps `events` and `counters` and calls this with
 * preemption off: the drafts belong to the cpu.
 */
#ifndef CLAWSEC_EXEC_REPORT_H
#define CLAWSEC_EXEC_REPORT_H

// An event while it is put together.
struct draft {
    struct clawsec_event event;
    char texts[3 * CLAWSEC_PATH_MAX + CLAWSEC_ARGV_SHOWN + CLAWSEC_ENVIRONMENT_SHOWN];
};

// A path while it is put together, from its end. The walk is here and not on the stack, so that the verifier does not
// follow its values from step to step.
struct path_draft {
    __u64 dentry;
    // struct mount
    __u64 mount;
    __u64 root_dentry;
    __u64 root_mount;
    // Where the path begins.
    __u32 at;
    // It has not come to the root.
    __u32 partial;
    // With room for a component behind the last place where one can begin.
    char bytes[CLAWSEC_PATH_MAX + 256];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct draft);
} drafts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct path_draft);
} path_drafts SEC(".maps");

// The last number that the program gave to an exec on this cpu.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} numbers SEC(".maps");

// A number for an exec that has none of the loader's. Those are even; the low bits here are the cpu, and odd.
static __always_inline __u64 own_number(__u64 now) {
    __u32 zero = 0;
    __u64 *last = bpf_map_lookup_elem(&numbers, &zero);
    __u64 number = (now & ~0xfffULL) | (bpf_get_smp_processor_id() & 0x7ff) << 1 | 1;
    if (last) {
        if (number <= *last)
            number = *last + 0x1000;
        *last = number;
    }
    return number;
}

static long walk_up(__u32 index, void *unused) {
    __u32 zero = 0;
    struct path_draft *walk = bpf_map_lookup_elem(&path_drafts, &zero);
    if (!walk)
        return 1;
    struct dentry *dentry = (struct dentry *)walk->dentry;
    struct mount *mount = (struct mount *)walk->mount;
    if (walk->dentry == walk->root_dentry && walk->mount == walk->root_mount) {
        walk->partial = 0;
        return 1;
    }
    struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
    if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
        struct mount *above = BPF_CORE_READ(mount, mnt_parent);
        walk->dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
        walk->mount = (__u64)above;
        return above == mount;
    }
    __u32 at = walk->at;
    // A file that is in no folder, as a memfd is, still has a name.
    int alone = dentry == parent;
    if (alone && at != CLAWSEC_PATH_MAX)
        return 1;
    __u32 length = BPF_CORE_READ(dentry, d_name.len);
    const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
    if (length > 255 || at > CLAWSEC_PATH_MAX || at < length + 1)
        return 1;
    at -= length;
    if (bpf_probe_read_kernel(&walk->bytes[at & (CLAWSEC_PATH_MAX - 1)], length & 255, name))
        return 1;
    if (!alone) {
        at--;
        walk->bytes[at & (CLAWSEC_PATH_MAX - 1)] = '/';
    }
    walk->at = at;
    walk->dentry = (__u64)parent;
    return alone;
}

// Appends a path as a process with this root sees it. Gives the size of what was appended.
static __always_inline __u32 append_path(struct draft *draft, __u32 offset, const struct path *path,
                                         const struct path *root, __u32 partial, __u32 *flags) {
    __u32 zero = 0;
    struct path_draft *walk = bpf_map_lookup_elem(&path_drafts, &zero);
    if (!walk)
        return 0;
    __u32 in_mount = bpf_core_field_offset(struct mount, mnt);
    walk->dentry = (__u64)BPF_CORE_READ(path, dentry);
    walk->mount = (__u64)BPF_CORE_READ(path, mnt) - in_mount;
    walk->root_dentry = (__u64)BPF_CORE_READ(root, dentry);
    walk->root_mount = (__u64)BPF_CORE_READ(root, mnt) - in_mount;
    walk->at = CLAWSEC_PATH_MAX;
    walk->partial = 1;
    bpf_loop(CLAWSEC_PATH_MAX, walk_up, NULL, 0);
    if (walk->partial)
        *flags |= partial;
    __u64 at = walk->at;
    // The root itself has no component.
    if (at == CLAWSEC_PATH_MAX && !walk->partial)
        walk->bytes[--at & (CLAWSEC_PATH_MAX - 1)] = '/';
    __u64 size = CLAWSEC_PATH_MAX - at;
    barrier_var(size);
    // 64 bits wide, and behind a barrier: older verifiers (6.1, 6.12) must see the bound on the register that is used.
    __u64 place = offset;
    barrier_var(place);
    if (size > CLAWSEC_PATH_MAX || place > 2 * CLAWSEC_PATH_MAX)
        return 0;
    if (bpf_probe_read_kernel(&draft->texts[place], size, &walk->bytes[at & (CLAWSEC_PATH_MAX - 1)]))
        return 0;
    return size;
}

// Appends user memory, `limit` bytes at most.
static __always_inline __u32 append_user(struct draft *draft, __u32 offset, __u64 from, __u64 length,
                                         __u32 limit, __u32 unreadable, __u32 *flags) {
    __u64 size = length;
    if (size > limit)
        size = limit;
    barrier_var(size);
    __u64 place = offset;
    barrier_var(place);
    if (size > limit || place > sizeof(draft->texts) - limit)
        return 0;
    if (bpf_probe_read_user(&draft->texts[place], size, (void *)from)) {
        *flags |= unreadable;
        return 0;
    }
    return size;
}

static __always_inline void report_exec(struct task_struct *task, struct linux_binprm *bprm,
                                        struct draft *draft) {
    struct clawsec_event *event = &draft->event;
    struct file *file = BPF_CORE_READ(bprm, file);
    struct mm_struct *mm = task->mm;
    __u32 flags = 0;
    event->inode = BPF_CORE_READ(file, f_inode, i_ino);
    event->device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
    event->argc = BPF_CORE_READ(bprm, argc);
    if (!BPF_CORE_READ(file, f_path.dentry, d_hash.pprev))
        flags |= CLAWSEC_FLAG_DELETED;

    __u32 used = append_path(draft, 0, &file->f_path, &task->fs->root, CLAWSEC_FLAG_PATH_PARTIAL, &flags);
    event->path_size = used;
    event->script_size = 0;
    // The interpreter's name is another string than the one that was executed.
    __u64 after_path = used;
    barrier_var(after_path);
    const char *filename = BPF_CORE_READ(bprm, filename);
    if (BPF_CORE_READ(bprm, interp) != filename && after_path <= CLAWSEC_PATH_MAX) {
        long size = bpf_probe_read_kernel_str(&draft->texts[after_path], CLAWSEC_PATH_MAX, filename);
        if (size > 1 && size <= CLAWSEC_PATH_MAX) {
            event->script_size = size - 1;
            used += size - 1;
        }
    }
    event->cwd_size =
        append_path(draft, used, &task->fs->pwd, &task->fs->root, CLAWSEC_FLAG_CWD_PARTIAL, &flags);
    used += event->cwd_size;

    event->argv_length = mm->arg_end - mm->arg_start;
    event->argv_size = append_user(draft, used, mm->arg_start, event->argv_length, CLAWSEC_ARGV_SHOWN,
                                   CLAWSEC_FLAG_ARGV_UNREADABLE, &flags);
    used += event->argv_size;
    event->environment_length = mm->env_end - mm->env_start;
    event->environment_size =
        append_user(draft, used, mm->env_start, event->environment_length, CLAWSEC_ENVIRONMENT_SHOWN,
                    CLAWSEC_FLAG_ENVIRONMENT_UNREADABLE, &flags);
    used += event->environment_size;
    event->flags = flags;

    __u64 size = sizeof(*event) + used;
    barrier_var(size);
    if (size > sizeof(*draft))
        size = sizeof(*draft);
    if (bpf_ringbuf_output(&events, draft, size, 0))
        count(CLAWSEC_COUNT_EXEC_LOST);
}

static __always_inline void describe_task(struct clawsec_event *event, __u32 kind, __u32 process) {
    __u64 ids = bpf_get_current_uid_gid();
    event->kind = kind;
    event->process = process;
    event->uid = (__u32)ids;
    event->gid = ids >> 32;
    bpf_get_current_comm(event->comm, sizeof(event->comm));
}

#endif
