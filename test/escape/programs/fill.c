// Fills a pinned BPF hash map with keys that no process has as its id, or takes them out again: fill PATH fill|drain.
// For the run itself, as root, and no way of its own. Prints how many keys went in.
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// Above every process id (PID_MAX_LIMIT is 2^22).
static const uint32_t FIRST = 1U << 30;

static long call(int command, union bpf_attr *attributes) {
    return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.pathname = (uintptr_t)argv[1];
    int map = (int)call(BPF_OBJ_GET, &attributes);
    struct bpf_map_info info;
    memset(&info, 0, sizeof info);
    memset(&attributes, 0, sizeof attributes);
    attributes.info.bpf_fd = (uint32_t)map;
    attributes.info.info = (uintptr_t)&info;
    attributes.info.info_len = sizeof info;
    if (map < 0 || call(BPF_OBJ_GET_INFO_BY_FD, &attributes) || info.key_size != sizeof(uint32_t)) {
        perror(argv[1]);
        return 1;
    }
    int is_fill = strcmp(argv[2], "fill") == 0;
    void *value = calloc(1, info.value_size);
    uint32_t done = 0;
    for (uint32_t key = FIRST; key < FIRST + info.max_entries; key++) {
        memset(&attributes, 0, sizeof attributes);
        attributes.map_fd = (uint32_t)map;
        attributes.key = (uintptr_t)&key;
        // A deletion with a value is refused.
        attributes.value = is_fill ? (uintptr_t)value : 0;
        if (call(is_fill ? BPF_MAP_UPDATE_ELEM : BPF_MAP_DELETE_ELEM, &attributes) == 0)
            done++;
    }
    printf("%u of %u\n", done, info.max_entries);
    // Some entries are those of processes that run; what went in must come out.
    return is_fill ? 0 : done == 0;
}
