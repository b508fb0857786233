// Reads actions, hands those of another subject on to the driver that runs in it, and does the rest.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

#define OUTPUT_MAX 65536
#define WAIT_MS    40000

struct outcome said(const char *status, int number) {
    struct outcome outcome = {.number = number};
    strncpy(outcome.status, status, sizeof(outcome.status) - 1);
    return outcome;
}

void take_name(const struct action *action) {
    char name[16];
    snprintf(name, sizeof(name), "a%s", action->id);
    prctl(PR_SET_NAME, name);
}

static int digit(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

// In place: the text is shorter than its hex.
static size_t unhex(char *text) {
    size_t length = strlen(text) / 2;
    for (size_t i = 0; i < length; i++)
        text[i] = (char)(digit(text[2 * i]) * 16 + digit(text[2 * i + 1]));
    text[length] = 0;
    return length;
}

static void read_list(char *value, char **list, int *count, int most) {
    for (char *next; value != NULL && *count < most; value = next) {
        next = strchr(value, ',');
        if (next != NULL)
            *next++ = 0;
        unhex(value);
        list[(*count)++] = value;
    }
}

static void read_field(struct action *action, char *key, char *value) {
    if (strcmp(key, "argv") == 0)
        return read_list(value, action->argv, &action->argc, MAX_ARGUMENTS);
    if (strcmp(key, "env") == 0)
        return read_list(value, action->envp, &action->envc, MAX_VARIABLES);
    size_t length = unhex(value);
    const struct {
        const char *key;
        const char **field;
    } fields[] = {
        {"how", &action->how},         {"via", &action->via},       {"path", &action->path},
        {"target", &action->target},   {"dir", &action->directory}, {"cwd", &action->cwd},
        {"source", &action->source},   {"host", &action->host},     {"address", &action->address},
        {"payload", &action->payload}, {"script", &action->script}, {"as", &action->as},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (strcmp(key, fields[i].key) == 0)
            *fields[i].field = value;
    if (strcmp(key, "payload") == 0)
        action->payload_length = length;
    if (strcmp(key, "port") == 0)
        action->port = atoi(value);
    if (strcmp(key, "inherit") == 0)
        action->inherit = atoi(value);
}

static int parse(char *line, struct action *action) {
    memset(action, 0, sizeof(*action));
    action->how = action->via = action->path = action->target = action->directory = "";
    action->cwd = action->source = action->host = action->address = action->payload = "";
    action->script = action->as = "";
    char *rest = line;
    action->id = strsep(&rest, " ");
    action->subject = strsep(&rest, " ");
    action->operation = strsep(&rest, " ");
    if (action->operation == NULL)
        return -1;
    for (char *field = strsep(&rest, " "); field != NULL; field = strsep(&rest, " ")) {
        char *value = strchr(field, '=');
        if (value == NULL)
            return -1;
        *value++ = 0;
        read_field(action, field, value);
    }
    return 0;
}

static long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static struct outcome perform(const struct action *action) {
    if (action->cwd[0] != 0 && chdir(action->cwd) != 0)
        return said("cwd", errno);
    if (strcmp(action->operation, "exec") == 0)
        return do_exec(action);
    if (strcmp(action->operation, "connect") == 0)
        return do_network(action);
    return do_file(action);
}

struct capture {
    int fd;
    size_t length;
    char bytes[OUTPUT_MAX];
};

// Reads until every writer is gone or the time is over.
static void drain(struct capture *captures, int count, long long until_us) {
    int open = count;
    while (open > 0) {
        struct pollfd polled[3];
        for (int i = 0; i < count; i++)
            polled[i] = (struct pollfd){.fd = captures[i].fd, .events = POLLIN};
        long long left = (until_us - now_us()) / 1000;
        if (left <= 0 || poll(polled, (nfds_t)count, (int)left) <= 0)
            return;
        for (int i = 0; i < count; i++) {
            if (polled[i].revents == 0)
                continue;
            struct capture *capture = &captures[i];
            char over[4096];
            int full = capture->length == OUTPUT_MAX;
            char *into = full ? over : capture->bytes + capture->length;
            size_t room = full ? sizeof(over) : OUTPUT_MAX - capture->length;
            ssize_t got = read(capture->fd, into, room);
            if (got <= 0) {
                close(capture->fd);
                capture->fd = -1;
                open--;
            } else if (!full) {
                capture->length += (size_t)got;
            }
        }
    }
}

static void print_hex(const struct capture *capture) {
    if (capture->length == 0)
        printf(" -");
    else
        putchar(' ');
    for (size_t i = 0; i < capture->length; i++)
        printf("%02x", (unsigned char)capture->bytes[i]);
}

// One action, in a process of its own. `captures`: the outcome, stdout, stderr.
static void run(const struct action *action) {
    static struct capture captures[3];
    int pipes[3][2];
    long long start = now_us();
    for (int i = 0; i < 3; i++) {
        if (pipe2(pipes[i], O_CLOEXEC) != 0)
            exit(3);
        captures[i] = (struct capture){.fd = pipes[i][0]};
    }
    pid_t child = fork();
    if (child == 0) {
        take_name(action);
        dup2(pipes[1][1], 1);
        dup2(pipes[2][1], 2);
        struct outcome outcome = perform(action);
        if (write(pipes[0][1], &outcome, sizeof(outcome)) != sizeof(outcome))
            _exit(3);
        _exit(0);
    }
    for (int i = 0; i < 3; i++)
        close(pipes[i][1]);
    drain(captures, 3, start + WAIT_MS * 1000LL);
    int status = 0;
    pid_t ended = waitpid(child, &status, WNOHANG);
    for (int i = 0; ended == 0 && i < 200; i++) {
        usleep(1000);
        ended = waitpid(child, &status, WNOHANG);
    }
    struct outcome outcome;
    if (ended == 0) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        outcome = said("late", 0);
    } else if (captures[0].length == sizeof(outcome)) {
        memcpy(&outcome, captures[0].bytes, sizeof(outcome));
    } else if (WIFSIGNALED(status)) {
        outcome = said("signal", WTERMSIG(status));
    } else {
        outcome = said("exit", WEXITSTATUS(status));
    }
    for (int i = 0; i < 3; i++)
        if (captures[i].fd >= 0)
            close(captures[i].fd);
    printf("%s %s %d", action->id, outcome.status, outcome.number);
    print_hex(&captures[1]);
    print_hex(&captures[2]);
    printf(" %lld %lld\n", start, now_us());
}

struct helper {
    const char *subject;
    const char *program;
    FILE *to;
    FILE *from;
};

static struct helper helpers[] = {{.subject = "tool", .program = "/.clawsec/tool"},
                                  {.subject = "side", .program = "/opt/t/side"}};

static void start_helper(struct helper *helper) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        exit(3);
    if (fork() == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        char *const arguments[] = {"driver", (char *)helper->subject, NULL};
        execv(helper->program, arguments);
        perror(helper->program);
        _exit(3);
    }
    close(to[0]);
    close(from[1]);
    helper->to = fdopen(to[1], "w");
    helper->from = fdopen(from[0], "r");
}

