/* Ways to change VICTIM, a file that the caller owns and that the policy denies to write, or to read it. */
#include "way.h"

#include <libgen.h>
#include <linux/io_uring.h>
#include <sys/sendfile.h>
#include <sys/xattr.h>

static int put(int fd) {
    const char *token = need("TOKEN");
    return fd >= 0 && write(fd, token, strlen(token)) > 0 ? 0 : refused("write");
}
static int get(int fd) {
    return fd < 0 ? refused("open") : print_fd(fd);
}
static const char *victim(void) {
    return need("VICTIM");
}

static int write_open(void) {
    return put(open(victim(), O_WRONLY));
}
#ifdef SYS_open
static int write_legacy(void) {
    return put((int)syscall(SYS_open, victim(), O_WRONLY | O_APPEND));
}
static int write_creat(void) {
    return syscall(SYS_creat, victim(), 0644) < 0 ? refused("creat") : 0;
}
#endif
/* Opened for reading, and cut by the way. */
static int read_truncate(void) {
    return open(victim(), O_RDONLY | O_TRUNC) < 0 ? refused("open") : 0;
}
static int cut(void) {
    return truncate(victim(), 0) < 0 ? refused("truncate") : 0;
}
static int reopen(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", open(victim(), O_PATH));
    return put(open(path, O_WRONLY));
}
static int reopen_read(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", open(victim(), O_PATH));
    return get(open(path, O_RDONLY));
}
static int map_shared(void) {
    int fd = open(victim(), O_RDWR);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return refused("mmap");
    page[0] = '!';
    return 0;
}
static int copy_range(void) {
    int from = open("/proc/self/exe", O_RDONLY), to = open(victim(), O_WRONLY);
    return copy_file_range(from, NULL, to, NULL, 16, 0) > 0 ? 0 : refused("copy_file_range");
}
static int send_file(void) {
    int from = open("/proc/self/exe", O_RDONLY), to = open(victim(), O_WRONLY);
    return sendfile(to, from, NULL, 16) > 0 ? 0 : refused("sendfile");
}
static int remove_file(void) {
    return unlink(victim()) < 0 ? refused("unlink") : 0;
}
static int rename_away(void) {
    return rename(victim(), "away") < 0 ? refused("rename") : 0;
}
static int rename_over(void) {
    int fd = open("mine", O_WRONLY | O_CREAT, 0644);
    put(fd);
    return rename("mine", victim()) < 0 ? refused("rename") : 0;
}
static int exchange(void) {
    put(open("mine", O_WRONLY | O_CREAT, 0644));
    return renameat2(AT_FDCWD, "mine", AT_FDCWD, victim(), RENAME_EXCHANGE) < 0 ? refused("renameat2") : 0;
}
/* Beside it, in its own folder, then over it. */
static int over_from_beside(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s.new", victim());
    put(open(path, O_WRONLY | O_CREAT, 0644));
    return rename(path, victim()) < 0 ? refused("rename") : 0;
}
static int hard_link(void) {
    if (link(victim(), "linked") < 0)
        return refused("link");
    return put(open("linked", O_WRONLY));
}
static int hard_link_read(void) {
    if (link(victim(), "linked") < 0)
        return refused("link");
    return get(open("linked", O_RDONLY));
}
static int link_descriptor(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", open(victim(), O_PATH));
    if (linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW) < 0)
        return refused("linkat");
    return put(open("linked", O_WRONLY));
}
static int mode(void) {
    return chmod(victim(), 0777) < 0 ? refused("chmod") : 0;
}
static int mode_descriptor(void) {
    return fchmod(open(victim(), O_RDONLY), 0777) < 0 ? refused("fchmod") : 0;
}
static int attribute(void) {
    if (setxattr(victim(), "user.escape", "x", 1, 0) < 0)
        return refused("setxattr");
    return getxattr(victim(), "user.escape", NULL, 0) > 0 ? shown() : 1;
}
static int rename_folder(void) {
    char *folder = dirname(strdup(victim()));
    char path[4096], name[64];
    snprintf(name, sizeof name, "moved-%s", need("TOKEN"));
    snprintf(path, sizeof path, "%s/%s", dirname(strdup(folder)), name);
    if (rename(folder, path) < 0)
        return refused("rename");
    mkdir(folder, 0755);
    return put(open(victim(), O_WRONLY | O_CREAT, 0644));
}
static int rename_grandparent(void) {
    char *folder = dirname(dirname(strdup(victim())));
    char path[4096];
    snprintf(path, sizeof path, "%s-moved", folder);
    if (rename(folder, path) < 0)
        return refused("rename");
    mkdir(folder, 0755);
    mkdir(dirname(strdup(victim())), 0755);
    return put(open(victim(), O_WRONLY | O_CREAT, 0644));
}
/* The guarded folder itself, and what lies in it, by another name; back again afterwards. */
static int moved(int is_read) {
    const char *guard = need("GUARD");
    char away[4096], path[8192];
    snprintf(away, sizeof away, "%s-away", guard);
    if (rename(guard, away) < 0)
        return refused("rename");
    snprintf(path, sizeof path, "%s%s", away, victim() + strlen(guard));
    int code = is_read ? get(open(path, O_RDONLY)) : put(open(path, O_WRONLY | O_APPEND));
    rename(away, guard);
    return code;
}
static int move_guard(void) {
    return moved(0);
}
static int move_guard_read(void) {
    return moved(1);
}
/* Another name for the folder, then the file by it. */
static int symbolic_folder(void) {
    char path[4096];
    if (symlink(dirname(strdup(victim())), "folder") < 0)
        return refused("symlink");
    snprintf(path, sizeof path, "folder/%s", basename(strdup(victim())));
    return put(open(path, O_WRONLY));
}
static int from_self_root(void) {
    char path[4096];
    snprintf(path, sizeof path, "/proc/self/root%s", victim());
    return put(open(path, O_WRONLY));
}
static int read_self_root(void) {
    char path[4096];
    snprintf(path, sizeof path, "/proc/self/root%s", victim());
    return get(open(path, O_RDONLY));
}
static int read_first_root(void) {
    char path[4096];
    snprintf(path, sizeof path, "/proc/1/root%s", victim());
    return get(open(path, O_RDONLY));
}
static int read_open(void) {
    return get(open(victim(), O_RDONLY));
}
static int read_map(void) {
    int fd = open(victim(), O_RDONLY);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    if (page == MAP_FAILED)
        return refused("mmap");
    return printf("%.4000s\n", page) < 0;
}

