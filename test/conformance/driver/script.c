// The file that an exec names in its arguments: made for it, or found, and given by its name or as a descriptor.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver.h"

static int write_payload(const struct action *action, int fd) {
    ssize_t length = (ssize_t)action->payload_length;
    return write(fd, action->payload, action->payload_length) == length ? 0 : -1;
}

// Descriptors stay open in the new image.
static int move_to(int fd, int number) {
    if (fd == number)
        return 0;
    return fd >= 0 && dup2(fd, number) == number ? close(fd) : -1;
}

int make_script(const struct action *action) {
    const char *as = action->as;
    int is_deleted = strcmp(as, "deleted") == 0;
    if (action->script[0] == 0)
        return 0;
    if (strcmp(as, "memory") == 0) {
        int fd = memfd_create(action->script, 0);
        return fd >= 0 && write_payload(action, fd) == 0 ? move_to(fd, GIVEN_FD) : -1;
    }
    if (strcmp(as, "pipe") == 0) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0 || write_payload(action, ends[1]) != 0)
            return -1;
        close(ends[1]);
        return move_to(ends[0], GIVEN_FD);
    }
    if (strcmp(as, "made") == 0 || is_deleted) {
        int fd = open(action->script, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0 || write_payload(action, fd) != 0 || close(fd) != 0)
            return -1;
        if (!is_deleted)
            return 0;
        fd = open(action->script, O_RDONLY);
        return fd >= 0 && unlink(action->script) == 0 ? move_to(fd, GIVEN_FD) : -1;
    }
    return move_to(open(action->script, O_RDONLY), strcmp(as, "stdin") == 0 ? 0 : GIVEN_FD);
}
