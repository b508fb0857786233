/*
 * The same ways in a process that loads a library: in Node's own, by process.dlopen. WAY says which; what it prints
 * goes to the file OUT.
 */
#include "way.h"

__attribute__((constructor)) static void loaded(void) {
    const char *name = getenv("WAY");
    if (name == NULL)
        return;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        int out = open(need("OUT"), O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
        int code = run_way(name);
        fflush(NULL);
        _exit(code);
    }
    if (child > 0)
        wait_for(child, 8000);
}
