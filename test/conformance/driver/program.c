// A program that reads nothing.

#include "token.h"

int main(int argc, char **argv) {
    print_token(argc, argv);
    return 0;
}
