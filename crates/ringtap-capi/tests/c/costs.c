/*
 * Writing allocates nothing: the program's own allocation functions count whoever comes by.
 */
#include "check.h"
#include "fields.h"
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif
/* The C library's, under the names that are left to them. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

/* This thread's: the host has its own. */
static __thread uint64_t allocations;

static void count(void)
{
    allocations++;
}

void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    count();
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size)
{
    count();
    return __libc_realloc(old, size);
}

int posix_memalign(void **place, size_t alignment, size_t size)
{
    count();
    *place = __libc_memalign(alignment, size);
    return *place ? 0 : 12;
}
#ifdef __cplusplus
}
#endif

int main(void)
{
    ringtap_host *host;
    CHECK(ringtap_host_new(NULL, &host) == RINGTAP_OK && ringtap_trace_to(host) == RINGTAP_OK);
    /* They do count. */
    CHECK(allocations > 0);
    struct ringtap_stats before, after;
    CHECK(ringtap_host_stats(host, &before) == RINGTAP_OK);
    uint64_t warm = allocations;
    for (int i = 0; i < 10000; i++) {
        write_fields();
        CHECK(ringtap_print("text") == RINGTAP_OK && ringtap_print_raw(1, "bytes", 5) == RINGTAP_OK);
    }
    CHECK(allocations == warm);
    CHECK(ringtap_host_stats(host, &after) == RINGTAP_OK);
    CHECK(after.written - before.written == 10000 * 20);
    CHECK(ringtap_detach() == RINGTAP_OK);
    ringtap_host_free(host);
    return 0;
}
