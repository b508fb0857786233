/*
 * Programs that try to get out of a sandbox. Each way is a function; `way NAME` runs one.
 *
 * Why they are harmless: they write marker files below folders that the run made, connect to listeners of the run,
 * look at files that the run wrote, and end. What is tried on a process is tried on one of the run's own.
 *
 * They take what they need from the environment: TOKEN (unique for this try), MARK (the file that a program which
 * must not run writes), VICTIM (the file that must not be read or changed), HOST, PORT, ...
 */
#ifndef WAY_H
#define WAY_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct way {
    const char *name;
    /* Its exit code is for people who look: nobody decides by it. */
    int (*run)(void);
};

/* Lists that end with a name of NULL. */
extern const struct way exec_ways[], race_ways[], process_ways[], kernel_ways[];
extern const struct way namespace_ways[], mount_ways[], file_ways[], socket_ways[], connect_ways[];
extern const struct way probe_ways[];

/* Runs the way of this name. Returns its exit code, 2 when there is none. */
int run_way(const char *name);

/* A variable of the environment; the program ends when it is not there. */
const char *need(const char *variable);
long need_number(const char *variable);

/* Says that the effect was seen. Only after it was read back. */
int shown(void);

/* Says which call was refused. */
int refused(const char *what);

/* Prints what a descriptor gives, at most 64 KiB, as bytes. */
int print_fd(int fd);

/* Copies a file's content and mode. Returns an open descriptor (read-only) of the copy, -1 on an error. */
int copy_file(const char *from, const char *to, int mode);

/* Waits for a child at most `ms`; kills it then. Returns its wait status. */
int wait_for(pid_t child, int ms);

void sleep_ms(int ms);
double now(void);

/* One operation of io_uring: `result` is the operation's. Returns 0, or -1 when there is no ring. */
struct io_uring_sqe;
int uring(const struct io_uring_sqe *operation, int *result);

#endif
