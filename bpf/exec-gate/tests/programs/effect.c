// Leaves a trace of having run: appends one byte to DIRECTORY/NAME.
//
//   effect DIRECTORY NAME      (or NAME fixed at build, so that the file itself says which program ran; or, chosen at
//                              build, the name of its first variable, or of its working directory)
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
#ifdef FIXED
    const char *name = FIXED;
#elif defined(BY_ENVIRONMENT)
    char name[256] = "none";
    if (environ[0])
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(environ[0], "="), environ[0]);
#elif defined(BY_CWD)
    char folder[4096];
    const char *name = getcwd(folder, sizeof(folder)) ? basename(folder) : "none";
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
