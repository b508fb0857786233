/*
 * A program that stands still before it does anything, and one that changes its memory then. It is linked to a fixed address,
 * so the word is at the same place in both.
 *
 *   poke target MARK         writes the word into MARK
 *   poke stopped MARK        the same, but stops itself before: what a held program is where nobody holds it
 *   poke mem|vm|trace PID    changes the word in that process
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile char word[8] = "GOOD";
static const char other[8] = "EVIL";

static int target(const char *mark) {
    char text[sizeof word];
    for (size_t at = 0; at < sizeof text; at++)
        text[at] = word[at];
    int fd = open(mark, O_WRONLY | O_CREAT | O_APPEND, 0644);
    return write(fd, text, strlen(text)) < 0;
}

/* Whether the process has the image that stands. Its command line is everybody's to read. */
static int stands(int pid) {
    char path[64], text[4096] = {0};
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    const char *second = size > 0 ? text + strlen(text) + 1 : "";
    return strcmp(second, "target") == 0 || strcmp(second, "stopped") == 0;
}

static int by_mem(int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 && pwrite(fd, other, sizeof other, (off_t)(uintptr_t)word) == sizeof other;
}

static int by_vm(int pid) {
    struct iovec here = {(void *)other, sizeof other}, there = {(void *)word, sizeof other};
    return process_vm_writev(pid, &here, 1, &there, 1, 0) == sizeof other;
}

static int by_trace(int pid) {
    long value;
    memcpy(&value, other, sizeof value);
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
        return 0;
    waitpid(pid, NULL, __WALL);
    int is_done = ptrace(PTRACE_POKEDATA, pid, word, value) == 0;
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return is_done;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "target") == 0)
        return target(argv[2]);
    if (strcmp(argv[1], "stopped") == 0) {
        // Where only parents may trace (kernel.yama.ptrace_scope 1).
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        raise(SIGSTOP);
        return target(argv[2]);
    }
    int (*change)(int) = strcmp(argv[1], "mem") == 0 ? by_mem : strcmp(argv[1], "vm") == 0 ? by_vm : by_trace;
    int pid = atoi(argv[2]);
    for (int i = 0; i < 300 && !stands(pid); i++)
        usleep(10000);
    // It may be about to stop.
    for (int i = 0; i < 100; i++) {
        if (change(pid)) {
            printf("changed\n");
            return 0;
        }
        usleep(5000);
    }
    perror(argv[1]);
    return 1;
}
