/* A program that must not run. When it does, it says so in the file MARK. CONTENT makes several that differ. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char content[] = CONTENT;

int main(int argc, char **argv) {
    const char *mark = getenv("MARK");
    const char *token = getenv("TOKEN");
    int is_bad = strcmp(content, "arguments") != 0;
    for (int i = 1; i < argc; i++)
        is_bad |= strcmp(argv[i], "--bad") == 0;
    if (!is_bad || mark == NULL || token == NULL)
        return 0;
    int fd = open(mark, O_WRONLY | O_CREAT | O_APPEND, 0644);
    return write(fd, token, strlen(token)) < 0;
}
