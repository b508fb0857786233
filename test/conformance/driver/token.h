// What is started in the sandbox says which file it is and which arguments it got, as the kernel has them.
#ifndef TOKEN_H
#define TOKEN_H

#include <stddef.h>

/** Prints "RAN COUNT HASH PATH". */
void print_token(int argc, char **argv);

/** FNV-1a, 32 bits; `hash` is that of what came before, or this. */
#define HASH_OF_NOTHING 2166136261u
unsigned hash_on(unsigned hash, const char *bytes, size_t length);

#endif
