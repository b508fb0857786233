// Performs file operations, one at a time, and says for each whether the kernel let it through. A static
// program, so that it needs nothing of the file system that it is confined to.
//
//   probe enter ROOT PROFILE [FOLDER...]   makes ROOT the root of a new mount namespace and each folder in it a mount
//                                          point, gives up root and confines itself
//   probe serve         reads steps from stdin, writes one line "ERRNO" (0: done) for each
//   probe same LABEL    ends with 0 if its AppArmor label is this one: what an exec of a copy of it does
//
// A step is three strings, each with a zero byte at its end: the operation, its path, its second path.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

// The agent's user in a sandbox.
#define UID 1000
// Descriptor of a folder outside the view, which the starter may leave open.
#define OUTSIDE 3

// Descriptor that "keep" opened, for the steps that follow it.
static int kept = -1;

static int opened(int fd) {
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int result(int code) {
    return code == 0 ? 0 : errno;
}

// Opens again what a descriptor stands for, as /proc lets one do; with a name: what is below that descriptor.
static int reopened(int fd, const char *name, int flags) {
    char path[64];

    if (fd < 0)
        return EBADF;
    if (*name != '\0')
        return opened(openat(fd, name, flags));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return opened(open(path, flags));
}

static int by_path_descriptor(const char *path, int flags) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    int error;

    if (fd < 0)
        return errno;
    error = reopened(fd, "", flags);
    close(fd);
    return error;
}

// AppArmor label of this process; "" where it may not be read.
static const char *label(void) {
    static char text[512];
    int fd = open("/proc/self/attr/apparmor/current", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    text[length < 0 ? 0 : length] = '\0';
    close(fd);
    return text;
}

// An exec that leaves the profile is no success.
static int executed(const char *path) {
    int ends[2], status, error = 0;
    char *argv[] = {(char *)path, "same", (char *)label(), NULL};
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    pid = fork();
    if (pid == 0) {
        execv(path, argv);
        error = errno;
        // The reader sees end of file where the exec took place.
        _exit(write(ends[1], &error, sizeof(error)) == sizeof(error) ? 126 : 125);
    }
    close(ends[1]);
    if (read(ends[0], &error, sizeof(error)) < 0)
        error = errno;
    close(ends[0]);
    waitpid(pid, &status, 0);
    // Nor is one that began and was then stopped from loading.
    return error == 0 && status != 0 ? ENOEXEC : error;
}

static int mapped(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map;

    if (fd < 0)
        return errno;
    map = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    close(fd);
    return map == MAP_FAILED ? errno : result(munmap(map, 4096));
}

static int listed(const char *path) {
    DIR *folder = opendir(path);

    return folder == NULL ? errno : result(closedir(folder));
}

static int locked(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), error;

    if (fd < 0)
        return errno;
    error = result(flock(fd, LOCK_SH));
    close(fd);
    return error;
}

// chmod through a descriptor.
static int changed(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), error;

    if (fd < 0)
        return errno;
    error = result(fchmod(fd, 0700));
    close(fd);
    return error;
}

static int local(const char *path, int (*use)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, error;

    if (strlen(path) >= sizeof(address.sun_path))
        return ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    strcpy(address.sun_path, path);
    error = result(use(fd, (struct sockaddr *)&address, sizeof(address)));
    close(fd);
    return error;
}

