// The cgroups and mount namespaces under verification, and how a program finds the one that it runs in. For each BPF object of the exec gate;
// the loader lets all of them use the same maps.
#ifndef CLAWSEC_EXEC_SCOPE_BPF_H
#define CLAWSEC_EXEC_SCOPE_BPF_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "exec_gate.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, __u64);
    __type(value, struct clawsec_scope);
} scopes SEC(".maps");

// Mount namespaces of sandboxes, by an id that no other namespace has until the next boot: what came in from outside
// without a cgroup of the sandbox is found by it.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, __u64);
    __type(value, struct clawsec_scope);
} namespaces SEC(".maps");

// The scope of the current task: its own cgroup, or the nearest one above that is a scope.
static __always_inline struct clawsec_scope *find_scope(struct task_struct *task, __u64 *cgroup) {
    *cgroup = bpf_get_current_cgroup_id();
    struct clawsec_scope *found = bpf_map_lookup_elem(&scopes, cgroup);
    if (found)
        return found;
    int own = task->cgroups->dfl_cgrp->level;
    struct clawsec_scope *nearest = NULL;
    for (int level = 1; level <= CLAWSEC_LEVEL_MAX; level++) {
        if (level >= own)
            break;
        __u64 id = bpf_get_current_ancestor_cgroup_id(level);
        found = bpf_map_lookup_elem(&scopes, &id);
        if (found) {
            nearest = found;
            *cgroup = id;
        }
    }
    return nearest;
}

// Up to Linux 6.17.
struct mnt_namespace___seq {
    __u64 seq;
} __attribute__((preserve_access_index));

// The sandbox in whose mount namespace the current task is, whatever its cgroup.
static __always_inline struct clawsec_scope *find_namespace(struct task_struct *task) {
    struct mnt_namespace *mounts = BPF_CORE_READ(task, nsproxy, mnt_ns);
    struct mnt_namespace___seq *older = (void *)mounts;
    __u64 id = 0;
    if (bpf_core_field_exists(older->seq))
        id = BPF_CORE_READ(older, seq);
    else if (bpf_core_field_exists(mounts->ns.ns_id))
        id = BPF_CORE_READ(mounts, ns.ns_id);
    return bpf_map_lookup_elem(&namespaces, &id);
}

#endif
