/* What this kernel has at all, asked without a sandbox: where it is not there, there is nothing to get round. */
#include "way.h"

#include <linux/if_alg.h>
#include <linux/vm_sockets.h>

static int has_x32(void) {
#ifdef __x86_64__
    return syscall(0x40000000 | SYS_getpid) < 0;
#else
    return 1;
#endif
}

static int has_int80(void) {
#ifdef __x86_64__
    /* Without it, the instruction is a fault: getpid is 20. */
    pid_t child = fork();
    if (child == 0) {
        long pid = 0;
        __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
        _exit(pid != getpid());
    }
    return wait_for(child, 1000) != 0;
#else
    return 1;
#endif
}

static int has_ports(void) {
#ifdef SYS_iopl
    return syscall(SYS_iopl, 0) < 0;
#else
    return 1;
#endif
}

static int has_segments(void) {
#ifdef SYS_modify_ldt
    char bytes[16];
    return syscall(SYS_modify_ldt, 0, bytes, sizeof bytes) < 0;
#else
    return 1;
#endif
}

static int has_socket(int family, int type, int protocol) {
    int fd = socket(family, type, protocol);
    if (fd < 0)
        return 1;
    close(fd);
    return 0;
}
static int has_algorithm(void) {
    return has_socket(AF_ALG, SOCK_SEQPACKET, 0);
}
static int has_sctp(void) {
    return has_socket(AF_INET, SOCK_STREAM, 132);
}
static int has_mptcp(void) {
    return has_socket(AF_INET, SOCK_STREAM, 262);
}
static int has_six(void) {
    return has_socket(AF_INET6, SOCK_STREAM, 0);
}

/* A connection from this machine to itself needs a transport of its own (vsock_loopback). */
static int has_vsock(void) {
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = 1, .svm_port = 47211};
    int server = socket(AF_VSOCK, SOCK_STREAM, 0), client = socket(AF_VSOCK, SOCK_STREAM, 0);
    fcntl(client, F_SETFL, O_NONBLOCK);
    if (bind(server, (struct sockaddr *)&to, sizeof to) < 0 || listen(server, 1) < 0)
        return 1;
    return connect(client, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS;
}

/* Datagram sockets of ICMP are for the groups of a setting. */
static int has_ping(void) {
    return has_socket(AF_INET, SOCK_DGRAM, 1);
}

const struct way probe_ways[] = {{"has-x32", has_x32},
                                 {"has-int80", has_int80},
                                 {"has-ports", has_ports},
                                 {"has-segments", has_segments},
                                 {"has-algorithm", has_algorithm},
                                 {"has-sctp", has_sctp},
                                 {"has-mptcp", has_mptcp},
                                 {"has-six", has_six},
                                 {"has-vsock", has_vsock},
                                 {"has-ping", has_ping},
                                 {NULL, NULL}};
