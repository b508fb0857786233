#include "way.h"

#include <linux/io_uring.h>

static const struct way *const lists[] = {exec_ways,  race_ways, process_ways, kernel_ways,  namespace_ways,
                                          mount_ways, file_ways, socket_ways,  connect_ways, probe_ways};

int run_way(const char *name) {
    printf("trying %s\n", need("TOKEN"));
    fflush(stdout);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const struct way *way = lists[i]; way->name != NULL; way++)
            if (strcmp(way->name, name) == 0)
                return way->run();
    fprintf(stderr, "there is no way called %s\n", name);
    return 2;
}

const char *need(const char *variable) {
    const char *value = getenv(variable);
    if (value == NULL) {
        fprintf(stderr, "%s is not set\n", variable);
        exit(2);
    }
    return value;
}

long need_number(const char *variable) {
    return strtol(need(variable), NULL, 0);
}

int shown(void) {
    printf("effect %s\n", need("TOKEN"));
    return fflush(stdout) == 0 ? 0 : 1;
}

int refused(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

int print_fd(int fd) {
    char bytes[65536];
    ssize_t count = read(fd, bytes, sizeof bytes);
    if (count < 0)
        return refused("read");
    return write(STDOUT_FILENO, bytes, (size_t)count) == count ? 0 : 1;
}

int copy_file(const char *from, const char *to, int mode) {
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    char bytes[65536];
    ssize_t count = -1;
    if (in < 0 || out < 0)
        return refused(to), -1;
    while ((count = read(in, bytes, sizeof bytes)) > 0)
        if (write(out, bytes, (size_t)count) != count)
            return refused("write"), -1;
    fchmod(out, (mode_t)mode);
    close(in);
    close(out);
    return open(to, O_RDONLY | O_CLOEXEC);
}

double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

void sleep_ms(int ms) {
    struct timespec time = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&time, NULL);
}

int wait_for(pid_t child, int ms) {
    int status = 0;
    for (double until = now() + ms / 1000.0; now() < until; sleep_ms(2))
        if (waitpid(child, &status, WNOHANG | __WALL) != 0)
            return status;
    kill(child, 9);
    waitpid(child, &status, __WALL);
    return status;
}

int uring(const struct io_uring_sqe *operation, int *result) {
    struct io_uring_params params = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 2, &params);
    if (fd < 0)
        return refused("io_uring_setup"), -1;
    char *sq = mmap(NULL, params.sq_off.array + params.sq_entries * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
                    PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_CQ_RING);
    struct io_uring_sqe *entries = mmap(NULL, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || entries == MAP_FAILED)
        return refused("mmap of the ring"), -1;
    entries[0] = *operation;
    ((uint32_t *)(sq + params.sq_off.array))[0] = 0;
    __atomic_store_n((uint32_t *)(sq + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return refused("io_uring_enter"), -1;
    *result = ((struct io_uring_cqe *)(cq + params.cq_off.cqes))[0].res;
    if (*result < 0)
        errno = -*result, refused("the ring's operation");
    return 0;
}
