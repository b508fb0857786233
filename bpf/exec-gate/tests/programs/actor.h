// What the parts of the actor share. A mode gets the arguments behind its name; it may end the process itself, and what it
// returns is the actor's exit code.
#ifndef ACTOR_H
#define ACTOR_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct mode {
    const char *name;
    int (*run)(char **arguments);
};

// Each list ends with a mode without a name.
extern const struct mode exec_modes[];
extern const struct mode child_modes[];
extern const struct mode race_modes[];
extern const struct mode reach_modes[];

// Says why the actor cannot go on, and ends it with 99.
void fail(const char *what);
// "signal N" or "exit N", as a line.
void report_status(int status);
double now_ms(void);
// A child that calls execve; its end is reported. A child that cannot exec ends with the error's number.
int run_and_report(char **arguments);
// A thread's function: calls execve, and says why it failed.
void *exec_in_thread(void *arguments);

// Waits for a try of a race, whose exec was refused if it ends with 100, and counts what became of it.
void account(pid_t child);
// Tells what the tries came to: "ran N refused N killed N".
int report_tries(void);
// Memory that this process, its threads and its children share.
void *shared_memory(size_t size);

#endif
