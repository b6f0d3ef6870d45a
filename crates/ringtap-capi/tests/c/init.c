/* The shortest program: to whoever is there, else into memory of its own, which is served while it runs. */
#include "check.h"
#include <string.h>
#include <unistd.h>

RINGTAP_EVENT(init, hello, (string, who))

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    CHECK(ringtap_init() == RINGTAP_OK);
    CHECK(RINGTAP_TRY_WRITE(init, hello, "world") == RINGTAP_OK);
    if (strcmp(argv[1], "own") == 0) {
        CHECK(ringtap_socket() && access(ringtap_socket(), F_OK) == 0);
        puts(ringtap_socket());
    } else {
        CHECK(ringtap_socket() == NULL);
    }
    /* By return, with the socket: exit removes it. */
    return 0;
}
