// A sandbox for tests: joins a cgroup, installs a seccomp filter that notifies execve and execveat, hands the number
// of its listener to the test on descriptor 3, waits for a byte, and then does what its arguments say.
//
//   actor CGROUP_PROCS MODE [ARGUMENT...]
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static void fail(const char *what) {
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
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                     SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
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

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void report_status(int status) {
    if (WIFSIGNALED(status))
        printf("signal %d\n", WTERMSIG(status));
    else
        printf("exit %d\n", WEXITSTATUS(status));
    fflush(stdout);
}

static void run_and_report(char **argv) {
    pid_t child = fork();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(errno);
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
}

// The byte that a racer flips, and its two values.
static volatile char *flipped;
static char values[2];
static volatile int *done;

static void *flip(void *unused) {
    (void)unused;
    while (!*done) {
        *flipped = values[1];
        for (volatile int i = 0; i < 300; i++) {
        }
        *flipped = values[0];
        for (volatile int i = 0; i < 300; i++) {
        }
    }
    return NULL;
}

// race thread|process TRIES INDEX OTHER PATH [ARGUMENT...]: the first byte of argument INDEX (0: of the path) is set
// to OTHER and back all the time. A vforked child shares the memory with the thread; the process has a mapping.
static void race(char **argv) {
    int by_thread = strcmp(argv[0], "thread") == 0;
    int tries = atoi(argv[1]);
    int index = atoi(argv[2]);
    char **command = argv + 4;
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    done = (volatile int *)(shared + 4096);
    strcpy(shared, command[index]);
    // The last component is what changes.
    char *slash = strrchr(shared, '/');
    flipped = slash ? slash + 1 : shared;
    values[0] = *flipped;
    values[1] = argv[3][0];
    char *own[16] = {0};
    for (int i = 0; i < 15 && command[i]; i++)
        own[i] = i == index ? shared : command[i];
    char *path = own[0];
    own[0] = "program";

    pthread_t thread;
    pid_t racer = 0;
    if (by_thread) {
        if (pthread_create(&thread, NULL, flip, NULL))
            fail("thread");
    } else {
        racer = fork();
        if (racer == 0) {
            flip(NULL);
            _exit(0);
        }
    }
    int killed = 0, refused = 0, ran = 0;
    for (int i = 0; i < tries; i++) {
        pid_t child = vfork();
        if (child == 0) {
            syscall(SYS_execve, path, own, NULL);
            _exit(100);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status))
            killed++;
        else if (WEXITSTATUS(status) == 100)
            refused++;
        else
            ran++;
    }
    *done = 1;
    if (by_thread)
        pthread_join(thread, NULL);
    else
        waitpid(racer, NULL, 0);
    printf("ran %d refused %d killed %d\n", ran, refused, killed);
    fflush(stdout);
}

static int share(void *unused) {
    flip(NULL);
    (void)unused;
    _exit(0);
}

// Tells how many of the tries came to what.
static int killed, refused, ran;

static void account(pid_t child) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, __WALL) != child)
        fail("a try");
    if (WIFSIGNALED(status))
        killed++;
    else if (WEXITSTATUS(status) == 100)
        refused++;
    else
        ran++;
}

static void report_tries(void) {
    printf("ran %d refused %d killed %d\n", ran, refused, killed);
    fflush(stdout);
}

// A process that shares memory, or the working directory, or nothing.
static pid_t start_racer(int (*function)(void *), int flags) {
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        fail("mmap");
    pid_t racer = clone(function, stack + 65536, flags | SIGCHLD, NULL);
    if (racer < 0)
        fail("clone");
    return racer;
}

