/* Ways that change what runs while somebody looks at it. One win makes MARK. For about two seconds each. */
#include "way.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

extern char **environ;

static const double SECONDS = 2;
static volatile char *shared_text;
static char one[512], other[512];

static void flip(volatile char *text) {
    for (unsigned i = 0;; i++) {
        const char *now_it_is = i & 1 ? other : one;
        size_t size = strlen(now_it_is) + 1;
        for (size_t at = 0; at < size; at++)
            text[at] = now_it_is[at];
        for (volatile int spin = 0; spin < 200; spin++) {
        }
    }
}

static void *flip_thread(void *text) {
    flip(text);
    return NULL;
}

/* Runs `attempt` in children until the time is over or one of them made the mark. */
static int again_and_again(void (*attempt)(void)) {
    long tries = 0;
    for (double until = now() + SECONDS; now() < until && access(need("MARK"), F_OK) != 0; tries++) {
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, 9);
            attempt();
            _exit(1);
        }
        wait_for(child, 6000);
    }
    printf("%ld tries\n", tries);
    return 0;
}

static volatile char *text_of_thread(void) {
    static char text[512];
    pthread_t thread;
    strcpy(text, one);
    pthread_create(&thread, NULL, flip_thread, text);
    sleep_ms(1);
    return text;
}

/* A page that another process, which outlives the call, changes. */
static pid_t text_of_process(void) {
    shared_text = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy((char *)shared_text, one);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        flip(shared_text);
    }
    return child;
}

static void end(pid_t child) {
    kill(child, 9);
    waitpid(child, NULL, 0);
}

static void programs(void) {
    snprintf(one, sizeof one, "%s", need("ALLOWED"));
    snprintf(other, sizeof other, "%s", need("DENIED"));
}

static void path_of_thread(void) {
    char *argv[] = {"harmless", NULL};
    execve((char *)text_of_thread(), argv, environ);
}
static int race_path_thread(void) {
    programs();
    return again_and_again(path_of_thread);
}

static void path_of_process(void) {
    char *argv[] = {"harmless", NULL};
    execve((char *)shared_text, argv, environ);
}
static int race_path_process(void) {
    programs();
    pid_t flipper = text_of_process();
    int code = again_and_again(path_of_process);
    end(flipper);
    return code;
}

static void words(void) {
    strcpy(one, "--fine");
    strcpy(other, "--bad");
}

static void argv_of_thread(void) {
    char *argv[] = {"arguments", (char *)text_of_thread(), NULL};
    execve(need("ARGUMENTS"), argv, environ);
}
static int race_argv_thread(void) {
    words();
    return again_and_again(argv_of_thread);
}

static void argv_of_process(void) {
    char *argv[] = {"arguments", (char *)shared_text, NULL};
    execve(need("ARGUMENTS"), argv, environ);
}
static int race_argv_process(void) {
    words();
    pid_t flipper = text_of_process();
    int code = again_and_again(argv_of_process);
    end(flipper);
    return code;
}

/* The vector itself, not the words in it. */
static char *vector[3];
static void *flip_vector(void *none) {
    for (unsigned i = 0;; i++) {
        __atomic_store_n(&vector[1], i & 1 ? other : one, __ATOMIC_SEQ_CST);
        for (volatile int spin = 0; spin < 200; spin++) {
        }
    }
    return none;
}
static void vector_of_thread(void) {
    pthread_t thread;
    vector[0] = "arguments";
    vector[1] = one;
    pthread_create(&thread, NULL, flip_vector, NULL);
    sleep_ms(1);
    execve(need("ARGUMENTS"), vector, environ);
}
static int race_vector(void) {
    words();
    return again_and_again(vector_of_thread);
}

static void run_changing(void) {
    char *argv[] = {"harmless", NULL};
    execve("changing", argv, environ);
}

/* A symbolic link that leads somewhere else all the time. */
static int race_symlink(void) {
    pid_t flipper = fork();
    if (flipper == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        for (unsigned i = 0;; i++) {
            unlink("next");
            if (symlink(i & 1 ? need("DENIED") : need("ALLOWED"), "next") == 0)
                rename("next", "changing");
        }
    }
    sleep_ms(20);
    int code = again_and_again(run_changing);
    end(flipper);
    return code;
}

/* Two files that change their names. */
static int race_rename(void) {
    close(copy_file(need("ALLOWED"), "changing", 0755));
    close(copy_file(need("DENIED"), "next", 0755));
    pid_t flipper = fork();
    if (flipper == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        for (;;)
            renameat2(AT_FDCWD, "changing", AT_FDCWD, "next", RENAME_EXCHANGE);
    }
    int code = again_and_again(run_changing);
    end(flipper);
    return code;
}

/* A folder on the way that is another one all the time. */
static void run_in_changing(void) {
    char *argv[] = {"harmless", NULL};
    execve("changing/program", argv, environ);
}
static int race_folder(void) {
    mkdir("changing", 0755);
    mkdir("next", 0755);
    if (symlink(need("ALLOWED"), "changing/program") != 0 || symlink(need("DENIED"), "next/program") != 0)
        return refused("symlink");
    pid_t flipper = fork();
    if (flipper == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        for (;;)
            renameat2(AT_FDCWD, "changing", AT_FDCWD, "next", RENAME_EXCHANGE);
    }
    int code = again_and_again(run_in_changing);
    end(flipper);
    return code;
}

/* Another program mounted over the path and away again, as root of a user namespace. Refused that, it still runs the path. */
static void run_allowed(void) {
    char *argv[] = {"harmless", NULL};
    execve(need("ALLOWED"), argv, environ);
}
static int race_mount(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        refused("unshare");
    pid_t flipper = fork();
    if (flipper == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        for (;;) {
            if (mount(need("DENIED"), need("ALLOWED"), NULL, MS_BIND, NULL) < 0)
                sleep_ms(1);
            else
                umount2(need("ALLOWED"), MNT_DETACH);
        }
    }
    int code = again_and_again(run_allowed);
    end(flipper);
    return code;
}

/* Many at once, each with a path that changes: more questions than anybody keeps. */
static void flood(void) {
    pid_t children[60];
    for (int i = 0; i < 60; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, 9);
            path_of_process();
            _exit(1);
        }
    }
    for (int i = 0; i < 60; i++)
        wait_for(children[i], 5000);
}
static int race_flood(void) {
    programs();
    pid_t flipper = text_of_process();
    int code = again_and_again(flood);
    end(flipper);
    return code;
}

const struct way race_ways[] = {{"race-path-thread", race_path_thread},
                                {"race-path-process", race_path_process},
                                {"race-argv-thread", race_argv_thread},
                                {"race-argv-process", race_argv_process},
                                {"race-argv-vector", race_vector},
                                {"race-symlink", race_symlink},
                                {"race-rename", race_rename},
                                {"race-folder", race_folder},
                                {"race-mount", race_mount},
                                {"race-flood", race_flood},
                                {NULL, NULL}};
