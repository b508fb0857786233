/*
 * Ways of a tool to the gateway's secret, memory and life. HOLDER names a file in which the gateway's holder.c
 * says its pid, a descriptor of the secret, where the secret is in memory, and where nobody else may write.
 */
#include "way.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

struct holder {
    int pid, fd;
    unsigned long secret, untouched;
};

static struct holder holder(void) {
    struct holder found = {0};
    FILE *file = fopen(need("HOLDER"), "r");
    if (file == NULL ||
        fscanf(file, "%d %d %lu %lu", &found.pid, &found.fd, &found.secret, &found.untouched) != 4) {
        fprintf(stderr, "HOLDER cannot be read\n");
        exit(2);
    }
    return found;
}

static int open_of_holder(const char *what, int flags) {
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", holder().pid, what);
    int fd = open(path, flags);
    return fd < 0 ? (refused(path), -1) : fd;
}

static int vm_read(void) {
    char bytes[256] = {0};
    struct holder of = holder();
    struct iovec here = {bytes, sizeof bytes}, there = {(void *)of.secret, sizeof bytes};
    if (process_vm_readv(of.pid, &here, 1, &there, 1, 0) < 0)
        return refused("process_vm_readv");
    return printf("%s\n", bytes) < 0;
}

static int vm_write(void) {
    struct holder of = holder();
    char *token = strdup(need("TOKEN"));
    struct iovec here = {token, strlen(token) + 1}, there = {(void *)of.untouched, strlen(token) + 1};
    if (process_vm_writev(of.pid, &here, 1, &there, 1, 0) < 0)
        return refused("process_vm_writev");
    sleep_ms(200);
    return 0;
}

static int mem_read(void) {
    char bytes[256] = {0};
    int fd = open_of_holder("mem", O_RDONLY);
    if (fd < 0 || pread(fd, bytes, sizeof bytes - 1, (off_t)holder().secret) < 0)
        return refused("pread");
    return printf("%s\n", bytes) < 0;
}

static int mem_write(void) {
    const char *token = need("TOKEN");
    int fd = open_of_holder("mem", O_RDWR);
    if (fd < 0 || pwrite(fd, token, strlen(token) + 1, (off_t)holder().untouched) < 0)
        return refused("pwrite");
    sleep_ms(200);
    return 0;
}

static int proc_file(const char *what) {
    int fd = open_of_holder(what, O_RDONLY);
    return fd < 0 ? 1 : print_fd(fd);
}
static int proc_environ(void) {
    return proc_file("environ");
}
static int proc_descriptor(void) {
    char name[32];
    snprintf(name, sizeof name, "fd/%d", holder().fd);
    return proc_file(name);
}
static int proc_root(void) {
    char name[512];
    snprintf(name, sizeof name, "root%s", need("SECRET"));
    return proc_file(name);
}
static int proc_cwd(void) {
    char name[512];
    snprintf(name, sizeof name, "cwd/../..%s", need("SECRET"));
    return proc_file(name);
}

/* A folder's descriptor of the gateway's task, and the secret from there. */
static int proc_task(void) {
    char name[64];
    snprintf(name, sizeof name, "task/%d/root", holder().pid);
    int folder = open_of_holder(name, O_PATH | O_DIRECTORY);
    int fd = folder < 0 ? -1 : openat(folder, need("SECRET") + 1, O_RDONLY);
    return fd < 0 ? refused("openat") : print_fd(fd);
}

static int steal_descriptor(void) {
    struct holder of = holder();
    int pidfd = (int)syscall(SYS_pidfd_open, of.pid, 0);
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, of.fd, 0);
    if (fd < 0)
        return refused("pidfd_getfd");
    lseek(fd, 0, SEEK_SET);
    return print_fd(fd);
}

static int attach(pid_t pid) {
    if (ptrace(PTRACE_ATTACH, pid, 0, 0) < 0)
        return refused("ptrace"), -1;
    waitpid(pid, NULL, __WALL);
    return 0;
}

static int trace_read(void) {
    struct holder of = holder();
    char bytes[129] = {0};
    if (attach(of.pid) < 0)
        return 1;
    for (size_t at = 0; at < 128; at += sizeof(long)) {
        long word = ptrace(PTRACE_PEEKDATA, of.pid, of.secret + at, 0);
        memcpy(bytes + at, &word, sizeof word);
    }
    ptrace(PTRACE_DETACH, of.pid, 0, 0);
    return printf("%s\n", bytes) < 0;
}

