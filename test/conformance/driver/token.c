#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "token.h"

unsigned hash_on(unsigned hash, const char *bytes, size_t length) {
    for (size_t at = 0; at < length; at++)
        hash = (hash ^ (unsigned char)bytes[at]) * 16777619u;
    return hash;
}

void print_token(int argc, char **argv) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[length < 0 ? 0 : length] = 0;
    // Each argument with the zero that ends it.
    unsigned hash = HASH_OF_NOTHING;
    for (int i = 0; i < argc; i++)
        hash = hash_on(hash, argv[i], strlen(argv[i]) + 1);
    printf("RAN %d %08x %s\n", argc, hash, path);
}
