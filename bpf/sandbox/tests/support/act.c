// What the tests do inside a sandbox that a shell cannot: single system calls, told by the exit code.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Prints "ok" or the error's number, and exits with it.
static int told(long result) {
    if (result < 0) {
        printf("errno %d\n", errno);
        return errno;
    }
    printf("ok\n");
    return 0;
}

static int tree(int count) {
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return told(-1);
        // Every second child goes deeper, in a session of its own.
        if (pid == 0) {
            setsid();
            if (i % 2 == 0 && fork() == 0)
                setsid();
            for (;;)
                pause();
        }
    }
    printf("forked\n");
    fflush(stdout);
    for (;;)
        pause();
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(what, "int80")) {
        long result;
        // 20 is getpid in the 32-bit table.
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
        printf("int 0x80 gave %ld\n", result);
        return 0;
    }
    if (!strcmp(what, "x32")) {
        printf("x32 gave %ld\n", syscall(0x40000000 | SYS_getpid));
        return 0;
    }
    if (!strcmp(what, "symlink"))
        return told(symlink("target", argv[2]));
    if (!strcmp(what, "mkdir"))
        return told(mkdir(argv[2], 0755));
    if (!strcmp(what, "write"))
        return told(open(argv[2], O_WRONLY | O_CREAT, 0644));
    if (!strcmp(what, "read"))
        return told(open(argv[2], O_RDONLY));
    if (!strcmp(what, "tree"))
        return tree(atoi(argv[2]));
    if (!strcmp(what, "clock")) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        printf("%lld\n", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
        return 0;
    }
    if (!strcmp(what, "hold")) {
        // Keeps a secret open; says what it reads at first, and again from the start at each line of input.
        char text[256];
        int fd = open(argv[2], O_RDONLY);
        if (fd < 0)
            return told(fd);
        do {
            ssize_t length = pread(fd, text, sizeof text - 1, 0);
            text[length < 0 ? 0 : length] = 0;
            printf("%zd:%s\n", length, text);
        } while (fgets(text, sizeof text, stdin));
        return 0;
    }
    return 99;
}
