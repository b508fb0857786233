/*
 * Prints every frame that comes in on the interfaces of this network namespace: `PORT HEX`, the port being the
 * destination's of TCP and UDP (0 for anything else), and HEX the whole packet.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static unsigned port_of(const unsigned char *packet, size_t size) {
    size_t header = 40;
    unsigned protocol = 0;
    if (size < 40)
        header = 20;
    if (packet[0] >> 4 == 4) {
        header = (size_t)(packet[0] & 15) * 4;
        protocol = packet[9];
    } else {
        protocol = packet[6];
    }
    /* TCP, UDP, DCCP, SCTP, UDP-Lite: all have the destination's port there. */
    int has_ports = protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136;
    if (!has_ports || size < header + 4)
        return 0;
    return (unsigned)packet[header + 2] << 8 | packet[header + 3];
}

int main(void) {
    static unsigned char packet[65536];
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ALL));
    if (fd < 0)
        return perror("socket"), 1;
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    printf("ready\n");
    for (;;) {
        struct sockaddr_ll from;
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &length);
        if (size < 1 || from.sll_pkttype == PACKET_OUTGOING)
            continue;
        printf("%u ", port_of(packet, (size_t)size));
        for (ssize_t i = 0; i < size && i < 4096; i++)
            printf("%02x", packet[i]);
        printf("\n");
    }
}