// race-environment thread|process|memory TRIES VARIABLE OTHER PATH [ARGUMENT...]: as "race", but what changes is the
// first byte of the only variable. "memory" is a process that shares all memory (CLONE_VM).
static void race_environment(char **argv) {
    int tries = atoi(argv[1]);
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    done = (volatile int *)(shared + 4096);
    strcpy(shared, argv[2]);
    flipped = shared;
    values[0] = shared[0];
    values[1] = argv[3][0];
    char *environment[] = {shared, NULL};
    pthread_t thread;
    pid_t racer = 0;
    if (strcmp(argv[0], "thread") == 0) {
        if (pthread_create(&thread, NULL, flip, NULL))
            fail("thread");
    } else {
        racer = start_racer(share, strcmp(argv[0], "memory") == 0 ? CLONE_VM : 0);
    }
    for (int i = 0; i < tries; i++) {
        pid_t child = vfork();
        if (child == 0) {
            syscall(SYS_execve, argv[4], argv + 4, environment);
            _exit(100);
        }
        account(child);
    }
    *done = 1;
    if (racer)
        waitpid(racer, NULL, __WALL);
    else
        pthread_join(thread, NULL);
    report_tries();
}

// repeat TRIES PATH [ARGUMENT...]: one after the other.
static void repeat(char **argv) {
    for (int i = atoi(argv[0]); i > 0; i--) {
        pid_t child = fork();
        if (child == 0) {
            execv(argv[1], argv + 1);
            _exit(100);
        }
        account(child);
    }
    report_tries();
}

static const char *folders[2];

static void *wander(void *unused) {
    while (!*done)
        for (int i = 0; i < 2; i++) {
            if (chdir(folders[i]))
                _exit(97);
            for (volatile int wait = 0; wait < 300; wait++) {
            }
        }
    return unused;
}

static int wander_apart(void *unused) {
    wander(NULL);
    (void)unused;
    _exit(0);
}

// race-cwd thread|process TRIES FOLDER OTHER PATH [ARGUMENT...]: the working directory of whoever execs is changed
// all the time, by its own thread, or by a process that shares it (CLONE_FS).
static void race_cwd(char **argv) {
    int by_thread = strcmp(argv[0], "thread") == 0;
    int tries = atoi(argv[1]);
    folders[0] = argv[2];
    folders[1] = argv[3];
    done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (done == MAP_FAILED)
        fail("mmap");
    pid_t racer = by_thread ? 0 : start_racer(wander_apart, CLONE_FS);
    for (int i = 0; i < tries; i++) {
        pid_t child = syscall(SYS_clone, (by_thread ? 0 : CLONE_FS) | SIGCHLD, NULL, NULL, NULL, 0);
        if (child == 0) {
            pthread_t thread;
            if (by_thread && pthread_create(&thread, NULL, wander, NULL))
                _exit(96);
            syscall(SYS_execve, argv[4], argv + 4, NULL);
            _exit(100);
        }
        account(child);
    }
    *done = 1;
    if (racer)
        waitpid(racer, NULL, 0);
    report_tries();
}

// vfork PATH [ARGUMENT...]: how long the parent stands still, then what became of the child.
static void measure_vfork(char **argv) {
    double before = now_ms();
    pid_t child = vfork();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(100);
    }
    printf("gap %.3f\n", now_ms() - before);
    fflush(stdout);
    int status;
    waitpid(child, &status, 0);
    report_status(status);
}

// many COUNT PATH [ARGUMENT...]: that many children at once.
static void many(char **argv) {
    int count = atoi(argv[0]);
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0) {
            execv(argv[1], argv + 1);
            _exit(100);
        }
    }
    int exited = 0, signalled = 0, refused = 0;
    for (int i = 0; i < count; i++) {
        int status;
        if (wait(&status) < 0)
            fail("wait");
        if (WIFSIGNALED(status))
            signalled++;
        else if (WEXITSTATUS(status) == 100)
            refused++;
        else
            exited++;
    }
    printf("exited %d signalled %d refused %d\n", exited, signalled, refused);
    fflush(stdout);
}

