/* Namespaces of one's own: in one, a process is root, and mounts what it likes. */
#include "way.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

/* Where a process is: its namespace differs from what `before` says. */
static long inode(const char *path) {
    struct stat at;
    return stat(path, &at) == 0 ? (long)at.st_ino : -1;
}

static int left(const char *path, long before) {
    long after = inode(path);
    return before > 0 && after > 0 && after != before ? shown() : refused("the namespace");
}

static int unshare_user(void) {
    long before = inode("/proc/self/ns/user");
    unshare(CLONE_NEWUSER);
    return left("/proc/self/ns/user", before);
}
static int unshare_mount(void) {
    long before = inode("/proc/self/ns/mnt");
    unshare(CLONE_NEWUSER | CLONE_NEWNS);
    return left("/proc/self/ns/mnt", before);
}
static int unshare_net(void) {
    long before = inode("/proc/self/ns/net");
    unshare(CLONE_NEWUSER | CLONE_NEWNET);
    return left("/proc/self/ns/net", before);
}
static int unshare_cgroup(void) {
    long before = inode("/proc/self/ns/cgroup");
    unshare(CLONE_NEWUSER | CLONE_NEWCGROUP);
    return left("/proc/self/ns/cgroup", before);
}

static int child_left(pid_t child, long before, const char *kind) {
    char path[64];
    if (child < 0)
        return refused("clone");
    snprintf(path, sizeof path, "/proc/%d/ns/%s", child, kind);
    sleep_ms(20);
    int code = left(path, before);
    kill(child, SIGKILL);
    waitpid(child, NULL, __WALL);
    return code;
}

static pid_t raw_clone(unsigned long flags) {
    pid_t child = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        sleep_ms(3000);
        _exit(0);
    }
    return child;
}
static int clone_user(void) {
    return child_left(raw_clone(CLONE_NEWUSER), inode("/proc/self/ns/user"), "user");
}
static int clone_mount(void) {
    return child_left(raw_clone(CLONE_NEWUSER | CLONE_NEWNS), inode("/proc/self/ns/mnt"), "mnt");
}
static int clone_pid(void) {
    return child_left(raw_clone(CLONE_NEWUSER | CLONE_NEWPID), inode("/proc/self/ns/pid"), "pid");
}
static int clone_upper(void) {
    return child_left(raw_clone(0xffffffff00000000UL | CLONE_NEWUSER), inode("/proc/self/ns/user"), "user");
}

/* Its flags are behind a pointer. */
static int clone3_user(void) {
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long before = inode("/proc/self/ns/user");
    pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (child == 0) {
        sleep_ms(3000);
        _exit(0);
    }
    return child_left(child, before, "user");
}

/* Root of a namespace mounts over what everybody trusts. */
static int user_mount(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return refused("unshare");
    if (mount("tmpfs", "/etc", "tmpfs", 0, NULL) < 0)
        return refused("mount");
    return access("/etc/passwd", F_OK) != 0 ? shown() : 1;
}

/* Into the namespaces of another process: of a child in new ones, or of PID 1. */
static int enter(const char *kind, pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || setns(fd, 0) < 0)
        return refused(path);
    return shown();
}
static int enter_first(void) {
    return enter("uts", 1);
}
static int enter_pidfd(void) {
    int pidfd = (int)syscall(SYS_pidfd_open, 1, 0);
    return setns(pidfd, CLONE_NEWUTS) < 0 ? refused("setns") : shown();
}

static int host_name(void) {
    char name[65] = {0};
    sethostname("escaped", 7);
    gethostname(name, sizeof name - 1);
    return strcmp(name, "escaped") == 0 ? shown() : refused("sethostname");
}

const struct way namespace_ways[] = {{"unshare-user", unshare_user}, {"unshare-mount", unshare_mount},
                                     {"unshare-net", unshare_net},   {"unshare-cgroup", unshare_cgroup},
                                     {"clone-user", clone_user},     {"clone-mount", clone_mount},
                                     {"clone-pid", clone_pid},       {"clone-upper", clone_upper},
                                     {"clone3-user", clone3_user},   {"user-mount", user_mount},
                                     {"enter-first", enter_first},   {"enter-pidfd", enter_pidfd},
                                     {"host-name", host_name},       {NULL, NULL}};
