/* Times events: a line of input names one, a line of output says how many nanoseconds it took. */
#include <ringtap.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

RINGTAP_EVENT(bench, three, (u64, a), (u32, b), (u32, c))
RINGTAP_EVENT(bench, text, (u64, took_ns), (string, path))
RINGTAP_EVENT(bench, known, (u64, took_ns), (string_n, path))
RINGTAP_EVENT(bench, odd, (u64, a), (u32, b))
RINGTAP_EVENT(bench, wide, (u64, a), (u64, b), (u64, c), (u64, d), (u64, e))
RINGTAP_EVENT(bench, off, (u64, a), (u32, b), (u32, c))

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
    ringtap_host *host;
    if (argc != 2 || ringtap_host_new(NULL, &host) != RINGTAP_OK || ringtap_trace_to(host) != RINGTAP_OK ||
        ringtap_event_set_on(&ringtap__event_bench__off, 0) != RINGTAP_OK) {
        fprintf(stderr, "%s\n", ringtap_last_error());
        return 1;
    }
    uint64_t count = strtoull(argv[1], NULL, 10);
    char line[64];
    /* A length that the compiler does not know. */
    const char *volatile path = "/cart/checkout";
    volatile size_t length = strlen(path);
    while (fgets(line, sizeof line, stdin)) {
        double begun = now();
        switch (line[0]) {
        case 'e': /* "empty": the loop alone */
            for (uint64_t i = 0; i < count; i++)
                __asm__ volatile("" ::: "memory");
            break;
        case 't':
            if (line[1] == 'h')
                for (uint64_t i = 0; i < count; i++)
                    RINGTAP_WRITE(bench, three, i, (uint32_t)i, 3);
            else
                for (uint64_t i = 0; i < count; i++)
                    RINGTAP_WRITE(bench, text, i, path);
            break;
        case 'k': /* "known": a text whose length is known, as Rust's are */
            for (uint64_t i = 0; i < count; i++)
                RINGTAP_WRITE(bench, known, i, path, length);
            break;
        case 'l': /* "lone": not a multiple of eight bytes */
            for (uint64_t i = 0; i < count; i++)
                RINGTAP_WRITE(bench, odd, i, (uint32_t)i);
            break;
        case 'w':
            for (uint64_t i = 0; i < count; i++)
                RINGTAP_WRITE(bench, wide, i, i, 3, 4, 5);
            break;
        default:
            for (uint64_t i = 0; i < count; i++) {
                RINGTAP_WRITE(bench, off, i, (uint32_t)i, 3);
                __asm__ volatile("" ::: "memory");
            }
        }
        printf("%f\n", (now() - begun) / (double)count);
        fflush(stdout);
    }
    return 0;
}
