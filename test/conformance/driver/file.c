// What can be done to a file by its name.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

static struct outcome result(long value) {
    return value < 0 ? said("errno", errno) : said("ok", 0);
}

static struct outcome write_to(int fd, const struct action *action) {
    if (fd < 0)
        return said("errno", errno);
    return result(write(fd, action->payload, action->payload_length));
}

struct outcome do_file(const struct action *action) {
    const char *operation = action->operation;
    int at = AT_FDCWD;
    if (action->directory[0] != 0 && (at = open(action->directory, O_PATH | O_DIRECTORY)) < 0)
        return said("prep", errno);
    if (strcmp(operation, "read") == 0) {
        char bytes[256];
        int fd = openat(at, action->path, O_RDONLY | O_NONBLOCK);
        if (fd < 0)
            return said("errno", errno);
        ssize_t got = read(fd, bytes, sizeof(bytes));
        if (got > 0 && write(1, bytes, (size_t)got) != got)
            return said("prep", errno);
        return result(got);
    }
    if (strcmp(operation, "opath") == 0)
        return result(openat(at, action->path, O_PATH));
    if (strcmp(operation, "write") == 0)
        return write_to(openat(at, action->path, O_WRONLY), action);
    if (strcmp(operation, "append") == 0)
        return write_to(openat(at, action->path, O_WRONLY | O_APPEND), action);
    if (strcmp(operation, "otrunc") == 0)
        return write_to(openat(at, action->path, O_WRONLY | O_TRUNC), action);
    if (strcmp(operation, "create") == 0)
        return write_to(openat(at, action->path, O_WRONLY | O_CREAT | O_EXCL, 0600), action);
    if (strcmp(operation, "delete") == 0)
        return result(at == AT_FDCWD ? unlink(action->path) : unlinkat(at, action->path, 0));
    if (strcmp(operation, "rename") == 0)
        return result(at == AT_FDCWD ? rename(action->path, action->target)
                                     : renameat2(at, action->path, AT_FDCWD, action->target, 0));
    if (strcmp(operation, "link") == 0)
        return result(at == AT_FDCWD ? link(action->path, action->target)
                                     : linkat(at, action->path, AT_FDCWD, action->target, 0));
    if (strcmp(operation, "truncate") == 0)
        return result(truncate(action->path, 0));
    if (strcmp(operation, "chmod") == 0)
        return result(fchmodat(at, action->path, 0600, 0));
    return said("prep", ENOSYS);
}
