// Every way to start a program.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

static int copy_into(const char *source, int to) {
    char buffer[65536];
    int from = open(source, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return -1;
    for (ssize_t got; (got = read(from, buffer, sizeof(buffer))) > 0;)
        if (write(to, buffer, (size_t)got) != got)
            return -1;
    close(from);
    return 0;
}

// What has to be there before the call. Returns a descriptor, AT_FDCWD, or -1.
static int prepare(const struct action *action, char *path, size_t room) {
    const char *how = action->how;
    snprintf(path, room, "%s", action->path);
    // Descriptors stay open in the new image: the interpreter finds a script by them.
    if (strcmp(how, "dirfd") == 0)
        return open(action->directory, O_PATH | O_DIRECTORY);
    if (strcmp(how, "fd") == 0)
        return open(action->path, O_RDONLY);
    if (strcmp(how, "opath") == 0)
        return open(action->path, O_PATH);
    if (strcmp(how, "devfd") == 0 || strcmp(how, "procfd") == 0) {
        int fd = open(action->path, strcmp(how, "devfd") == 0 ? O_RDONLY : O_PATH);
        snprintf(path, room, "%s/%d", strcmp(how, "devfd") == 0 ? "/dev/fd" : "/proc/self/fd", fd);
        return fd < 0 ? -1 : AT_FDCWD;
    }
    if (strcmp(how, "memfd") == 0) {
        int fd = memfd_create(action->target, 0);
        return fd >= 0 && copy_into(action->source, fd) == 0 ? fd : -1;
    }
    if (strcmp(how, "copy") == 0 || strcmp(how, "deleted") == 0) {
        int fd = open(action->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0700);
        if (fd < 0 || copy_into(action->source, fd) != 0 || close(fd) != 0)
            return -1;
        if (strcmp(how, "copy") == 0)
            return AT_FDCWD;
        fd = open(action->path, O_RDONLY);
        return fd >= 0 && unlink(action->path) == 0 ? fd : -1;
    }
    return AT_FDCWD;
}

struct call {
    const struct action *action;
    char *const *envp;
    int fd;
    const char *path;
    volatile int error;
};

// The variables that are given, behind the driver's own where these are to be inherited.
static char *const *environment(const struct action *action) {
    int own = 0;
    while (action->inherit && environ[own] != NULL)
        own++;
    char **envp = calloc((size_t)(own + action->envc) + 1, sizeof(char *));
    if (envp == NULL)
        return NULL;
    memcpy(envp, environ, (size_t)own * sizeof(char *));
    memcpy(envp + own, action->envp, (size_t)action->envc * sizeof(char *));
    return envp;
}

// Does not return when the image runs.
static int image(const struct call *call) {
    char *const *argv = call->action->argv;
    if (call->fd == AT_FDCWD)
        syscall(SYS_execve, call->path, argv, call->envp);
    else if (strcmp(call->action->how, "dirfd") == 0)
        syscall(SYS_execveat, call->fd, call->path, argv, call->envp, 0);
    else
        syscall(SYS_execveat, call->fd, "", argv, call->envp, AT_EMPTY_PATH);
    return errno;
}

static void *from_thread(void *argument) {
    struct call *call = argument;
    take_name(call->action);
    call->error = image(call);
    return NULL;
}

// What a child of the child came to: the same, as if it had been the child itself.
static struct outcome ended(pid_t pid, int error) {
    int status;
    waitpid(pid, &status, 0);
    if (error != 0)
        return said("errno", error);
    return WIFSIGNALED(status) ? said("signal", WTERMSIG(status)) : said("exit", WEXITSTATUS(status));
}

struct outcome do_exec(const struct action *action) {
    char path[8192];
    int fd = prepare(action, path, sizeof(path));
    if (fd == -1)
        return said("prep", errno);
    if (make_script(action) != 0)
        return said("prep", errno);
    struct call call = {.action = action, .envp = environment(action), .fd = fd, .path = path};
    if (call.envp == NULL)
        return said("prep", errno);
    if (strcmp(action->via, "vfork") == 0) {
        pid_t pid = vfork();
        if (pid == 0) {
            call.error = image(&call);
            _exit(127);
        }
        return ended(pid, call.error);
    }
    if (strcmp(action->via, "spawn") == 0 && fd == AT_FDCWD) {
        pid_t pid;
        int error = posix_spawn(&pid, path, NULL, NULL, action->argv, call.envp);
        return error != 0 ? said("errno", error) : ended(pid, 0);
    }
    if (strcmp(action->via, "thread") == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, from_thread, &call) != 0)
            return said("prep", errno);
        pthread_join(thread, NULL);
        return said("errno", call.error);
    }
    return said("errno", image(&call));
}
