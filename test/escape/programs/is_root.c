/* Set-user-ID or with a capability in its file: says whether that counted. */
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    memset(data, 0, sizeof data);
    syscall(SYS_capget, &head, data);
    const char *token = getenv("TOKEN");
    if (token != NULL && (geteuid() == 0 || data[0].effective != 0))
        printf("effect %s\n", token);
    return 0;
}
