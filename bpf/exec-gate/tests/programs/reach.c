// Modes that race by reaching for what is executed from outside of the process that calls execve: into its memory, into
// its mounts, or, by a thread of it, at a script's file. See races.c for those that change what is their own.
#include "actor.h"
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ptrace.h>

// What racer and main process tell each other.
static struct {
    volatile int done;
    // The child that will call execve next, and the one that the racer has got hold of.
    volatile pid_t child, ready;
} * shared;

// The byte that is changed. Each child has a copy, at this address.
static char text[4096];
static char values[2];
static char *target;

static void pause_between(void) {
    for (volatile int i = 0; i < 300; i++) {
    }
}

// Writes by /proc/PID/mem. The descriptor belongs to the memory from before the exec, and is of no use afterwards.
static void write_memory(pid_t child) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/mem", child);
    int memory = open(path, O_RDWR | O_CLOEXEC);
    shared->ready = child;
    if (memory < 0)
        return;
    for (int i = 0; shared->child == child; i++) {
        if (pwrite(memory, &values[~i & 1], 1, (off_t)(uintptr_t)target) != 1)
            break;
        pause_between();
    }
    close(memory);
}

// Stops the child again and again, and writes while it stands. Lets go of it at its exec.
static void trace(pid_t child) {
    if (ptrace(PTRACE_SEIZE, child, NULL, (void *)PTRACE_O_TRACEEXEC))
        fail("seize");
    shared->ready = child;
    long word;
    for (int i = 0;; i++) {
        ptrace(PTRACE_INTERRUPT, child, NULL, NULL);
        int status;
        if (waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status))
            return;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
            ptrace(PTRACE_DETACH, child, NULL, NULL);
            return;
        }
        errno = 0;
        word = ptrace(PTRACE_PEEKDATA, child, target, NULL);
        if (errno == 0) {
            memcpy(&word, &values[~i & 1], 1);
            ptrace(PTRACE_POKEDATA, child, target, (void *)word);
        }
        ptrace(PTRACE_CONT, child, NULL, NULL);
        pause_between();
    }
}

// race-reach memory|trace TRIES INDEX OTHER PATH [ARGUMENT...]: as "race", but by a process that shares nothing with
// the one that calls execve: it writes /proc/PID/mem, or it traces it.
static int race_reach(char **argv) {
    void (*reach)(pid_t) = strcmp(argv[0], "trace") == 0 ? trace : write_memory;
    int tries = atoi(argv[1]), index = atoi(argv[2]);
    char **command = argv + 4;
    shared = shared_memory(4096);
    strcpy(text, command[index]);
    char *slash = strrchr(text, '/');
    target = slash ? slash + 1 : text;
    values[0] = *target;
    values[1] = argv[3][0];
    const char *path = index == 0 ? text : command[0];
    if (index)
        command[index] = text;

    pid_t racer = fork();
    if (racer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (pid_t last = 0; !shared->done;) {
            pid_t child = shared->child;
            if (child == 0 || child == last)
                continue;
            last = child;
            reach(child);
        }
        _exit(0);
    }
    for (int i = 0; i < tries; i++) {
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (shared->ready != getpid()) {
            }
            syscall(SYS_execve, path, command, NULL);
            _exit(100);
        }
        shared->child = child;
        account(child);
        shared->child = 0;
    }
    shared->done = 1;
    waitpid(racer, NULL, 0);
    return report_tries();
}

// race-mount TRIES OTHER PATH [ARGUMENT...]: in a mount namespace in which OTHER is mounted over PATH all the time, and
// taken away again.
static int race_mount(char **argv) {
    int tries = atoi(argv[0]);
    const char *other = argv[1], *path = argv[2];
    shared = shared_memory(4096);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        fail("unshare");
    pid_t racer = fork();
    if (racer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (!shared->done) {
            if (mount(other, path, NULL, MS_BIND, NULL))
                fail("mount");
            usleep(50);
            if (umount2(path, MNT_DETACH))
                fail("umount");
            usleep(50);
        }
        _exit(0);
    }
    for (int i = 0; i < tries; i++) {
        pid_t child = fork();
        if (child == 0) {
            syscall(SYS_execve, path, argv + 2, NULL);
            _exit(100);
        }
        account(child);
    }
    shared->done = 1;
    int status;
    waitpid(racer, &status, 0);
    if (status)
        fail("the racer");
    return report_tries();
}

static const char *script, *other_script;

static void *exchange(void *unused) {
    for (;;) {
        syscall(SYS_renameat2, AT_FDCWD, script, AT_FDCWD, other_script, RENAME_EXCHANGE);
        usleep(50);
    }
    return unused;
}

// The script's content and the other one's.
static char contents[2][4096];
static ssize_t sizes[2];

static void keep_contents(void) {
    const char *const names[] = {script, other_script};
    for (int i = 0; i < 2; i++) {
        int fd = open(names[i], O_RDONLY | O_CLOEXEC);
        sizes[i] = read(fd, contents[i], sizeof(contents[i]));
        if (sizes[i] <= 0)
            fail(names[i]);
        close(fd);
    }
}

// Writes the other content into the file, and its own. While it is being executed it cannot be opened.
static void *rewrite(void *unused) {
    for (int i = 1;; i++) {
        int fd = open(script, O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && pwrite(fd, contents[i & 1], sizes[i & 1], 0) < 0)
            fail("write");
        if (fd >= 0)
            close(fd);
        usleep(50);
    }
    return unused;
}

// race-script exchange|rewrite TRIES OTHER SCRIPT [ARGUMENT...]: a thread of the very process that executes the script
// exchanges it with the other one, or writes the other's content into it, until the exec ends the thread.
static int race_script(char **argv) {
    void *(*change)(void *) = strcmp(argv[0], "exchange") == 0 ? exchange : rewrite;
    int tries = atoi(argv[1]);
    other_script = argv[2];
    script = argv[3];
    keep_contents();
    for (int i = 0; i < tries; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, change, NULL))
                _exit(96);
            execv(script, argv + 3);
            _exit(100);
        }
        account(child);
    }
    return report_tries();
}

const struct mode reach_modes[] = {
    {"race-reach", race_reach},
    {"race-mount", race_mount},
    {"race-script", race_script},
    {NULL, NULL},
};
