// Starts programs in every way there is, and ends as it is told.
//
//   family exit CODE                     ends with this code
//   family kill SIGNAL                   ends by this signal
//   family fork|vfork|spawn PATH [ARGUMENT...]    and waits for it
//   family orphan PATH [ARGUMENT...]     as a daemon does: two forks and setsid between; waits for nothing
//   family thread PATH [ARGUMENT...]     a thread that is not the leader executes it
//   family fork-only                     a child that executes nothing ends with code 5
//   family burst COUNT PATH [ARGUMENT...]    one after the other
//   family at FOLDER PATH [ARGUMENT...]  with another working directory
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void report(pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) < 0) {
        perror("family");
        _exit(99);
    }
    if (WIFSIGNALED(status))
        printf("signal %d\n", WTERMSIG(status));
    else
        printf("exit %d\n", WEXITSTATUS(status));
    fflush(stdout);
}

static void *in_thread(void *argv) {
    char **command = argv;
    execv(command[0], command);
    _exit(100);
}

static void orphan(char **argv) {
    pid_t first = fork();
    if (first == 0) {
        setsid();
        if (fork() == 0) {
            execv(argv[0], argv);
            _exit(100);
        }
        _exit(0);
    }
    report(first);
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 98;
    const char *mode = argv[1];
    char **rest = argv + 2;
    if (strcmp(mode, "exit") == 0)
        return atoi(rest[0]);
    if (strcmp(mode, "kill") == 0) {
        kill(getpid(), atoi(rest[0]));
        return 97;
    }
    if (strcmp(mode, "fork") == 0) {
        pid_t child = fork();
        if (child == 0) {
            execv(rest[0], rest);
            _exit(100);
        }
        report(child);
    } else if (strcmp(mode, "vfork") == 0) {
        pid_t child = vfork();
        if (child == 0) {
            execv(rest[0], rest);
            _exit(100);
        }
        report(child);
    } else if (strcmp(mode, "spawn") == 0) {
        pid_t child = -1;
        errno = posix_spawn(&child, rest[0], NULL, NULL, rest, environ);
        report(child);
    } else if (strcmp(mode, "orphan") == 0) {
        orphan(rest);
    } else if (strcmp(mode, "thread") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, in_thread, rest);
        pthread_join(thread, NULL);
    } else if (strcmp(mode, "fork-only") == 0) {
        pid_t child = fork();
        if (child == 0)
            _exit(5);
        report(child);
    } else if (strcmp(mode, "burst") == 0) {
        int count = atoi(rest[0]);
        for (int i = 0; i < count; i++) {
            pid_t child = vfork();
            if (child == 0) {
                execv(rest[1], rest + 1);
                _exit(100);
            }
            int status = -1;
            if (child < 0 || waitpid(child, &status, 0) < 0 || status) {
                printf("number %d failed: process %d, status %d, %s\n", i, child, status, strerror(errno));
                return 1;
            }
        }
        printf("made %d\n", count);
    } else if (strcmp(mode, "at") == 0) {
        if (chdir(rest[0]))
            return 96;
        execv(rest[1], rest + 1);
        return 100;
    } else {
        return 98;
    }
    return 0;
}
