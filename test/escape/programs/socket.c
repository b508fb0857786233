/* Sockets of kinds that no gate stands before. They send TOKEN to HOST:PORT, or to listeners of the run. */
#include "way.h"

#include <arpa/inet.h>
#include <linux/if_alg.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stddef.h>
#include <sys/un.h>

static struct sockaddr_in to_host(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)need_number("PORT"))};
    inet_pton(AF_INET, need("HOST"), &to.sin_addr);
    return to;
}

static int token_to(int fd, const void *to, socklen_t length) {
    const char *token = need("TOKEN");
    if (fd < 0)
        return refused("socket");
    return sendto(fd, token, strlen(token), 0, to, length) < 0 ? refused("sendto") : 0;
}

static int datagram(int protocol) {
    struct sockaddr_in to = to_host();
    return token_to(socket(AF_INET, SOCK_DGRAM, protocol), &to, sizeof to);
}
static int udp(void) {
    return datagram(0);
}
static int udp_lite(void) {
    return datagram(136);
}
static int dns_port(void) {
    struct sockaddr_in to = to_host();
    to.sin_port = htons(53);
    return token_to(socket(AF_INET, SOCK_DGRAM, 0), &to, sizeof to);
}

/* One datagram to the gate's resolver and one to elsewhere, in one call. */
static int udp_two(void) {
    struct sockaddr_in to[2] = {to_host(), to_host()};
    char *token = strdup(need("TOKEN"));
    struct iovec bytes = {token, strlen(token)};
    struct mmsghdr messages[2] = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    to[0].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to[0].sin_port = htons(53);
    for (int i = 0; i < 2; i++) {
        messages[i].msg_hdr.msg_name = &to[i];
        messages[i].msg_hdr.msg_namelen = sizeof to[i];
        messages[i].msg_hdr.msg_iov = &bytes;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    return sendmmsg(fd, messages, 2, 0) < 2 ? refused("sendmmsg") : 0;
}

static int echo(int type) {
    struct {
        struct icmphdr head;
        char text[64];
    } packet = {.head = {.type = ICMP_ECHO}};
    struct sockaddr_in to = to_host();
    uint32_t sum = 0;
    uint16_t words[sizeof packet / 2];
    strncpy(packet.text, need("TOKEN"), sizeof packet.text - 1);
    memcpy(words, &packet, sizeof packet);
    for (size_t i = 0; i < sizeof packet / 2; i++)
        sum += words[i];
    packet.head.checksum = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
    int fd = socket(AF_INET, type, IPPROTO_ICMP);
    if (fd < 0)
        return refused("socket");
    return sendto(fd, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) < 0 ? refused("sendto")
                                                                                        : 0;
}
static int icmp_datagram(void) {
    return echo(SOCK_DGRAM);
}
static int icmp_raw(void) {
    return echo(SOCK_RAW);
}

/* A packet with a head of one's own: protocol 253 is for experiments (RFC 3692). */
static int raw_ip(void) {
    struct sockaddr_in to = to_host();
    struct {
        struct iphdr head;
        char text[64];
    } packet = {.head = {.version = 4, .ihl = 5, .ttl = 3, .protocol = 253}};
    packet.head.daddr = to.sin_addr.s_addr;
    packet.head.tot_len = htons(sizeof packet);
    strncpy(packet.text, need("TOKEN"), sizeof packet.text - 1);
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (fd < 0)
        return refused("socket");
    return sendto(fd, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) < 0 ? refused("sendto")
                                                                                        : 0;
}

/* A frame straight onto the link: the kernel's address tables and filters are not asked. */
static int packet(void) {
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(0x0800), .sll_halen = 6};
    struct {
        struct iphdr head;
        char text[64];
    } bytes = {.head = {.version = 4, .ihl = 5, .ttl = 3, .protocol = 253}};
    struct sockaddr_in host = to_host();
    memset(to.sll_addr, 0xff, 6);
    to.sll_ifindex = (int)if_nametoindex(getenv("LINK") == NULL ? "lo" : need("LINK"));
    if (to.sll_ifindex == 0)
        to.sll_ifindex = (int)if_nametoindex("lo");
    bytes.head.daddr = host.sin_addr.s_addr;
    bytes.head.tot_len = htons(sizeof bytes);
    strncpy(bytes.text, need("TOKEN"), sizeof bytes.text - 1);
    int fd = socket(AF_PACKET, SOCK_DGRAM, htons(0x0800));
    if (fd < 0)
        return refused("socket");
    return sendto(fd, &bytes, sizeof bytes, 0, (struct sockaddr *)&to, sizeof to) < 0 ? refused("sendto") : 0;
}

