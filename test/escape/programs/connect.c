/* TCP to where no rule leads: HOST:PORT is a listener of the run, as is LOOPBACK on 127.0.0.1. */
#include "way.h"

#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static struct sockaddr_in address(const char *host, long port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    return to;
}
static struct sockaddr_in6 address6(const char *host, long port) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    inet_pton(AF_INET6, host, &to.sin6_addr);
    return to;
}

static int speak(int fd) {
    const char *token = need("TOKEN");
    char text[600];
    snprintf(text, sizeof text, "GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", token, need("HOST"));
    ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
    sleep_ms(300);
    return sent < 0 ? refused("send") : 0;
}

/* Does not wait longer than a second for the answer. */
static int reach(const void *to, socklen_t length, int family) {
    struct timeval second = {1, 0};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return refused("socket");
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    if (connect(fd, to, length) < 0)
        return refused("connect");
    return speak(fd);
}

static int tcp(void) {
    struct sockaddr_in to = address(need("HOST"), need_number("PORT"));
    return reach(&to, sizeof to, AF_INET);
}
static int tcp_web(void) {
    struct sockaddr_in to = address(need("HOST"), 80);
    return reach(&to, sizeof to, AF_INET);
}
static int tcp_mapped(void) {
    char text[64];
    snprintf(text, sizeof text, "::ffff:%s", need("HOST"));
    struct sockaddr_in6 to = address6(text, need_number("PORT"));
    return reach(&to, sizeof to, AF_INET6);
}
static int tcp_six(void) {
    struct sockaddr_in6 to = address6(need("HOST6"), need_number("PORT"));
    return reach(&to, sizeof to, AF_INET6);
}

/* Data in the first packet, without connect(2). */
static int fast_open(void) {
    struct sockaddr_in to = address(need("HOST"), need_number("PORT"));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (sendto(fd, need("TOKEN"), 8, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) < 0)
        refused("sendto");
    sleep_ms(300);
    return 0;
}

/* From an address that is not ours. */
static int bound(void) {
    struct sockaddr_in to = address(need("HOST"), need_number("PORT")), from = address("0.0.0.0", 0);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_MARK, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, 19 /* IP_TRANSPARENT */, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        return refused("bind");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connect(fd, (struct sockaddr *)&to, sizeof to);
    sleep_ms(300);
    return speak(fd);
}

static int ring(void) {
    struct sockaddr_in to = address(need("HOST"), need_number("PORT"));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct io_uring_sqe operation = {
        .opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&to, .off = sizeof to};
    int result = 0;
    if (uring(&operation, &result) < 0)
        return 1;
    return speak(fd);
}

/* A socket that was connected elsewhere, dissolved and connected again. */
static int reconnect(void) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct sockaddr_in first = address("127.0.0.1", need_number("OWN")),
                       to = address(need("HOST"), need_number("PORT"));
    int server = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server, (struct sockaddr *)&first, sizeof first) < 0 || listen(server, 1) < 0)
        return refused("bind");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connect(fd, (struct sockaddr *)&first, sizeof first);
    sleep_ms(50);
    connect(fd, &none, sizeof none);
    connect(fd, (struct sockaddr *)&to, sizeof to);
    sleep_ms(300);
    return speak(fd);
}

/* What listens on the loopback of the host, or of the gateway. */
static int loopback4(const char *host) {
    struct sockaddr_in to = address(host, need_number("LOOPBACK"));
    return reach(&to, sizeof to, AF_INET);
}
static int loopback(void) {
    return loopback4("127.0.0.1");
}
static int loopback_other(void) {
    return loopback4("127.8.9.10");
}
static int loopback_zero(void) {
    return loopback4("0.0.0.0");
}
static int loopback_six(void) {
    struct sockaddr_in6 to = address6("::1", need_number("LOOPBACK"));
    return reach(&to, sizeof to, AF_INET6);
}
static int loopback_mapped(void) {
    struct sockaddr_in6 to = address6("::ffff:127.0.0.1", need_number("LOOPBACK"));
    return reach(&to, sizeof to, AF_INET6);
}
static int loopback_fast(void) {
    struct sockaddr_in to = address("127.0.0.1", need_number("LOOPBACK"));
    const char *token = need("TOKEN");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (sendto(fd, token, strlen(token), MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) < 0)
        refused("sendto");
    sleep_ms(100);
    return speak(fd);
}
static int loopback_udp(void) {
    struct sockaddr_in to = address("127.0.0.1", need_number("LOOPBACK"));
    const char *token = need("TOKEN");
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int code = sendto(fd, token, strlen(token), 0, (struct sockaddr *)&to, sizeof to) < 0;
    sleep_ms(100);
    return code;
}

const struct way connect_ways[] = {{"tcp", tcp},
                                   {"tcp-web", tcp_web},
                                   {"tcp-mapped", tcp_mapped},
                                   {"tcp-six", tcp_six},
                                   {"fast-open", fast_open},
                                   {"bound", bound},
                                   {"ring", ring},
                                   {"reconnect", reconnect},
                                   {"loopback", loopback},
                                   {"loopback-other", loopback_other},
                                   {"loopback-zero", loopback_zero},
                                   {"loopback-six", loopback_six},
                                   {"loopback-mapped", loopback_mapped},
                                   {"loopback-fast", loopback_fast},
                                   {"loopback-udp", loopback_udp},
                                   {NULL, NULL}};