static void hand_on(const char *subject, const char *line) {
    static char *answer;
    static size_t room;
    for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
        if (strcmp(subject, helpers[i].subject) != 0)
            continue;
        fputs(line, helpers[i].to);
        fflush(helpers[i].to);
        if (getline(&answer, &room, helpers[i].from) > 0) {
            fputs(answer, stdout);
            return;
        }
        fprintf(stderr, "driver: the driver of %s has ended\n", subject);
        exit(4);
    }
    fprintf(stderr, "driver: there is no subject %s\n", subject);
    exit(4);
}

// Usage: driver SUBJECT [PORT...]. The first, "main", starts those of the other subjects and the listeners.
int main(int argc, char **argv) {
    const char *self = argc > 1 ? argv[1] : "main";
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(self, "main") == 0) {
        int ports[16], count = 0;
        for (int i = 2; i < argc && count < 16; i++)
            ports[count++] = atoi(argv[i]);
        if (fork() == 0)
            serve_loopback(ports, count);
        for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++)
            start_helper(&helpers[i]);
    }
    char *line = NULL, *copy = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        free(copy);
        copy = strdup(line);
        line[strcspn(line, "\n")] = 0;
        static struct action action;
        if (parse(line, &action) != 0) {
            fprintf(stderr, "driver: not an action: %s\n", copy);
            return 4;
        }
        if (strcmp(action.subject, self) != 0)
            hand_on(action.subject, copy);
        else
            run(&action);
        fflush(stdout);
    }
    return 0;
}
