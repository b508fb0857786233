// Stands for an interpreter, by the name of its file: opens what it is told to read as that interpreter opens its
// scripts, and says what it has read ("READ HASH", "READ -" when it cannot). It knows no options: the variable READS has
// the places of the files among its arguments, with commas.
//
// The variable SWAPS makes the first of them another one before: "rewrite" (the content), "rename" (another file takes
// the name), so that whoever reads the file itself reads something else than was there at the exec.

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "token.h"

static const char SWAPPED[] = "swapped\n";

static int has(const char *text, size_t length, const char *word) {
    return memmem(text, length, word, strlen(word)) != NULL;
}

// Reads it to its end; the descriptor is closed. -1: it cannot be opened.
static ssize_t read_all(const char *name, int flags, char *content, size_t room) {
    int fd = open(name, O_RDONLY | flags);
    if (fd < 0)
        return -1;
    size_t length = 0;
    for (ssize_t got; length < room && (got = read(fd, content + length, room - length)) > 0;)
        length += (size_t)got;
    close(fd);
    return (ssize_t)length;
}

// As Node does: "a/.." goes before anything is looked up, whatever "a" is. `name` is absolute.
static void without_dots(const char *name, char *into) {
    static char copy[2 * PATH_MAX];
    char *rest = copy, *end = into;
    snprintf(copy, sizeof(copy), "%s", name);
    for (char *part; (part = strsep(&rest, "/")) != NULL;) {
        if (strcmp(part, "..") == 0)
            while (end > into && *--end != '/')
                ;
        else if (part[0] != 0 && strcmp(part, ".") != 0)
            end += sprintf(end, "/%s", part);
        *end = 0;
    }
}

static void read_script(const char *program, const char *name) {
    static char content[65536], full[2 * PATH_MAX];
    ssize_t length;
    char folder[PATH_MAX];
    const char *from = name[0] == '/' || getcwd(folder, sizeof(folder)) == NULL ? "" : folder;
    snprintf(full, sizeof(full), "%s%s%s", from, from[0] == 0 ? "" : "/", name);
    if (strncmp(program, "python", 6) == 0) {
        // It looks for an archive first, and the name is made absolute.
        read_all(full, O_CLOEXEC, content, sizeof(content));
        length = read_all(full, 0, content, sizeof(content));
    } else if (strncmp(program, "node", 4) == 0) {
        static char plain[2 * PATH_MAX];
        without_dots(full, plain);
        char *real = realpath(plain, NULL);
        length = real == NULL ? -1 : read_all(real, O_CLOEXEC, content, sizeof(content));
        // An ES module, as it turns out.
        if (length > 0 && has(content, (size_t)length, "import"))
            length = read_all(real, O_CLOEXEC, content, sizeof(content));
    } else {
        length = read_all(name, 0, content, sizeof(content));
    }
    if (length < 0)
        printf("READ -\n");
    else
        printf("READ %08x\n", hash_on(HASH_OF_NOTHING, content, (size_t)length));
}

static int swap(const char *how, const char *name) {
    char other[PATH_MAX];
    int is_rename = strcmp(how, "rename") == 0;
    snprintf(other, sizeof(other), "%s.new", name);
    int fd = open(is_rename ? other : name, O_WRONLY | O_TRUNC | (is_rename ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0 || write(fd, SWAPPED, strlen(SWAPPED)) != (ssize_t)strlen(SWAPPED) || close(fd) != 0)
        return -1;
    return is_rename ? rename(other, name) : 0;
}

int main(int argc, char **argv) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[length < 0 ? 0 : length] = 0;
    const char *program = strrchr(path, '/') == NULL ? path : strrchr(path, '/') + 1;
    const char *how = getenv("SWAPS");
    char *reads = getenv("READS");
    print_token(argc, argv);
    for (char *place; (place = strsep(&reads, ",")) != NULL;) {
        int number = atoi(place);
        if (number < 0 || number >= argc)
            return 2;
        const char *name = argv[number];
        // --require=FILE
        if (name[0] == '-' && strchr(name, '=') != NULL)
            name = strchr(name, '=') + 1;
        if (how != NULL && swap(how, name) != 0) {
            perror("swap");
            return 3;
        }
        how = NULL;
        read_script(program, name);
    }
    return 0;
}