static int trace_write(void) {
    struct holder of = holder();
    char words[64] = {0};
    strncpy(words, need("TOKEN"), sizeof words - 1);
    if (attach(of.pid) < 0)
        return 1;
    for (size_t at = 0; at < sizeof words; at += sizeof(long)) {
        long word;
        memcpy(&word, words + at, sizeof word);
        ptrace(PTRACE_POKEDATA, of.pid, of.untouched + at, word);
    }
    ptrace(PTRACE_DETACH, of.pid, 0, 0);
    sleep_ms(200);
    return 0;
}

/* A child that asks to be traced, stops, and is made to go on with another image's name in its memory. */
static int trace_child(void) {
    static char text[64] = "untouched";
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(strncmp(text, "un", 2) == 0 ? 1 : 42);
    }
    int status = 0;
    waitpid(child, &status, WUNTRACED);
    long word = 0;
    memcpy(&word, "poked..", 8);
    if (ptrace(PTRACE_POKEDATA, child, text, word) < 0)
        refused("ptrace");
    if (ptrace(PTRACE_CONT, child, 0, 0) < 0)
        kill(child, SIGCONT);
    status = wait_for(child, 1000);
    return WIFEXITED(status) && WEXITSTATUS(status) == 42 ? shown() : 1;
}

/* Past the protection of one's own pages: what the kernel writes through mem is not asked about. */
static int self_mem(void) {
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open("/proc/self/mem", O_RDWR);
    if (fd < 0 || pwrite(fd, "x", 1, (off_t)(uintptr_t)page) != 1)
        return refused("/proc/self/mem");
    return page[0] == 'x' ? shown() : 1;
}

static int limit_gateway(void) {
    struct rlimit64 limit = {0}, before = {0};
    pid_t pid = holder().pid;
    if (syscall(SYS_prlimit64, pid, RLIMIT_MSGQUEUE, NULL, &before) < 0)
        return refused("prlimit64");
    limit.rlim_cur = before.rlim_cur / 2;
    limit.rlim_max = before.rlim_max;
    if (syscall(SYS_prlimit64, pid, RLIMIT_MSGQUEUE, &limit, NULL) < 0)
        return refused("prlimit64");
    struct rlimit64 after = {0};
    syscall(SYS_prlimit64, pid, RLIMIT_MSGQUEUE, NULL, &after);
    syscall(SYS_prlimit64, pid, RLIMIT_MSGQUEUE, &before, NULL);
    return after.rlim_cur == limit.rlim_cur ? shown() : 1;
}

/* SIGUSR2: the gateway notes that it came. */
static int signal_gateway(void) {
    if (kill(holder().pid, SIGUSR2) < 0)
        return refused("kill");
    sleep_ms(200);
    return 0;
}
static int signal_pidfd(void) {
    int pidfd = (int)syscall(SYS_pidfd_open, holder().pid, 0);
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGUSR2, NULL, 0) < 0)
        return refused("pidfd_send_signal");
    sleep_ms(200);
    return 0;
}
static int signal_queue(void) {
    union sigval value = {0};
    if (sigqueue(holder().pid, SIGUSR2, value) < 0)
        return refused("sigqueue");
    sleep_ms(200);
    return 0;
}
static int signal_thread(void) {
    struct holder of = holder();
    if (syscall(SYS_tgkill, of.pid, of.pid, SIGUSR2) < 0)
        return refused("tgkill");
    sleep_ms(200);
    return 0;
}
/* SIGIO's owner: the kernel sends it, in the name of whoever set it. */
static int signal_owner(void) {
    int pair[2];
    if (pipe(pair) < 0 || fcntl(pair[0], F_SETSIG, SIGUSR2) < 0)
        return refused("F_SETSIG");
    if (fcntl(pair[0], F_SETOWN, holder().pid) < 0)
        return refused("F_SETOWN");
    fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK);
    if (write(pair[1], "x", 1) != 1)
        return refused("write");
    sleep_ms(200);
    return 0;
}

const struct way process_ways[] = {{"vm-read", vm_read},
                                   {"vm-write", vm_write},
                                   {"proc-mem-read", mem_read},
                                   {"proc-mem-write", mem_write},
                                   {"proc-environ", proc_environ},
                                   {"proc-descriptor", proc_descriptor},
                                   {"proc-root", proc_root},
                                   {"proc-cwd", proc_cwd},
                                   {"proc-task", proc_task},
                                   {"steal-descriptor", steal_descriptor},
                                   {"trace-read", trace_read},
                                   {"trace-write", trace_write},
                                   {"trace-child", trace_child},
                                   {"self-mem", self_mem},
                                   {"limit-gateway", limit_gateway},
                                   {"signal-gateway", signal_gateway},
                                   {"signal-pidfd", signal_pidfd},
                                   {"signal-queue", signal_queue},
                                   {"signal-thread", signal_thread},
                                   {"signal-owner", signal_owner},
                                   {NULL, NULL}};
