// The driver: the program in the sandbox that does what it is told, one action a line, and says what came of it.
//
//   line:   ID SUBJECT OPERATION KEY=HEX ...     (argv=HEX,HEX,..., env= likewise; a key without a value is an empty text)
//   answer: ID STATUS NUMBER OUT ERR START END   STATUS is ok, errno, exit, signal, dns; OUT and ERR are hex, "-" for none;
//                                                START and END are microseconds of the wall clock
//
// Each action is done by a process of its own whose thread name is "aID": the name goes along into every question and
// event, and tells them apart.
#ifndef DRIVER_H
#define DRIVER_H

#include <stddef.h>

#define MAX_ARGUMENTS 4096
#define MAX_VARIABLES 64
/** Under this number a program finds a descriptor that was made for it. */
#define GIVEN_FD 40

struct action {
    const char *id;
    const char *subject;
    const char *operation;
    const char *how;
    const char *via;
    const char *path;
    const char *target;
    const char *directory;
    const char *cwd;
    const char *source;
    const char *host;
    const char *address;
    /** Of an exec: a file for its argument (script.c), and how it is given. */
    const char *script;
    const char *as;
    const char *payload;
    size_t payload_length;
    int port;
    int argc;
    char *argv[MAX_ARGUMENTS + 1];
    /** The environment of an exec, as it is; with `inherit` behind the driver's own. */
    int inherit;
    int envc;
    char *envp[MAX_VARIABLES + 1];
};

/** What became of an action, sent over a pipe that an exec closes. */
struct outcome {
    char status[8];
    int number;
};

/** Sets the thread's name to that of the action. */
void take_name(const struct action *action);

/** Does it in this process; returns only when no new image runs here. */
struct outcome do_exec(const struct action *action);
struct outcome do_file(const struct action *action);
struct outcome do_network(const struct action *action);

/** Serves "loop" on ports of 127.0.0.1, for ever. */
void serve_loopback(const int *ports, int count);

/** Makes the file that an exec names in its arguments. Returns 0, or -1 with errno. */
int make_script(const struct action *action);

struct outcome said(const char *status, int number);

#endif
