#include "way.h"

int main(int argc, char **argv) {
    if (argc != 2)
        return fprintf(stderr, "way NAME\n"), 2;
    return run_way(argv[1]);
}
