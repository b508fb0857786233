// Which exec's image a process runs; inherited at fork. exec_verify.bpf.c keeps it, the others read it: the loader puts its
// map in the place of theirs.
#ifndef CLAWSEC_EXEC_IMAGES_BPF_H
#define CLAWSEC_EXEC_IMAGES_BPF_H

#include <bpf/bpf_helpers.h>
#include "exec_gate.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct clawsec_image);
} images SEC(".maps");

#endif
