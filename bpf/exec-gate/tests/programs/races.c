// Modes that race: what is executed is changed while somebody looks at it, and the tries are counted.
#include "actor.h"

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
// Tells how many of the tries came to what.
static int killed, refused, ran;

void account(pid_t child) {
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

int report_tries(void) {
    printf("ran %d refused %d killed %d\n", ran, refused, killed);
    fflush(stdout);
    return 0;
}

void *shared_memory(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

// race thread|process TRIES INDEX OTHER PATH [ARGUMENT...]: the first byte of argument INDEX (0: of the path) is set
// to OTHER and back all the time. A vforked child shares the memory with the thread; the process has a mapping.
static int race(char **argv) {
    int by_thread = strcmp(argv[0], "thread") == 0;
    int tries = atoi(argv[1]);
    int index = atoi(argv[2]);
    char **command = argv + 4;
    char *shared = shared_memory(8192);
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
    for (int i = 0; i < tries; i++) {
        pid_t child = vfork();
        if (child == 0) {
            syscall(SYS_execve, path, own, NULL);
            _exit(100);
        }
        account(child);
    }
    *done = 1;
    if (by_thread)
        pthread_join(thread, NULL);
    else
        waitpid(racer, NULL, 0);
    return report_tries();
}

static int share(void *unused) {
    flip(NULL);
    (void)unused;
    _exit(0);
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
static int race_environment(char **argv) {
    int tries = atoi(argv[1]);
    char *shared = shared_memory(8192);
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
    return report_tries();
}

// repeat TRIES PATH [ARGUMENT...]: one after the other.
static int repeat(char **argv) {
    for (int i = atoi(argv[0]); i > 0; i--) {
        pid_t child = fork();
        if (child == 0) {
            execv(argv[1], argv + 1);
            _exit(100);
        }
        account(child);
    }
    return report_tries();
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
static int race_cwd(char **argv) {
    int by_thread = strcmp(argv[0], "thread") == 0;
    int tries = atoi(argv[1]);
    folders[0] = argv[2];
    folders[1] = argv[3];
    done = shared_memory(4096);
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
    return report_tries();
}

const struct mode race_modes[] = {
    {"race", race}, {"race-environment", race_environment}, {"race-cwd", race_cwd}, {"repeat", repeat},
    {NULL, NULL},
};
