// Leaves a trace of having run: appends one byte to DIRECTORY/NAME.
//
//   effect DIRECTORY NAME      (or NAME fixed at build, so that the file itself says which program ran)
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
#ifdef FIXED
    const char *name = FIXED;
#else
    if (argc < 3)
        return 3;
    const char *name = argv[2];
#endif
    if (argc < 2)
        return 3;
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", argv[1], name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || write(fd, "x", 1) != 1)
        return 4;
    return 0;
}
