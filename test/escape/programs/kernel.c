/* Calls that see or change what no layer stands before. Each shows its effect by reading it back. */
#include "way.h"

#include <linux/bpf.h>
#include <linux/fanotify.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <termios.h>

static int bpf_map(void) {
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    uint32_t key = 0;
    uint64_t value = 42, read_back = 0;
    int map = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
    if (map < 0)
        return refused("bpf");
    memset(&attr, 0, sizeof attr);
    attr.map_fd = (uint32_t)map;
    attr.key = (uintptr_t)&key;
    attr.value = (uintptr_t)&value;
    syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof attr);
    attr.value = (uintptr_t)&read_back;
    syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof attr);
    return read_back == 42 ? shown() : 1;
}

static int perf_counter(void) {
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK};
    uint64_t count = 0;
    int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    if (fd < 0)
        return refused("perf_event_open");
    for (volatile int i = 0; i < 1000000; i++) {
    }
    return read(fd, &count, sizeof count) == sizeof count && count > 0 ? shown() : 1;
}

/* The keyring of the user is shared by all processes of this uid on the host, whatever their namespaces. */
static int keyring(void) {
    const char *token = need("TOKEN");
    char bytes[256] = {0};
    long key = syscall(SYS_add_key, "user", token, token, strlen(token), KEY_SPEC_USER_KEYRING);
    if (key < 0)
        return refused("add_key");
    syscall(SYS_keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING);
    long found = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", token, 0);
    long size = syscall(SYS_keyctl, KEYCTL_READ, found < 0 ? key : found, bytes, sizeof bytes);
    syscall(SYS_keyctl, KEYCTL_UNLINK, key, KEY_SPEC_USER_KEYRING);
    return (found >= 0 || size > 0) ? shown() : refused("keyctl");
}

/* A page whose content comes from this process, when it likes: a reader of it waits. */
static int fault_fd;
static void *serve_fault(void *page) {
    struct uffd_msg message;
    static char text[4096] = "served";
    struct pollfd ready = {fault_fd, POLLIN, 0};
    if (poll(&ready, 1, 3000) == 1 && read(fault_fd, &message, sizeof message) > 0) {
        struct uffdio_copy copy = {.dst = (uintptr_t)page, .src = (uintptr_t)text, .len = 4096};
        ioctl(fault_fd, UFFDIO_COPY, &copy);
    }
    return NULL;
}
static int serve_page(int fd) {
    pthread_t thread;
    struct uffdio_api api = {.api = UFFD_API};
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)page, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    fault_fd = fd;
    if (ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &range) < 0)
        return refused("userfaultfd");
    pthread_create(&thread, NULL, serve_fault, page);
    return strcmp(page, "served") == 0 ? shown() : 1;
}
static int fault_call(void) {
    int fd = (int)syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY | O_CLOEXEC);
    return fd < 0 ? refused("userfaultfd") : serve_page(fd);
}
/* A filter of one's own answers for the kernel: getppid becomes "operation not permitted". */
static struct sock_filter fake[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 99),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog fake_program = {sizeof fake / sizeof *fake, fake};
static int is_faked(void) {
    return syscall(SYS_getppid) < 0 && errno == 99 ? shown() : refused("the filter");
}
static int filter_prctl(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &fake_program);
    return is_faked();
}
static int filter_call(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &fake_program);
    return is_faked();
}

/* A listener of one's own could answer CONTINUE to calls that another is asked about. */
static int filter_listener(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int fd =
        (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &fake_program);
    return fd >= 0 && is_faked() == 0 ? 0 : refused("seccomp");
}

/* A group of one's own is asked about opens of the whole mount. */
static int fanotify_group(void) {
    struct fanotify_event_metadata event;
    int group = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
    if (group < 0)
        return refused("fanotify_init");
    if (fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN | FAN_ONDIR, AT_FDCWD, ".") < 0)
        return refused("fanotify_mark");
    close(open(".", O_RDONLY));
    return read(group, &event, sizeof event) > 0 ? shown() : refused("fanotify");
}

/* Personality: READ_IMPLIES_EXEC makes every page that can be read executable. */
static int data_is_code(void) {
    personality(READ_IMPLIES_EXEC);
    static const unsigned char code[] = {
#ifdef __x86_64__
        0xb8, 42,  0, 0,
        0,    0xc3
#else
        0x40, 0x05, 0x80, 0x52, 0xc0,
        0x03, 0x5f, 0xd6
#endif
    };
    pid_t child = fork();
    if (child == 0) {
        unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(page, code, sizeof code);
        __builtin___clear_cache((char *)page, (char *)page + 4096);
        int (*run)(void);
        memcpy(&run, &page, sizeof run);
        _exit(run());
    }
    int status = wait_for(child, 1000);
    return WIFEXITED(status) && WEXITSTATUS(status) == 42 ? shown() : 1;
}

/* Types into the terminal as its user would: whoever reads there next takes it for a command. */
static int terminal_input(void) {
    char text[64] = {0};
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
        return refused("openpt");
    char *name = strdup(ptsname(master));
    pid_t child = fork();
    if (child == 0) {
        setsid();
        int terminal = open(name, O_RDWR);
        ioctl(terminal, TIOCSCTTY, 0);
        for (const char *at = "typed\n"; *at != '\0'; at++)
            if (ioctl(terminal, TIOCSTI, at) < 0)
                _exit(refused("TIOCSTI"));
        struct pollfd ready = {terminal, POLLIN, 0};
        if (poll(&ready, 1, 1000) != 1 || read(terminal, text, sizeof text - 1) < 0)
            _exit(1);
        _exit(strncmp(text, "typed", 5) == 0 ? shown() : 1);
    }
    wait_for(child, 3000);
    return 0;
}

/* The kernel's log, which tells of other processes and addresses. */
static int kernel_log(void) {
    static char text[65536];
    long size = syscall(SYS_syslog, 3, text, sizeof text);
    return size > 0 ? shown() : refused("syslog");
}

#ifdef __x86_64__
/* Segments of one's own. */
static int segments(void) {
    struct {
        uint32_t entry, base, limit, flags;
    } descriptor = {0, 0, 0xfffff, 0x51};
    char back[64] = {0};
    if (syscall(SYS_modify_ldt, 1, &descriptor, sizeof descriptor) != 0)
        return refused("modify_ldt");
    return syscall(SYS_modify_ldt, 0, back, sizeof back) > 0 ? shown() : 1;
}
static int ports(void) {
    if (syscall(SYS_iopl, 3) != 0)
        return refused("iopl");
    /* Nothing is read or written there: that it is allowed is the effect. */
    FILE *file = fopen("/proc/self/syscall", "r");
    if (file != NULL)
        fclose(file);
    return shown();
}
#endif

const struct way kernel_ways[] = {{"bpf-map", bpf_map},
                                  {"perf-counter", perf_counter},
                                  {"keyring", keyring},
                                  {"userfault-call", fault_call},
                                  {"filter-prctl", filter_prctl},
                                  {"filter-call", filter_call},
                                  {"filter-listener", filter_listener},
                                  {"fanotify-group", fanotify_group},
                                  {"data-is-code", data_is_code},
                                  {"terminal-input", terminal_input},
                                  {"kernel-log", kernel_log},
#ifdef __x86_64__
                                  {"segments", segments},
                                  {"ports", ports},
#endif
                                  {NULL, NULL}};