static int perform(const char *what, const char *path, const char *to) {
    struct stat status;
    char target[4096];

    // clang-format off
	if (!strcmp(what, "read")) return opened(open(path, O_RDONLY));
	if (!strcmp(what, "write")) return opened(open(path, O_WRONLY));
	if (!strcmp(what, "append")) return opened(open(path, O_WRONLY | O_APPEND));
	if (!strcmp(what, "open-truncate")) return opened(open(path, O_WRONLY | O_TRUNC));
	if (!strcmp(what, "create")) return opened(open(path, O_WRONLY | O_CREAT | O_EXCL, 0700));
	if (!strcmp(what, "create-unnamed")) return opened(open(path, O_WRONLY | O_TMPFILE, 0700));
	if (!strcmp(what, "truncate")) return result(truncate(path, 0));
	if (!strcmp(what, "unlink")) return result(unlink(path));
	if (!strcmp(what, "rmdir")) return result(rmdir(path));
	if (!strcmp(what, "mkdir")) return result(mkdir(path, 0700));
	if (!strcmp(what, "mkfifo")) return result(mkfifo(path, 0700));
	if (!strcmp(what, "symlink")) return result(symlink(to, path));
	if (!strcmp(what, "link")) return result(link(path, to));
	if (!strcmp(what, "rename")) return result(rename(path, to));
	if (!strcmp(what, "exchange")) return result(renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_EXCHANGE));
	if (!strcmp(what, "chmod")) return result(chmod(path, 0700));
	if (!strcmp(what, "fchmod")) return changed(path);
	if (!strcmp(what, "chown")) return result(chown(path, UID, UID));
	if (!strcmp(what, "utimes")) return result(utimensat(AT_FDCWD, path, NULL, 0));
	if (!strcmp(what, "setxattr")) return result(setxattr(path, "user.probe", "1", 1, 0));
	if (!strcmp(what, "stat")) return result(stat(path, &status));
	if (!strcmp(what, "access")) return result(access(path, R_OK));
	if (!strcmp(what, "readlink")) return readlink(path, target, sizeof(target)) < 0 ? errno : 0;
	if (!strcmp(what, "list")) return listed(path);
	if (!strcmp(what, "chdir")) return result(chdir(path));
	if (!strcmp(what, "lock")) return locked(path);
	if (!strcmp(what, "map-exec")) return mapped(path);
	if (!strcmp(what, "exec")) return executed(path);
	if (!strcmp(what, "bind")) return local(path, bind);
	if (!strcmp(what, "connect")) return local(path, connect);
	if (!strcmp(what, "path-descriptor")) return opened(open(path, O_PATH));
	if (!strcmp(what, "reopen-read")) return by_path_descriptor(path, O_RDONLY);
	if (!strcmp(what, "reopen-write")) return by_path_descriptor(path, O_WRONLY);
	if (!strcmp(what, "kept-read")) return reopened(kept, path, O_RDONLY);
	if (!strcmp(what, "kept-write")) return reopened(kept, path, O_WRONLY);
	if (!strcmp(what, "outside-read")) return opened(openat(OUTSIDE, path, O_RDONLY));
	if (!strcmp(what, "outside-write")) return opened(openat(OUTSIDE, path, O_WRONLY));
    // clang-format on
    if (!strcmp(what, "keep")) {
        if (kept >= 0)
            close(kept);
        kept = open(path, O_PATH | O_CLOEXEC);
        return kept < 0 ? errno : 0;
    }
    return ENOSYS;
}

static int serve(void) {
    char *words[3] = {NULL, NULL, NULL};
    size_t sizes[3] = {0, 0, 0};

    for (;;) {
        for (int i = 0; i < 3; i++)
            if (getdelim(&words[i], &sizes[i], '\0', stdin) < 0)
                return 0;
        printf("%d\n", perform(words[0], words[1], words[2]));
        fflush(stdout);
    }
}

static void must(int ok, const char *what) {
    if (ok)
        return;
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    exit(2);
}

// PROFILE "" enters none: what the same operation does where nothing confines it.
static void enter(const char *root, const char *profile, char **folders) {
    must(unshare(CLONE_NEWNS) == 0, "unshare");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount private");
    must(mount(root, root, NULL, MS_BIND | MS_REC, NULL) == 0, "mount bind");
    must(chdir(root) == 0, "chdir");
    must(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
    must(umount2(".", MNT_DETACH) == 0, "umount");
    must(chdir("/") == 0, "chdir /");
    for (; *folders != NULL; folders++)
        must(mount(*folders, *folders, NULL, MS_BIND | MS_REC, NULL) == 0, *folders);
    must(setgroups(0, NULL) == 0, "setgroups");
    must(setresgid(UID, UID, UID) == 0, "setresgid");
    must(setresuid(UID, UID, UID) == 0, "setresuid");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    if (*profile == '\0')
        return;

    // The attribute of the task that execs; one write, as the kernel takes each write as a whole.
    int fd = open("/proc/thread-self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC);
    char command[512];
    int length = snprintf(command, sizeof(command), "exec %s", profile);

    must(fd >= 0, "open attr/apparmor/exec");
    must(length < (int)sizeof(command), "profile name");
    must(write(fd, command, length) == length, "write attr/apparmor/exec");
    close(fd);
}

int main(int argc, char **argv) {
    umask(0);
    if (argc == 3 && !strcmp(argv[1], "same"))
        return strcmp(argv[2], label()) == 0 ? 0 : 1;
    if (argc == 2 && !strcmp(argv[1], "serve"))
        return serve();
    if (argc >= 4 && !strcmp(argv[1], "enter")) {
        enter(argv[2], argv[3], argv + 4);
        execl("/probe", "probe", "serve", NULL);
        must(0, "exec /probe");
    }
    fprintf(stderr, "usage: probe enter ROOT PROFILE [FOLDER...] | serve | same LABEL\n");
    return 2;
}