static int ring(struct io_uring_sqe *operation) {
    int result = -1;
    return uring(operation, &result) == 0 ? result : -1;
}
static int ring_write(void) {
    struct io_uring_sqe open = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)victim()};
    open.open_flags = O_WRONLY;
    return put(ring(&open));
}
static int ring_read(void) {
    struct io_uring_sqe open = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)victim()};
    return get(ring(&open));
}
static int ring_remove(void) {
    struct io_uring_sqe remove = {.opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (uintptr_t)victim()};
    return ring(&remove) < 0;
}
static int ring_rename(void) {
    struct io_uring_sqe move = {.opcode = IORING_OP_RENAMEAT, .fd = AT_FDCWD, .addr = (uintptr_t)victim()};
    move.len = (uint32_t)AT_FDCWD;
    move.addr2 = (uintptr_t) "away";
    return ring(&move) < 0;
}

#ifdef __x86_64__
static int write_x32(void) {
    return put((int)syscall(0x40000000 | SYS_open, victim(), O_WRONLY | O_TRUNC));
}
static int write_int80(void) {
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long fd = 0;
    strcpy(low, victim());
    __asm__ volatile("int $0x80"
                     : "=a"(fd)
                     : "a"(5L), "b"(low), "c"(1L), "d"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    return put((int)fd);
}
#endif

const struct way file_ways[] = {{"write-open", write_open},
#ifdef SYS_open
                                {"write-legacy", write_legacy},
                                {"write-creat", write_creat},
#endif
                                {"read-truncate", read_truncate},
                                {"cut", cut},
                                {"reopen", reopen},
                                {"reopen-read", reopen_read},
                                {"map-shared", map_shared},
                                {"copy-range", copy_range},
                                {"send-file", send_file},
                                {"remove-file", remove_file},
                                {"rename-away", rename_away},
                                {"rename-over", rename_over},
                                {"exchange", exchange},
                                {"over-from-beside", over_from_beside},
                                {"hard-link", hard_link},
                                {"hard-link-read", hard_link_read},
                                {"link-descriptor", link_descriptor},
                                {"mode", mode},
                                {"mode-descriptor", mode_descriptor},
                                {"attribute", attribute},
                                {"rename-folder", rename_folder},
                                {"rename-grandparent", rename_grandparent},
                                {"move-guard", move_guard},
                                {"move-guard-read", move_guard_read},
                                {"symbolic-folder", symbolic_folder},
                                {"from-self-root", from_self_root},
                                {"read-self-root", read_self_root},
                                {"read-first-root", read_first_root},
                                {"read-open", read_open},
                                {"read-map", read_map},
                                {"ring-write", ring_write},
                                {"ring-read", ring_read},
                                {"ring-remove", ring_remove},
                                {"ring-rename", ring_rename},
#ifdef __x86_64__
                                {"write-x32", write_x32},
                                {"write-int80", write_int80},
#endif
                                {NULL, NULL}};