// time COUNT PATH [ARGUMENT...]: microseconds of fork, exec and wait, the median and the 99th percentile.
static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(char **argv) {
    int count = atoi(argv[0]);
    double *times = calloc(count, sizeof(*times));
    for (int i = 0; i < count; i++) {
        double before = now_ms();
        pid_t child = vfork();
        if (child == 0) {
            execv(argv[1], argv + 1);
            _exit(100);
        }
        int status;
        waitpid(child, &status, 0);
        times[i] = (now_ms() - before) * 1e3;
        if (status)
            fail("a timed exec failed");
    }
    qsort(times, count, sizeof(*times), by_size);
    printf("p1 %.0f p50 %.0f p99 %.0f\n", times[count / 100], times[count / 2], times[count * 99 / 100]);
    fflush(stdout);
}

static void *exec_in_thread(void *argv) {
    char **command = argv;
    execv(command[0], command);
    printf("errno %d\n", errno);
    _exit(100);
}

// Leaves the file "leaked" if a thread of this process is ever seen in the subject "tool".
static int in_tool(void) {
    char text[4096];
    int fd = open("/proc/thread-self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (size < 0)
        fail("cgroup");
    close(fd);
    text[size] = 0;
    return strstr(text, "/tool") != NULL;
}

static void *watch(void *unused) {
    for (;;)
        if (in_tool())
            close(open("leaked", O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    return unused;
}

// watched big|small PATH [ARGUMENT...]: an exec while another thread watches in which subject it runs. With "big" one
// that the kernel refuses (an environment string of 200 KB) comes before it.
static void watched(char **argv) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, NULL))
        fail("thread");
    usleep(20000);
    if (strcmp(argv[0], "big") == 0) {
        char *big = malloc(200001);
        memset(big, 'x', 200000);
        big[1] = '=';
        big[200000] = 0;
        char *environment[] = {big, NULL};
        syscall(SYS_execve, argv[1], argv + 1, environment);
        printf("errno %d\n", errno);
        usleep(200000);
        printf("%s\n", in_tool() ? "tool" : "main");
        fflush(stdout);
    }
    execv(argv[1], argv + 1);
    printf("errno %d\n", errno);
}

// exec-count arguments|names COUNT PATH [ARGUMENT...]: with so many arguments, the last of them "end", or with so many
// names of variables before LD_PRELOAD.
static void exec_count(char **argv) {
    int count = atoi(argv[1]);
    char **own = calloc(count + 2, sizeof(*own)), **arguments = argv + 2, **environment = own;
    if (strcmp(argv[0], "arguments") == 0) {
        for (int i = 0, given = 1; i < count; i++) {
            given = given && arguments[i];
            own[i] = given ? arguments[i] : "x";
        }
        own[count - 1] = "end";
        arguments = own;
        environment = NULL;
    } else {
        for (int i = 0; i < count; i++) {
            own[i] = malloc(16);
            snprintf(own[i], 16, "A%05d=", i);
        }
        own[count] = "LD_PRELOAD=x";
    }
    syscall(SYS_execve, argv[2], arguments, environment);
    printf("errno %d\n", errno);
}

// A child that runs a command, with a process group of its own.
static pid_t start(char **argv, int death_signal) {
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        if (death_signal)
            prctl(PR_SET_PDEATHSIG, death_signal);
        execv(argv[0], argv);
        _exit(errno);
    }
    return child;
}

static void await_file(const char *name) {
    while (access(name, F_OK))
        usleep(2000);
}

// orphan SIGNAL PATH [ARGUMENT...]: a command whose parent ends when the file "die" appears, and who is sent the signal
// then, if it is not 0.
static void orphan(char **argv) {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        fail("subreaper");
    pid_t parent = fork();
    if (parent == 0) {
        start(argv + 1, atoi(argv[0]));
        await_file("die");
        _exit(0);
    }
    int status;
    waitpid(parent, &status, 0);
    while (wait(&status) > 0)
        report_status(status);
}

