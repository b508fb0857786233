/* Ways to run the program DENIED although a rule denies it. It writes MARK when it runs. */
#include "way.h"

#include <pthread.h>
#include <sched.h>
#include <spawn.h>

extern char **environ;

static char *arguments[] = {"harmless", NULL};

/* Runs `body` in a child, which execs or gives up. */
static int in_child(int (*body)(void)) {
    pid_t child = fork();
    if (child == 0)
        _exit(body());
    wait_for(child, 5000);
    return 0;
}

static int empty_path(int fd) {
    syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    return refused("execveat");
}

static int fexecve_body(void) {
    return empty_path(open(need("DENIED"), O_RDONLY));
}
static int exec_fexecve(void) {
    return in_child(fexecve_body);
}

static int opath_body(void) {
    return empty_path(open(need("DENIED"), O_PATH));
}
static int exec_opath(void) {
    return in_child(opath_body);
}

/* By a folder's descriptor and a relative name, from a folder that is elsewhere. */
static int directory_body(void) {
    char *path = strdup(need("DENIED"));
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int folder = open(path, O_PATH | O_DIRECTORY);
    syscall(SYS_execveat, folder, slash + 1, arguments, environ, 0);
    return refused("execveat");
}
static int exec_directory(void) {
    return in_child(directory_body);
}

static int devfd_body(void) {
    char path[64];
    snprintf(path, sizeof path, "/dev/fd/%d", open(need("DENIED"), O_RDONLY));
    execve(path, arguments, environ);
    return refused(path);
}
static int exec_devfd(void) {
    return in_child(devfd_body);
}

/* Through the descriptor of another process. */
static int procfd_body(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getppid(), (int)need_number("PARENT_FD"));
    execve(path, arguments, environ);
    return refused(path);
}
static int exec_procfd(void) {
    char number[16];
    snprintf(number, sizeof number, "%d", open(need("DENIED"), O_RDONLY | O_CLOEXEC));
    setenv("PARENT_FD", number, 1);
    return in_child(procfd_body);
}

static int memfd_body(void) {
    char bytes[65536];
    ssize_t count;
    int from = open(need("DENIED"), O_RDONLY);
    int memory = (int)syscall(SYS_memfd_create, "harmless", 0x0010 /* MFD_EXEC */);
    if (memory < 0)
        return refused("memfd_create");
    while ((count = read(from, bytes, sizeof bytes)) > 0)
        if (write(memory, bytes, (size_t)count) < 0)
            return refused("write");
    return empty_path(memory);
}
static int exec_memfd(void) {
    return in_child(memfd_body);
}

/* A copy without a name. */
static int deleted_body(void) {
    int copy = copy_file(need("DENIED"), "copy", 0755);
    unlink("copy");
    return empty_path(copy);
}
static int exec_deleted(void) {
    return in_child(deleted_body);
}

/* A copy that never had a name. */
static int tmpfile_body(void) {
    char bytes[65536], path[64];
    ssize_t count;
    int from = open(need("DENIED"), O_RDONLY);
    int to = open(".", O_TMPFILE | O_RDWR, 0755);
    if (to < 0)
        return refused("O_TMPFILE");
    while ((count = read(from, bytes, sizeof bytes)) > 0)
        if (write(to, bytes, (size_t)count) < 0)
            return refused("write");
    snprintf(path, sizeof path, "/proc/self/fd/%d", to);
    int again = open(path, O_RDONLY);
    close(to);
    return empty_path(again);
}
static int exec_tmpfile(void) {
    return in_child(tmpfile_body);
}

static int exec_vfork(void) {
    pid_t child = vfork();
    if (child == 0) {
        execve(need("DENIED"), arguments, environ);
        _exit(1);
    }
    wait_for(child, 5000);
    return 0;
}

static int exec_spawn(void) {
    pid_t child;
    if (posix_spawn(&child, need("DENIED"), NULL, NULL, arguments, environ) != 0)
        return 1;
    wait_for(child, 5000);
    return 0;
}

