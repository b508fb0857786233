// Modes in which the actor itself, or a thread of it, calls execve, one way each.
#include "actor.h"

void *exec_in_thread(void *argv) {
    char **command = argv;
    execv(command[0], command);
    printf("errno %d\n", errno);
    _exit(100);
}

// Leaves the file "leaked" if a thread of this process is ever seen in the subject "tool".
static int in_tool(void) {
    char text[4096];
    int fd = open("/proc/thread-self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (size < 0)
        fail("cgroup");
    close(fd);
    text[size] = 0;
    return strstr(text, "/tool") != NULL;
}

static void *watch(void *unused) {
    for (;;)
        if (in_tool())
            close(open("leaked", O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    return unused;
}

// watched big|small PATH [ARGUMENT...]: an exec while another thread watches in which subject it runs. With "big" one
// that the kernel refuses (an environment string of 200 KB) comes before it.
static int watched(char **argv) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, NULL))
        fail("thread");
    usleep(20000);
    if (strcmp(argv[0], "big") == 0) {
        char *big = malloc(200001);
        memset(big, 'x', 200000);
        big[1] = '=';
        big[200000] = 0;
        char *environment[] = {big, NULL};
        syscall(SYS_execve, argv[1], argv + 1, environment);
        printf("errno %d\n", errno);
        usleep(200000);
        printf("%s\n", in_tool() ? "tool" : "main");
        fflush(stdout);
    }
    execv(argv[1], argv + 1);
    printf("errno %d\n", errno);
    return 100;
}

// exec-count arguments|names COUNT PATH [ARGUMENT...]: with so many arguments, the last of them "end", or with so many
// names of variables before LD_PRELOAD.
static int exec_count(char **argv) {
    int count = atoi(argv[1]);
    char **own = calloc(count + 2, sizeof(*own)), **arguments = argv + 2, **environment = own;
    if (strcmp(argv[0], "arguments") == 0) {
        for (int i = 0, given = 1; i < count; i++) {
            given = given && arguments[i];
            own[i] = given ? arguments[i] : "x";
        }
        own[count - 1] = "end";
        arguments = own;
        environment = NULL;
    } else {
        for (int i = 0; i < count; i++) {
            own[i] = malloc(16);
            snprintf(own[i], 16, "A%05d=", i);
        }
        own[count] = "LD_PRELOAD=x";
    }
    syscall(SYS_execve, argv[2], arguments, environment);
    printf("errno %d\n", errno);
    return 100;
}

// exec PATH [ARGUMENT...]
static int plain(char **argv) {
    execv(argv[0], argv);
    printf("errno %d\n", errno);
    return 100;
}

// exec-stay PATH [ARGUMENT...]: stays for a moment after an exec that was refused.
static int exec_stay(char **argv) {
    execv(argv[0], argv);
    printf("errno %d\n", errno);
    usleep(300000);
    return 100;
}

// exec-fullerr PATH [ARGUMENT...]: standard error is a pipe that is full and that nobody reads.
static int exec_fullerr(char **argv) {
    int ends[2];
    if (pipe2(ends, O_NONBLOCK))
        fail("pipe");
    char byte = 'x';
    while (write(ends[1], &byte, 1) == 1) {
    }
    fcntl(ends[1], F_SETFL, 0);
    dup2(ends[1], 2);
    double before = now_ms();
    execv(argv[0], argv);
    printf("errno %d after %.3f\n", errno, now_ms() - before);
    return 100;
}

// exec-thread PATH [ARGUMENT...]: by a thread that is not the first.
static int exec_thread(char **argv) {
    pthread_t thread;
    pthread_create(&thread, NULL, exec_in_thread, argv);
    pthread_join(thread, NULL);
    return 0;
}

// exec-noargv PATH: without arguments, not even a name.
static int exec_noargv(char **argv) {
    syscall(SYS_execve, argv[0], NULL, NULL);
    printf("errno %d\n", errno);
    return 100;
}

// fexec PATH [ARGUMENT...]: by descriptor; a leading "mem:" copies it into a memfd first, "gone:" removes it.
static int fexec(char **argv) {
    int gone = strncmp(argv[0], "gone:", 5) == 0;
    if (gone)
        argv[0] += 5;
    int from = open(strncmp(argv[0], "mem:", 4) ? argv[0] : argv[0] + 4, O_RDONLY | O_CLOEXEC);
    if (gone && unlink(argv[0]))
        fail("unlink");
    int fd = from;
    if (strncmp(argv[0], "mem:", 4) == 0) {
        fd = memfd_create("copy", MFD_CLOEXEC);
        char buffer[65536];
        for (ssize_t n; (n = read(from, buffer, sizeof(buffer))) > 0;)
            if (write(fd, buffer, n) != n)
                fail("memfd");
    }
    syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH);
    printf("errno %d\n", errno);
    return 100;
}

// check PATH [ARGUMENT...]: AT_EXECVE_CHECK, and then for good.
static int check(char **argv) {
    const int execve_check = 0x10000;
    int fd = open(argv[0], O_RDONLY | O_CLOEXEC);
    int result = syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH | execve_check);
    printf("check %d\nwaiting\n", result ? errno : 0);
    fflush(stdout);
    execv(argv[0], argv);
    return 100;
}

const struct mode exec_modes[] = {
    {"exec", plain},
    {"exec-stay", exec_stay},
    {"exec-fullerr", exec_fullerr},
    {"exec-thread", exec_thread},
    {"exec-noargv", exec_noargv},
    {"exec-count", exec_count},
    {"fexec", fexec},
    {"check", check},
    {"watched", watched},
    {NULL, NULL},
};
