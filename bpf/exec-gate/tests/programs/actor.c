// A sandbox for tests: joins a cgroup, installs a seccomp filter that notifies execve and execveat, hands the number
// of its listener to the test on descriptor 3, waits for a byte, and then does what its arguments say.
//
//   actor CGROUP_PROCS MODE [ARGUMENT...]
#include "actor.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <time.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

void fail(const char *what) {
    fprintf(stderr, "actor: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static int install(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execveat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("no_new_privs");
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if (!getenv("TEST_INTERRUPTIBLE"))
        flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (fd < 0)
        fail("seccomp");
    return fd;
}

static void join(const char *procs) {
    int fd = open(procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        fail(procs);
    close(fd);
}

double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

void report_status(int status) {
    if (WIFSIGNALED(status))
        printf("signal %d\n", WTERMSIG(status));
    else
        printf("exit %d\n", WEXITSTATUS(status));
    fflush(stdout);
}

int run_and_report(char **argv) {
    pid_t child = fork();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(errno);
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
    return 0;
}

static const struct mode *find(const char *name) {
    const struct mode *const lists[] = {exec_modes, child_modes, race_modes, reach_modes};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        for (const struct mode *mode = lists[i]; mode->name; mode++)
            if (strcmp(mode->name, name) == 0)
                return mode;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 98;
    join(argv[1]);
    // "-" runs without a filter: nothing is ever approved.
    if (argv[2][0] == '-') {
        argv++;
    } else {
        int listener = install();
        char go;
        if (write(3, &listener, sizeof(listener)) != sizeof(listener) || read(3, &go, 1) != 1)
            fail("the test is gone");
        close(listener);
    }
    close(3);
    // "forked MODE" does it in a child. What the test itself waits for must not be traced: its wait takes the stops.
    if (argv[2] && strcmp(argv[2], "forked") == 0) {
        pid_t child = fork();
        if (child != 0) {
            int status;
            waitpid(child, &status, 0);
            report_status(status);
            return 0;
        }
        argv++;
    }
    const struct mode *mode = argv[2] ? find(argv[2]) : NULL;
    return mode ? mode->run(argv + 3) : 98;
}