/* By a thread that is not the first. */
static void *thread_body(void *none) {
    execve(need("DENIED"), arguments, environ);
    return none;
}
static int thread_child(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, thread_body, NULL);
    pthread_join(thread, NULL);
    return 1;
}
static int exec_thread(void) {
    return in_child(thread_child);
}

/* By a grandchild without parent, terminal and session. */
static int exec_orphan(void) {
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0) {
            setsid();
            sleep_ms(100);
            execve(need("DENIED"), arguments, environ);
        }
        _exit(0);
    }
    wait_for(child, 2000);
    sleep_ms(700);
    return 0;
}

/* No arguments at all: the kernel makes it one empty string. */
static int argc0_body(void) {
    char *none[] = {NULL};
    execve(need("DENIED"), none, environ);
    return refused("execve");
}
static int exec_argc0(void) {
    return in_child(argc0_body);
}

/* The argument that is denied comes behind a megabyte of others. */
static int big_body(void) {
    enum { COUNT = 10000 };
    static char *many[COUNT + 3];
    static char filler[101];
    memset(filler, 'x', 100);
    many[0] = "arguments";
    for (int i = 1; i <= COUNT; i++)
        many[i] = filler;
    many[COUNT + 1] = "--bad";
    execve(need("ARGUMENTS"), many, environ);
    return refused("execve");
}
static int exec_big(void) {
    return in_child(big_body);
}

static int bad_body(void) {
    char *bad[] = {"arguments", "--bad", NULL};
    execve(need("ARGUMENTS"), bad, environ);
    return refused("execve");
}
static int exec_bad(void) {
    return in_child(bad_body);
}

#ifdef __x86_64__
static int x32_body(void) {
    syscall(SYS_execve | 0x40000000, need("DENIED"), arguments, environ);
    return syscall(0x40000000 | 520, need("DENIED"), arguments, environ) < 0 ? refused("x32 execve") : 0;
}
static int exec_x32(void) {
    return in_child(x32_body);
}

/* The 32-bit way into the kernel, whose execve has number 11 and takes pointers of 32 bits. */
static int int80_body(void) {
    char *low = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    uint32_t *vectors = (uint32_t *)(low + 4096);
    char *text = low + 8192;
    const char *names[] = {"MARK", "TOKEN"};
    strcpy(low, need("DENIED"));
    vectors[0] = (uint32_t)(uintptr_t)low;
    vectors[1] = 0;
    for (int i = 0; i < 2; i++) {
        vectors[2 + i] = (uint32_t)(uintptr_t)text;
        text += sprintf(text, "%s=%s", names[i], need(names[i])) + 1;
    }
    vectors[4] = 0;
    long result = 0;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(11L), "b"(low), "c"(vectors), "d"(vectors + 2)
                     : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-result;
    return refused("int 0x80");
}
static int exec_int80(void) {
    return in_child(int80_body);
}
#endif

const struct way exec_ways[] = {{"exec-fexecve", exec_fexecve},
                                {"exec-opath", exec_opath},
                                {"exec-directory", exec_directory},
                                {"exec-devfd", exec_devfd},
                                {"exec-procfd", exec_procfd},
                                {"exec-memfd", exec_memfd},
                                {"exec-deleted", exec_deleted},
                                {"exec-tmpfile", exec_tmpfile},
                                {"exec-vfork", exec_vfork},
                                {"exec-spawn", exec_spawn},
                                {"exec-thread", exec_thread},
                                {"exec-orphan", exec_orphan},
                                {"exec-argc0", exec_argc0},
                                {"exec-big-argv", exec_big},
                                {"exec-bad-argv", exec_bad},
#ifdef __x86_64__
                                {"exec-x32", exec_x32},
                                {"exec-int80", exec_int80},
#endif
                                {NULL, NULL}};
