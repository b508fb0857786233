// Modes in which other processes, or many of them, call execve, and something happens to them.
#include "actor.h"
#include <spawn.h>

// vfork PATH [ARGUMENT...]: how long the parent stands still, then what became of the child.
static int measure_vfork(char **argv) {
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
    return 0;
}

// many COUNT PATH [ARGUMENT...]: that many children at once.
static int many(char **argv) {
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
    return 0;
}

// time COUNT PATH [ARGUMENT...]: microseconds of fork, exec and wait, the median and the 99th percentile.
static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure(char **argv) {
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
    return 0;
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
static int orphan(char **argv) {
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
    return 0;
}

// killed parent|other|group SIGNAL default|ignored|blocked PATH [ARGUMENT...]: a command that is sent a signal by
// whom it says when the file "kill" appears.
static int kill_held(char **argv) {
    int signal_number = atoi(argv[1]);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    // Not as it was inherited: nohup ignores SIGHUP, and a shell ignores SIGINT for what it runs in the background.
    signal(signal_number, strcmp(argv[2], "ignored") == 0 ? SIG_IGN : SIG_DFL);
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
    return 0;
}

// Stops and continues a child all the time until the file "calm" appears, and waits for it. `name`: becomes `other` once the
// file "change" appears; NULL: nothing changes.
static int in_a_storm(pid_t child, char *name, const char *other) {
    pid_t stormer = fork();
    if (stormer == 0) {
        while (access("calm", F_OK)) {
            if (name && access("change", F_OK) == 0)
                strcpy(name, other);
            for (int i = 0; i < 100; i++) {
                kill(child, SIGSTOP);
                kill(child, i % 3 ? SIGCONT : SIGWINCH);
            }
        }
        kill(child, SIGCONT);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
    return 0;
}

// storm PATH [ARGUMENT...]: a command that is stopped and continued all the time, until the file "calm" appears.
static int storm(char **argv) {
    return in_a_storm(start(argv, 0), NULL, NULL);
}

// storm-changed PATH FOLDER NAME OTHER: as storm, and once the file "change" appears, the call is made again with OTHER in
// NAME's place. They differ in one byte, so that no other name is ever there.
static int storm_changed(char **argv) {
    char *name = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (name == MAP_FAILED)
        fail("mmap");
    strcpy(name, argv[2]);
    char *const call[] = {argv[0], argv[1], name, NULL};
    pid_t child = fork();
    if (child == 0) {
        execv(call[0], call);
        _exit(errno);
    }
    return in_a_storm(child, name, argv[3]);
}

// storms TRIES PATH [ARGUMENT...]: as many commands, one after the other, each stopped, continued and in the end
// killed by another process while it is decided about; and the next one takes its place.
static int storms(char **argv) {
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
    return 0;
}

// spawn PATH [ARGUMENT...]: by posix_spawn.
static int spawn(char **argv) {
    pid_t child;
    char *environment[] = {NULL};
    int error = posix_spawn(&child, argv[0], NULL, NULL, argv, environment);
    if (error) {
        printf("errno %d\n", error);
        return 0;
    }
    printf("spawned\n");
    fflush(stdout);
    int status;
    waitpid(child, &status, 0);
    report_status(status);
    return 0;
}

// exec-threads COUNT PATH [ARGUMENT...]: that many threads of a child call execve at once.
static int exec_threads(char **argv) {
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
    return 0;
}

// setsid PATH [ARGUMENT...]: in a session of its own.
static int in_session(char **argv) {
    pid_t child = fork();
    if (child == 0) {
        setsid();
        _exit(run_and_report(argv));
    }
    int status;
    waitpid(child, &status, 0);
    return 0;
}

// pidns FILE PATH [ARGUMENT...]: in a pid namespace with a /proc of its own, and FILE open as descriptor 9.
static int in_pid_namespace(char **argv) {
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        fail("unshare");
    pid_t child = fork();
    if (child == 0) {
        // The first process shares its number with no thread of the host that could be taken for it.
        if (mount("proc", "/proc", "proc", 0, NULL) || dup2(open(argv[0], O_RDONLY), 9) != 9)
            _exit(97);
        execv(argv[1], argv + 1);
        _exit(errno);
    }
    int status;
    waitpid(child, &status, 0);
    report_status(status);
    return 0;
}

const struct mode child_modes[] = {
    {"run", run_and_report},
    {"vfork", measure_vfork},
    {"many", many},
    {"time", measure},
    {"orphan", orphan},
    {"killed", kill_held},
    {"storm", storm},
    {"storm-changed", storm_changed},
    {"storms", storms},
    {"spawn", spawn},
    {"exec-threads", exec_threads},
    {"setsid", in_session},
    {"pidns", in_pid_namespace},
    {NULL, NULL},
};
