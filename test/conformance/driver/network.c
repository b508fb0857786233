// Looks names up at the sandbox's name server and makes connections, without any library that would do it otherwise.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "driver.h"

#define LOOK_UP_MS  10000
#define ANSWER_MS   35000
#define DATAGRAM_MS 60

static int wait_for(int fd, short events, int timeout_ms) {
    struct pollfd polled = {.fd = fd, .events = events};
    return poll(&polled, 1, timeout_ms) > 0;
}

// The length of a name in a message, compressed or not.
static size_t name_length(const unsigned char *message, size_t at, size_t length) {
    size_t from = at;
    while (at < length && message[at] != 0) {
        if ((message[at] & 0xc0) == 0xc0)
            return at + 2 - from;
        at += message[at] + 1u;
    }
    return at + 1 - from;
}

// RFC 1035. Returns 0 with the address, or the response code, or 256 when no answer came.
static int look_up(const char *host, struct in_addr *address) {
    unsigned char message[1500] = {0x51, 0x52, 1, 0, 0, 1};
    size_t length = 12;
    for (const char *label = host; *label != 0;) {
        size_t size = strcspn(label, ".");
        if (size == 0 || size > 63 || length + size > 1000)
            return 1;
        message[length++] = (unsigned char)size;
        memcpy(message + length, label, size);
        length += size;
        label += size + (label[size] == '.');
    }
    memcpy(message + length, "\0\0\1\0\1", 5);
    length += 5;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_pton(AF_INET, "127.0.0.53", &server.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0)
        return 256;
    if (send(fd, message, length, 0) != (ssize_t)length || !wait_for(fd, POLLIN, LOOK_UP_MS))
        return 256;
    ssize_t got = recv(fd, message, sizeof(message), 0);
    close(fd);
    if (got < 12)
        return 256;
    if ((message[3] & 15) != 0)
        return message[3] & 15;
    size_t end = (size_t)got;
    size_t at = 12 + name_length(message, 12, end) + 4;
    for (int answers = message[6] * 256 + message[7]; answers > 0 && at + 12 < end; answers--) {
        at += name_length(message, at, end);
        size_t size = message[at + 8] * 256u + message[at + 9];
        if (message[at + 1] == 1 && size == 4 && at + 14 <= end) {
            memcpy(address, message + at + 10, 4);
            return 0;
        }
        at += 10 + size;
    }
    return 256;
}

struct outcome do_network(const struct action *action) {
    struct in_addr address;
    if (action->host[0] != 0) {
        int code = look_up(action->host, &address);
        if (code != 0)
            return said("dns", code);
    } else if (inet_pton(AF_INET, action->address, &address) != 1) {
        return said("prep", EINVAL);
    }
    struct sockaddr_in peer = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)action->port), .sin_addr = address};
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)action->port)};
    memcpy(mapped.sin6_addr.s6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    memcpy(mapped.sin6_addr.s6_addr + 12, &address, 4);
    int is_mapped = strcmp(action->how, "mapped") == 0;
    int is_datagram = strcmp(action->how, "udp") == 0;
    int fd = socket(is_mapped ? AF_INET6 : AF_INET, is_datagram ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (fd < 0)
        return said("errno", errno);
    int failed = is_mapped ? connect(fd, (struct sockaddr *)&mapped, sizeof(mapped))
                           : connect(fd, (struct sockaddr *)&peer, sizeof(peer));
    if (failed != 0)
        return said("errno", errno);
    if (send(fd, action->payload, action->payload_length, MSG_NOSIGNAL) < 0)
        return said("errno", errno);
    if (!wait_for(fd, POLLIN, is_datagram ? DATAGRAM_MS : ANSWER_MS))
        return said("errno", ETIMEDOUT);
    char answer[2048];
    size_t length = 0;
    for (ssize_t got; length < sizeof(answer); length += (size_t)got) {
        got = recv(fd, answer + length, sizeof(answer) - length, 0);
        if (got < 0 && length == 0)
            return said("errno", errno);
        if (got <= 0 || is_datagram) {
            length += got > 0 ? (size_t)got : 0;
            break;
        }
    }
    if (write(1, answer, length) != (ssize_t)length)
        return said("prep", errno);
    return said("ok", 0);
}

void serve_loopback(const int *ports, int count) {
    struct pollfd listeners[16];
    for (int i = 0; i < count; i++) {
        struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ports[i])};
        own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(own)) != 0 || listen(fd, 64) != 0) {
            perror("driver: loopback listener");
            _exit(3);
        }
        listeners[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    while (poll(listeners, (nfds_t)count, -1) > 0) {
        for (int i = 0; i < count; i++) {
            if (listeners[i].revents == 0)
                continue;
            int client = accept(listeners[i].fd, NULL, NULL);
            if (client < 0)
                continue;
            // What came is read first: unread bytes would turn the end into a reset.
            char bytes[512];
            if (recv(client, bytes, sizeof(bytes), 0) >= 0 && send(client, "loop\n", 5, MSG_NOSIGNAL) == 5)
                shutdown(client, SHUT_WR);
            close(client);
        }
    }
    _exit(0);
}