// killed parent|other|group SIGNAL default|ignored|blocked PATH [ARGUMENT...]: a command that is sent a signal by
// whom it says when the file "kill" appears.
static void kill_held(char **argv) {
    int signal_number = atoi(argv[1]);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    if (strcmp(argv[2], "ignored") == 0)
        signal(signal_number, SIG_IGN);
    if (strcmp(argv[2], "blocked") == 0)
        sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t child = start(argv + 3, 0);
    int by_other = strcmp(argv[0], "other") == 0;
    pid_t killer = by_other ? fork() : 0;
    if (killer == 0) {
        await_file("kill");
        kill(strcmp(argv[0], "group") == 0 ? -child : child, signal_number);
        if (by_other)
            _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
}

// storm PATH [ARGUMENT...]: a command that is stopped and continued all the time, until the file "calm" appears.
static void storm(char **argv) {
    pid_t child = start(argv, 0);
    pid_t stormer = fork();
    if (stormer == 0) {
        while (access("calm", F_OK))
            for (int i = 0; i < 100; i++) {
                kill(child, SIGSTOP);
                kill(child, i % 3 ? SIGCONT : SIGWINCH);
            }
        kill(child, SIGCONT);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
}

// storms TRIES PATH [ARGUMENT...]: as many commands, one after the other, each stopped, continued and in the end
// killed by another process while it is decided about; and the next one takes its place.
static void storms(char **argv) {
    int tries = atoi(argv[0]), exited = 0, signalled = 0, refused = 0;
    for (int i = 0; i < tries; i++) {
        pid_t child = fork();
        if (child == 0) {
            execv(argv[1], argv + 1);
            _exit(100);
        }
        int status;
        for (int j = 0; waitpid(child, &status, WNOHANG) == 0; j++) {
            kill(child, SIGSTOP);
            kill(child, SIGCONT);
            if (j > 20 + i % 400)
                kill(child, i % 2 ? SIGKILL : SIGTERM);
        }
        if (WIFSIGNALED(status))
            signalled++;
        else if (WEXITSTATUS(status) == 100)
            refused++;
        else
            exited++;
    }
    printf("exited %d signalled %d refused %d\n", exited, signalled, refused);
    fflush(stdout);
}

// spawn PATH [ARGUMENT...]: by posix_spawn.
static void spawn(char **argv) {
    pid_t child;
    char *environment[] = {NULL};
    int error = posix_spawn(&child, argv[0], NULL, NULL, argv, environment);
    if (error) {
        printf("errno %d\n", error);
        return;
    }
    printf("spawned\n");
    fflush(stdout);
    int status;
    waitpid(child, &status, 0);
    report_status(status);
}

// exec-threads COUNT PATH [ARGUMENT...]: that many threads of a child call execve at once.
static void exec_threads(char **argv) {
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        for (int i = 0; i < atoi(argv[0]); i++)
            if (pthread_create(&thread, NULL, exec_in_thread, argv + 1))
                _exit(97);
        for (;;)
            pause();
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
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
    if (strcmp(argv[2], "forked") == 0) {
        pid_t child = fork();
        if (child != 0) {
            int status;
            waitpid(child, &status, 0);
            report_status(status);
            return 0;
        }
        argv++;
    }
    const char *mode = argv[2];
    char **rest = argv + 3;
    if (strcmp(mode, "run") == 0) {
        run_and_report(rest);
    } else if (strcmp(mode, "exec") == 0) {
        execv(rest[0], rest);
        printf("errno %d\n", errno);
        return 100;
    } else if (strcmp(mode, "exec-stay") == 0) {
        execv(rest[0], rest);
        printf("errno %d\n", errno);
        usleep(300000);
        return 100;
    } else if (strcmp(mode, "exec-fullerr") == 0) {
        // Standard error is a pipe that is full and that nobody reads.
        int ends[2];
        if (pipe2(ends, O_NONBLOCK))
            fail("pipe");
        char byte = 'x';
        while (write(ends[1], &byte, 1) == 1) {
        }
        fcntl(ends[1], F_SETFL, 0);
        dup2(ends[1], 2);
        double before = now_ms();
        execv(rest[0], rest);
        printf("errno %d after %.3f\n", errno, now_ms() - before);
        return 100;
    } else if (strcmp(mode, "pidns") == 0) {
        // pidns FILE PATH [ARGUMENT...]: in a pid namespace with a /proc of its own, and FILE open as descriptor 9.
        if (unshare(CLONE_NEWPID | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
            fail("unshare");
        pid_t child = fork();
        if (child == 0) {
            // The first process shares its number with no thread of the host that could be taken for it.
            if (mount("proc", "/proc", "proc", 0, NULL) || dup2(open(rest[0], O_RDONLY), 9) != 9)
                _exit(97);
            execv(rest[1], rest + 1);
            _exit(errno);
        }
        int status;
        waitpid(child, &status, 0);
        report_status(status);
    } else if (strcmp(mode, "exec-thread") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, exec_in_thread, rest);
        pthread_join(thread, NULL);
    } else if (strcmp(mode, "exec-noargv") == 0) {
        syscall(SYS_execve, rest[0], NULL, NULL);
        printf("errno %d\n", errno);
        return 100;
    } else if (strcmp(mode, "fexec") == 0) {
        // fexec PATH [ARGUMENT...]: by descriptor; a leading "mem:" copies it into a memfd first, "gone:" removes it.
        int gone = strncmp(rest[0], "gone:", 5) == 0;
        if (gone)
            rest[0] += 5;
        int from = open(strncmp(rest[0], "mem:", 4) ? rest[0] : rest[0] + 4, O_RDONLY | O_CLOEXEC);
        if (gone && unlink(rest[0]))
            fail("unlink");
        int fd = from;
        if (strncmp(rest[0], "mem:", 4) == 0) {
            fd = memfd_create("copy", MFD_CLOEXEC);
            char buffer[65536];
            for (ssize_t n; (n = read(from, buffer, sizeof(buffer))) > 0;)
                if (write(fd, buffer, n) != n)
                    fail("memfd");
        }
        syscall(SYS_execveat, fd, "", rest, NULL, AT_EMPTY_PATH);
        printf("errno %d\n", errno);
        return 100;
    } else if (strcmp(mode, "check") == 0) {
        // check PATH [ARGUMENT...]: AT_EXECVE_CHECK, and then for good.
        const int execve_check = 0x10000;
        int fd = open(rest[0], O_RDONLY | O_CLOEXEC);
        int result = syscall(SYS_execveat, fd, "", rest, NULL, AT_EMPTY_PATH | execve_check);
        printf("check %d\nwaiting\n", result ? errno : 0);
        fflush(stdout);
        execv(rest[0], rest);
        return 100;
    } else if (strcmp(mode, "watched") == 0) {
        watched(rest);
        return 100;
    } else if (strcmp(mode, "exec-count") == 0) {
        exec_count(rest);
        return 100;
    } else if (strcmp(mode, "race") == 0) {
        race(rest);
    } else if (strcmp(mode, "race-environment") == 0) {
        race_environment(rest);
    } else if (strcmp(mode, "repeat") == 0) {
        repeat(rest);
    } else if (strcmp(mode, "race-cwd") == 0) {
        race_cwd(rest);
    } else if (strcmp(mode, "vfork") == 0) {
        measure_vfork(rest);
    } else if (strcmp(mode, "orphan") == 0) {
        orphan(rest);
    } else if (strcmp(mode, "killed") == 0) {
        kill_held(rest);
    } else if (strcmp(mode, "storm") == 0) {
        storm(rest);
    } else if (strcmp(mode, "storms") == 0) {
        storms(rest);
    } else if (strcmp(mode, "spawn") == 0) {
        spawn(rest);
    } else if (strcmp(mode, "setsid") == 0) {
        pid_t child = fork();
        if (child == 0) {
            setsid();
            run_and_report(rest);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
    } else if (strcmp(mode, "exec-threads") == 0) {
        exec_threads(rest);
    } else if (strcmp(mode, "many") == 0) {
        many(rest);
    } else if (strcmp(mode, "time") == 0) {
        measure(rest);
    } else {
        return 98;
    }
    return 0;
}