static int start_connect(int type, int protocol) {
    struct sockaddr_in to = to_host();
    int fd = socket(AF_INET, type, protocol);
    if (fd < 0)
        return refused("socket");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connect(fd, (struct sockaddr *)&to, sizeof to);
    sleep_ms(300);
    return 0;
}
static int sctp(void) {
    return start_connect(SOCK_STREAM, 132);
}
static int mptcp(void) {
    return start_connect(SOCK_STREAM, 262);
}

/* vsock: to the machine itself. */
static int vsock(void) {
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = 1, .svm_port = (unsigned)need_number("PORT")};
    struct sockaddr_vm here = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = to.svm_port};
    int server = socket(AF_VSOCK, SOCK_STREAM, 0), client = socket(AF_VSOCK, SOCK_STREAM, 0);
    char text[64] = {0};
    if (bind(server, (struct sockaddr *)&here, sizeof here) < 0 || listen(server, 1) < 0)
        return refused("vsock");
    fcntl(client, F_SETFL, O_NONBLOCK);
    connect(client, (struct sockaddr *)&to, sizeof to);
    sleep_ms(100);
    fcntl(server, F_SETFL, O_NONBLOCK);
    int peer = accept(server, NULL, NULL);
    if (peer < 0 || write(client, need("TOKEN"), 4) != 4 || read(peer, text, 4) != 4)
        return refused("vsock");
    return shown();
}

/* The kernel computes for whoever asks: code of its own that parses what is sent. */
static int algorithm(void) {
    struct sockaddr_alg which = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
    unsigned char digest[32];
    int server = socket(AF_ALG, SOCK_SEQPACKET, 0);
    if (server < 0 || bind(server, (struct sockaddr *)&which, sizeof which) < 0)
        return refused("AF_ALG");
    int fd = accept(server, NULL, NULL);
    if (fd < 0 || send(fd, "abc", 3, 0) != 3 || read(fd, digest, 32) != 32)
        return refused("AF_ALG");
    return digest[0] == 0xba && digest[1] == 0x78 ? shown() : 1;
}

/* Netlink beside the route family: a message from one process to another that nobody sees. */
static int netlink(int protocol) {
    struct sockaddr_nl here = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof here;
    char text[64] = {0};
    int server = socket(AF_NETLINK, SOCK_RAW, protocol), client = socket(AF_NETLINK, SOCK_RAW, protocol);
    if (bind(server, (struct sockaddr *)&here, sizeof here) < 0)
        return refused("netlink");
    getsockname(server, (struct sockaddr *)&here, &length);
    if (sendto(client, "hello", 5, 0, (struct sockaddr *)&here, sizeof here) != 5)
        return refused("sendto");
    return recv(server, text, 5, MSG_DONTWAIT) == 5 && strcmp(text, "hello") == 0 ? shown() : refused("recv");
}
static int netlink_user(void) {
    return netlink(NETLINK_USERSOCK);
}

/* Names of the host's unix sockets: LISTENER is one of the run, abstract or a path. */
static int unix_listener(const char *name, int is_abstract) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t size = strlen(name);
    strncpy(to.sun_path + is_abstract, name, sizeof to.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (size_t)is_abstract);
    if (connect(fd, (struct sockaddr *)&to, length + !is_abstract) < 0)
        return refused(name);
    int code = write(fd, need("TOKEN"), strlen(need("TOKEN"))) < 0;
    sleep_ms(100);
    return code;
}
static int unix_abstract(void) {
    return unix_listener(need("ABSTRACT"), 1);
}
static int unix_path(void) {
    return unix_listener(need("SOCKET"), 0);
}

/* The start of HTTP/2, as gRPC has it: whoever answers is a service. SOCKET is its path. */
static int service(void) {
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timeval second = {1, 0};
    char answer[64];
    strncpy(to.sun_path, need("SOCKET"), sizeof to.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        return refused(to.sun_path);
    if (write(fd, hello, sizeof hello) < 0 || read(fd, answer, sizeof answer) < 9)
        return refused("the service");
    return shown();
}

const struct way socket_ways[] = {{"udp", udp},
                                  {"udp-lite", udp_lite},
                                  {"dns-port", dns_port},
                                  {"udp-two", udp_two},
                                  {"icmp-datagram", icmp_datagram},
                                  {"icmp-raw", icmp_raw},
                                  {"raw-ip", raw_ip},
                                  {"packet", packet},
                                  {"sctp", sctp},
                                  {"mptcp", mptcp},
                                  {"vsock", vsock},
                                  {"algorithm", algorithm},
                                  {"netlink-user", netlink_user},
                                  {"unix-abstract", unix_abstract},
                                  {"unix-path", unix_path},
                                  {"service", service},
                                  {NULL, NULL}};
