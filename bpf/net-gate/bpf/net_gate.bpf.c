// SPDX-License-Identifier: Apache-2.0
// The kernel's part of the network gate.
//
// A sandbox's network namespace has only `lo`, and a local route that makes every IPv4 address local. Two ideas
// make a gate of it:
//
// - `steer` (sk_lookup, attached to the namespace) gives every TCP connection that is not for loopback to the one
//   listener in the map `gate`. The socket's own address is then the address that was dialled.
// - the cgroup programs, attached to the cgroup of each subject, say *who* dialled: `connect*` and `sendmsg*` note
//   the calling task in the socket's storage, `egress` copies the note to the map `flows` under the connection's
//   4-tuple when the first packet leaves. They also hold each subject to its own loopback ports.
//
// Everything here fails closed: a task of no known subject, a socket without a note and any protocol but TCP, and
// UDP on loopback, is refused. Programs of other sockets (the loader's own, which connects to published ports) are
// in no subject's cgroup and pass by.
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET     2
#define AF_INET6    10
#define EPERM       1
#define ENETUNREACH 101
#define ETH_P_IP    0x0800
#define ETH_P_IPV6  0x86DD
#define COMM_LENGTH 16

// 127.0.0.53:53, where the gate answers names. Every subject may reach it.
#define DNS_ADDRESS 0x7f000035
#define DNS_PORT    53

#define PASS   1
#define REFUSE 0

// Who dialled. Read by the loader; the layout is repeated in src/bpf.rs.
struct origin {
    __u64 cgroup;
    __u32 pid;
    __u32 uid;
    __u32 gid;
    char comm[COMM_LENGTH];
    __u32 reserved;
};

// A connection as its first packet shows it, IPv4, network byte order.
struct flow {
    __u32 source;
    __u32 destination;
    __u16 source_port;
    __u16 destination_port;
    __u32 protocol;
};

struct subject {
    // All loopback ports.
    __u32 any_port;
    __u32 reserved;
};

// A loopback port (host byte order) that a subject may reach.
struct opening {
    __u64 cgroup;
    __u32 port;
    __u32 reserved;
};

// A refusal, for the audit.
struct refusal {
    struct origin origin;
    // IPv4 in the last four bytes after 10 zero bytes and two 0xff bytes.
    __u8 address[16];
    __u16 port;
    __u16 protocol;
    __u32 reserved;
};

struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} gate SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 256);
    __type(key, __u64);
    __type(value, struct subject);
} subjects SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct opening);
    __type(value, __u32);
} openings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct origin);
} origins SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 32768);
    __type(key, struct flow);
    __type(value, struct origin);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 256 * 1024);
} refusals SEC(".maps");

// Refusals that the ring had no room for.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} missed SEC(".maps");

// Where a socket call wants to go, whatever the form of the address.
struct target {
    bool loopback;
    bool ipv6;
    __u32 v4;   // host byte order; 0 for IPv6
    __u32 port; // host byte order
    __u32 protocol;
    __u8 address[16];
};

static __always_inline bool is_loopback4(__u32 address) {
    // The unspecified address reaches loopback too.
    return address >> 24 == 127 || address == 0;
}

static __always_inline void set_v4(struct target *target, __u32 address_be) {
    target->ipv6 = false;
    target->v4 = bpf_ntohl(address_be);
    target->loopback = is_loopback4(target->v4);
    __builtin_memset(target->address, 0, 10);
    target->address[10] = 0xff;
    target->address[11] = 0xff;
    __builtin_memcpy(target->address + 12, &address_be, 4);
}

// Whether this subject may reach this loopback port. `known` is its entry.
static __always_inline bool loopback_open(__u64 cgroup, struct subject *known, __u32 v4, __u32 port) {
    if (v4 == DNS_ADDRESS && port == DNS_PORT)
        return true;
    if (known->any_port)
        return true;
    struct opening key = {.cgroup = cgroup, .port = port};
    return bpf_map_lookup_elem(&openings, &key) != NULL;
}

