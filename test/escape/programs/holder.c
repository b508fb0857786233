/*
 * Loaded into the gateway: keeps a secret in its memory and open in a descriptor, says where, and notices when
 * somebody writes into its memory: then it makes the file HEARD/TEXT.
 */
#include "way.h"

#include <pthread.h>

static char secret[256];
static char untouched[256];

static void *watch(void *heard) {
    for (;; sleep_ms(10)) {
        char path[1024];
        char text[64];
        memcpy(text, untouched, sizeof text);
        text[sizeof text - 1] = '\0';
        if (strncmp(text, "esc-", 4) != 0 || strchr(text, '/') != NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", (const char *)heard, text);
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        memset(untouched, 0, sizeof untouched);
    }
    return NULL;
}

__attribute__((constructor)) static void hold(void) {
    static char heard[512];
    pthread_t thread;
    const char *file = getenv("HOLDS");
    const char *path = getenv("HOLDER");
    if (file == NULL || path == NULL)
        return;
    snprintf(heard, sizeof heard, "%s", need("HEARD"));
    /* Not 0 to 2 of anything it starts: close on exec. */
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, secret, sizeof secret - 1, 0) <= 0)
        return;
    FILE *out = fopen(path, "we");
    if (out == NULL)
        return;
    fprintf(out, "%d %d %lu %lu\n", getpid(), fd, (unsigned long)secret, (unsigned long)untouched);
    fclose(out);
    pthread_create(&thread, NULL, watch, heard);
}
