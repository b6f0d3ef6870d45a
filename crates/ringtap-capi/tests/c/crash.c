/*
 * Writes numbered events and dies, as the argument says, right behind the last one.
 */
#include "check.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __cplusplus
#include <stdexcept>
#endif

RINGTAP_EVENT(crash, step, (u64, number))

enum { STEPS = 1000 };

int main(int argc, char **argv)
{
    CHECK(argc == 2 && ringtap_init() == RINGTAP_OK);
    void *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(nothing != MAP_FAILED);
    for (uint64_t number = 0; number < STEPS; number++)
        RINGTAP_WRITE(crash, step, number);
    if (strcmp(argv[1], "segv") == 0)
        *(volatile int *)nothing = 1;
#ifdef __cplusplus
    if (strcmp(argv[1], "exception") == 0)
        throw std::runtime_error("as asked");
#endif
    abort();
}