static __always_inline int refuse(struct origin *origin, struct target *target, int error) {
    struct refusal *refusal = bpf_ringbuf_reserve(&refusals, sizeof(*refusal), 0);
    if (refusal) {
        refusal->origin = *origin;
        __builtin_memcpy(refusal->address, target->address, 16);
        refusal->port = target->port;
        refusal->protocol = target->protocol;
        refusal->reserved = 0;
        bpf_ringbuf_submit(refusal, 0);
    } else {
        __u32 zero = 0;
        __u64 *count = bpf_map_lookup_elem(&missed, &zero);
        if (count)
            __sync_fetch_and_add(count, 1);
    }
    // EPERM is what the kernel gives for a refusal; another error has to be set.
    if (error != EPERM)
        bpf_set_retval(-error);
    return REFUSE;
}

// The one rule for connect and sendmsg. The cgroup is that of the *calling* task: a socket that another subject
// made and handed over does not carry that subject's rights.
static __always_inline int judge(struct bpf_sock_addr *ctx, struct target *target) {
    struct origin origin = {};
    __u64 ids = bpf_get_current_uid_gid();
    origin.cgroup = bpf_get_current_cgroup_id();
    origin.pid = bpf_get_current_pid_tgid() >> 32;
    origin.uid = (__u32)ids;
    origin.gid = ids >> 32;
    bpf_get_current_comm(origin.comm, sizeof(origin.comm));

    struct subject *known = bpf_map_lookup_elem(&subjects, &origin.cgroup);
    if (!known)
        return refuse(&origin, target, EPERM);
    if (target->protocol != IPPROTO_TCP && target->protocol != IPPROTO_UDP)
        return refuse(&origin, target, EPERM);
    if (!target->loopback && (target->ipv6 || target->protocol != IPPROTO_TCP))
        return refuse(&origin, target, ENETUNREACH);
    if (target->loopback && !loopback_open(origin.cgroup, known, target->v4, target->port))
        return refuse(&origin, target, EPERM);

    struct bpf_sock *socket = ctx->sk;
    if (!socket)
        return refuse(&origin, target, EPERM);
    struct origin *note = bpf_sk_storage_get(&origins, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!note)
        return refuse(&origin, target, EPERM);
    *note = origin;
    return PASS;
}

static __always_inline int judge4(struct bpf_sock_addr *ctx) {
    struct target target = {};
    set_v4(&target, ctx->user_ip4);
    target.port = bpf_ntohs(ctx->user_port);
    target.protocol = ctx->protocol;
    return judge(ctx, &target);
}

