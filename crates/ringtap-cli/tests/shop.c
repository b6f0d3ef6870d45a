/* A program with functions that are called as often as it says, and a USDT probe. shop TIMES; 42 where somebody watched the
 * probe, 41 where nobody did. */
#include <setjmp.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A probe as systemtap's <sys/sdt.h> writes it: a nop, and a note that says where it and its arguments are. */
#define PROBE(provider, name, semaphore, arguments, ...)                                                                \
    __asm__ volatile(                                                                                                  \
        "990: nop\n"                                                                                                   \
        ".pushsection .note.stapsdt, \"\", \"note\"\n"                                                                 \
        ".balign 4\n"                                                                                                  \
        ".4byte 992f-991f, 994f-993f, 3\n"                                                                             \
        "991: .asciz \"stapsdt\"\n"                                                                                    \
        "992: .balign 4\n"                                                                                             \
        "993: .8byte 990b\n"                                                                                           \
        ".8byte _.stapsdt.base\n"                                                                                      \
        ".8byte " semaphore "\n"                                                                                       \
        ".asciz \"" provider "\"\n"                                                                                    \
        ".asciz \"" name "\"\n"                                                                                        \
        ".asciz \"" arguments "\"\n"                                                                                   \
        "994: .balign 4\n"                                                                                             \
        ".popsection\n"                                                                                                \
        ".ifndef _.stapsdt.base\n"                                                                                     \
        ".pushsection .stapsdt.base, \"aG\", \"progbits\", .stapsdt.base, comdat\n"                                    \
        ".weak _.stapsdt.base\n"                                                                                       \
        ".hidden _.stapsdt.base\n"                                                                                     \
        "_.stapsdt.base: .space 1\n"                                                                                   \
        ".size _.stapsdt.base, 1\n"                                                                                    \
        ".popsection\n"                                                                                                \
        ".endif\n" ::__VA_ARGS__)

__attribute__((section(".probes"))) volatile unsigned short shop_sold_semaphore;

__attribute__((noinline)) int sell(int item, long price)
{
    if (item < 0) return -1;
    PROBE("shop", "sold", "shop_sold_semaphore", "-4@%0 8@%1 -4@$-7 8f@%%xmm0", "r"(item), "r"(price));
    return item * 2 + (price == 1);
}

int main(int argc, char **argv)
{
    int is_watched = shop_sold_semaphore > 0, times = argc > 1 ? atoi(argv[1]) : 1;
    for (volatile int i = 0; i < times; i++) {
        struct timespec pause = { 0, 1000000 };
        jmp_buf back;
        if (setjmp(back) == 0) longjmp(back, 1);
        write(99, "", (size_t)i);
        nanosleep(&pause, NULL);
        if (sell(i, 1000L * i) < 0) return 1;
        nanosleep(&pause, NULL);
    }
    return is_watched ? 42 : 41;
}
