// What is started in the sandbox: says which file it is and which arguments it got, as the kernel has them.

#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[length < 0 ? 0 : length] = 0;
    // FNV-1a, 32 bits, of all arguments with the zero that ends each.
    unsigned hash = 2166136261u;
    for (int i = 0; i < argc; i++)
        for (size_t at = 0;; at++) {
            hash = (hash ^ (unsigned char)argv[i][at]) * 16777619u;
            if (argv[i][at] == 0)
                break;
        }
    printf("RAN %d %08x %s\n", argc, hash, path);
    return 0;
}
