/* Ways to another view of the files: VICTIM is a file that is masked or read-only here. */
#include "way.h"

#include <limits.h>
#include <sched.h>
#include <linux/mount.h>
#include <sys/sysmacros.h>

/* From linux/fs.h, which cannot be included beside sys/mount.h. */
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);

static char *folder_of(const char *path) {
    char *copy = strdup(path);
    *strrchr(copy, '/') = '\0';
    return copy;
}

static int read_victim(void) {
    int fd = open(need("VICTIM"), O_RDONLY);
    return fd < 0 ? refused(need("VICTIM")) : print_fd(fd);
}

static int write_at(int fd) {
    const char *token = need("TOKEN");
    return fd >= 0 && write(fd, token, strlen(token)) > 0 ? 0 : refused("write");
}

/* Takes the mask, or the read-only mount, away. */
static int take_mask(void) {
    if (umount2(need("GUARD"), 2) < 0)
        return refused("umount2");
    int code = read_victim();
    /* As it was, for who tries next. */
    mount("tmpfs", need("GUARD"), "tmpfs", 1 /* MS_RDONLY */, NULL);
    return code;
}

static int mount_over(void) {
    if (mount("tmpfs", "/etc", "tmpfs", 0, NULL) < 0)
        return refused("mount");
    int is_gone = access("/etc/passwd", F_OK) != 0;
    umount2("/etc", 2);
    return is_gone ? shown() : 1;
}

static int remount(void) {
    if (mount(NULL, need("GUARD"), NULL, 4096 /* MS_BIND */ | 32 /* MS_REMOUNT */, NULL) < 0)
        return refused("remount");
    int fd = open(need("VICTIM"), O_WRONLY);
    int code = write_at(fd);
    close(fd);
    mount(NULL, need("GUARD"), NULL, 4096 | 32 | 1, NULL);
    return code;
}

/* The same by the newer calls. */
static int set_attributes(void) {
    struct mount_attr attributes = {.attr_clr = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, AT_FDCWD, need("GUARD"), 0, &attributes, sizeof attributes) < 0)
        return refused("mount_setattr");
    int fd = open(need("VICTIM"), O_WRONLY);
    int code = write_at(fd);
    close(fd);
    attributes = (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY};
    syscall(SYS_mount_setattr, AT_FDCWD, need("GUARD"), 0, &attributes, sizeof attributes);
    return code;
}

/* A clone of the mount without what lies over it. */
static int clone_tree(void) {
    char *above = folder_of(need("GUARD"));
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, above, OPEN_TREE_CLONE | O_CLOEXEC);
    if (tree < 0)
        return refused("open_tree");
    int fd = openat(tree, need("VICTIM") + strlen(above) + 1, O_RDONLY);
    return fd < 0 ? refused("openat") : print_fd(fd);
}

static int new_filesystem(void) {
    int context = (int)syscall(SYS_fsopen, "tmpfs", 0);
    if (context < 0)
        return refused("fsopen");
    syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    int tree = (int)syscall(SYS_fsmount, context, 0, 0);
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/etc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return refused("move_mount");
    int is_gone = access("/etc/passwd", F_OK) != 0;
    umount2("/etc", 2);
    return is_gone ? shown() : 1;
}

/* The well-known way up: a root below the working directory. */
static int chroot_out(void) {
    int here = open(".", O_PATH | O_DIRECTORY);
    mkdir("jail", 0755);
    if (chroot("jail") < 0)
        return refused("chroot");
    if (fchdir(here) < 0)
        return refused("fchdir");
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return refused("..");
    return access("jail", F_OK) != 0 && access("etc/passwd", F_OK) == 0 ? shown() : 1;
}

static int pivot(void) {
    /* Where it works, it is not to move the root of the processes that try other things. */
    if (unshare(CLONE_NEWNS) == 0)
        mount(NULL, "/", NULL, 16384 /* MS_REC */ | 262144 /* MS_PRIVATE */, NULL);
    mkdir("root", 0755);
    if (mount("tmpfs", "root", "tmpfs", 0, NULL) < 0)
        return refused("mount");
    mkdir("root/old", 0755);
    if (syscall(SYS_pivot_root, "root", "root/old") < 0)
        return refused("pivot_root");
    return access("/old/etc/passwd", F_OK) == 0 ? shown() : 1;
}

/* A file by its number, past every path. */
static int by_handle(void) {
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount_fd = open(folder_of(need("GUARD")), O_RDONLY | O_DIRECTORY);
    /* The handle is of the folder that is over the victim's here; the victim's own was written down outside. */
    FILE *file = fopen(need("HANDLE"), "r");
    if (file == NULL)
        return refused("HANDLE");
    unsigned byte = 0;
    unsigned type = 0;
    handle.head.handle_bytes = 0;
    if (fscanf(file, "%u", &type) != 1)
        return 2;
    handle.head.handle_type = (int)type;
    while (handle.head.handle_bytes < MAX_HANDLE_SZ && fscanf(file, "%x", &byte) == 1)
        handle.head.f_handle[handle.head.handle_bytes++] = (unsigned char)byte;
    fclose(file);
    int fd = open_by_handle_at(mount_fd, &handle.head, O_RDONLY);
    return fd < 0 ? refused("open_by_handle_at") : print_fd(fd);
}

/* Run outside: writes down the victim's handle for by-handle. */
static int note_handle(void) {
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int id = 0;
    if (name_to_handle_at(AT_FDCWD, need("VICTIM"), &handle.head, &id, 0) < 0)
        return refused("name_to_handle_at");
    printf("%d\n", handle.head.handle_type);
    for (unsigned i = 0; i < handle.head.handle_bytes; i++)
        printf("%02x ", handle.head.f_handle[i]);
    printf("\n");
    return 0;
}

/* Nodes of the null device: what counts is that the node is there. */
static int character_node(void) {
    struct stat at;
    mknod("node", S_IFCHR | 0666, makedev(1, 3));
    return stat("node", &at) == 0 && S_ISCHR(at.st_mode) ? shown() : refused("mknod");
}
static int block_node(void) {
    struct stat at;
    /* Major 0 is no device at all. */
    mknodat(AT_FDCWD, "block", S_IFBLK | 0600, makedev(0, 1));
    return stat("block", &at) == 0 && S_ISBLK(at.st_mode) ? shown() : refused("mknodat");
}

const struct way mount_ways[] = {{"take-mask", take_mask},
                                 {"mount-over", mount_over},
                                 {"remount", remount},
                                 {"set-attributes", set_attributes},
                                 {"clone-tree", clone_tree},
                                 {"new-filesystem", new_filesystem},
                                 {"chroot-out", chroot_out},
                                 {"pivot", pivot},
                                 {"by-handle", by_handle},
                                 {"note-handle", note_handle},
                                 {"character-node", character_node},
                                 {"block-node", block_node},
                                 {NULL, NULL}};