static __always_inline int judge6(struct bpf_sock_addr *ctx) {
    struct target target = {};
    __u32 words[4];
    words[0] = ctx->user_ip6[0];
    words[1] = ctx->user_ip6[1];
    words[2] = ctx->user_ip6[2];
    words[3] = ctx->user_ip6[3];
    if (words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0x0000ffff)) {
        // ::ffff:a.b.c.d travels as IPv4 and is judged as IPv4.
        set_v4(&target, words[3]);
    } else {
        __u32 last = bpf_ntohl(words[3]);
        target.ipv6 = true;
        // :: reaches ::1.
        target.loopback = words[0] == 0 && words[1] == 0 && words[2] == 0 && last <= 1;
        __builtin_memcpy(target.address, words, 16);
    }
    target.port = bpf_ntohs(ctx->user_port);
    target.protocol = ctx->protocol;
    return judge(ctx, &target);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx) {
    return judge4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx) {
    return judge6(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx) {
    return judge4(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx) {
    return judge6(ctx);
}

static __always_inline struct origin *note_of(struct __sk_buff *skb) {
    struct bpf_sock *socket = skb->sk;
    if (!socket)
        return NULL;
    socket = bpf_sk_fullsock(socket);
    if (!socket)
        return NULL;
    return bpf_sk_storage_get(&origins, socket, 0, 0);
}

// Whether the subject of the note may reach this loopback port: the same question as in `judge`, asked of the real
// packet, so that a connection which avoided the socket calls is judged too.
static __always_inline bool packet_open(struct origin *note, __u32 v4, __u32 port) {
    __u64 cgroup = note->cgroup;
    struct subject *known = bpf_map_lookup_elem(&subjects, &cgroup);
    return known && loopback_open(cgroup, known, v4, port);
}

static __always_inline bool starts_connection(const struct tcphdr *tcp) {
    return tcp->syn && !tcp->ack;
}

static __always_inline int egress4(struct __sk_buff *skb) {
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
        return REFUSE;
    // Neither socket calls nor the gate make fragments of what is looked at here.
    if (ip.frag_off & bpf_htons(0x1fff))
        return ip.protocol == IPPROTO_UDP && is_loopback4(bpf_ntohl(ip.daddr)) ? PASS : REFUSE;

    struct flow flow = {.source = ip.saddr, .destination = ip.daddr, .protocol = ip.protocol};
    __u32 destination = bpf_ntohl(ip.daddr);
    __u32 offset = ip.ihl * 4;
    if (ip.protocol == IPPROTO_TCP) {
        struct tcphdr tcp;
        if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
            return REFUSE;
        if (!starts_connection(&tcp))
            return PASS;
        flow.source_port = tcp.source;
        flow.destination_port = tcp.dest;
    } else if (ip.protocol == IPPROTO_UDP) {
        struct udphdr udp;
        if (!is_loopback4(destination))
            return REFUSE;
        if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
            return REFUSE;
        flow.source_port = udp.source;
        flow.destination_port = udp.dest;
    } else {
        return REFUSE;
    }

    struct origin *note = note_of(skb);
    if (!note)
        return REFUSE;
    __u32 port = bpf_ntohs(flow.destination_port);
    bool loopback = is_loopback4(destination);
    if (loopback && !packet_open(note, destination, port))
        return REFUSE;
    if (!loopback || (destination == DNS_ADDRESS && port == DNS_PORT)) {
        struct origin copy = *note;
        bpf_map_update_elem(&flows, &flow, &copy, BPF_ANY);
    }
    return PASS;
}

static __always_inline int egress6(struct __sk_buff *skb) {
    struct ipv6hdr ip;
    __u32 port;
    if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
        return REFUSE;
    __u32 *words = ip.daddr.in6_u.u6_addr32;
    if (words[0] || words[1] || words[2] || words[3] != bpf_htonl(1))
        return REFUSE;
    if (ip.nexthdr == IPPROTO_TCP) {
        struct tcphdr tcp;
        if (bpf_skb_load_bytes(skb, sizeof(ip), &tcp, sizeof(tcp)))
            return REFUSE;
        if (!starts_connection(&tcp))
            return PASS;
        port = bpf_ntohs(tcp.dest);
    } else if (ip.nexthdr == IPPROTO_UDP) {
        struct udphdr udp;
        if (bpf_skb_load_bytes(skb, sizeof(ip), &udp, sizeof(udp)))
            return REFUSE;
        port = bpf_ntohs(udp.dest);
    } else {
        return REFUSE;
    }
    struct origin *note = note_of(skb);
    return note && packet_open(note, 0, port) ? PASS : REFUSE;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb) {
    if (skb->protocol == bpf_htons(ETH_P_IP))
        return egress4(skb);
    if (skb->protocol == bpf_htons(ETH_P_IPV6))
        return egress6(skb);
    return REFUSE;
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx) {
    // volatile: else clang merges the loads into one through a computed pointer, which the verifier refuses.
    volatile __u32 family = ctx->family;
    volatile __u32 protocol = ctx->protocol;

    if (family == AF_INET) {
        volatile __u32 local = ctx->local_ip4;
        if (is_loopback4(bpf_ntohl(local)))
            return SK_PASS;
    } else {
        volatile __u32 a = ctx->local_ip6[0];
        volatile __u32 b = ctx->local_ip6[1];
        volatile __u32 c = ctx->local_ip6[2];
        volatile __u32 d = ctx->local_ip6[3];
        return !a && !b && !c && d == bpf_htonl(1) ? SK_PASS : SK_DROP;
    }
    if (protocol != IPPROTO_TCP)
        return SK_DROP;

    __u32 zero = 0;
    struct bpf_sock *listener = bpf_map_lookup_elem(&gate, &zero);
    if (!listener)
        return SK_DROP;
    long error = bpf_sk_assign(ctx, listener, 0);
    bpf_sk_release(listener);
    return error ? SK_DROP : SK_PASS;
}
