/* Says when an event is switched by its host: the program only looks, and writes. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

RINGTAP_EVENT(switched, tick, (u32, who), (u64, number))

static void until(int is_on, uint32_t who)
{
    for (uint64_t number = 0; RINGTAP_IS_ON(switched, tick) != is_on; number++) {
        RINGTAP_WRITE(switched, tick, who, number);
        usleep(1000);
    }
    RINGTAP_WRITE(switched, tick, who, 0);
    printf("%s %u\n", is_on ? "on" : "off", who);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    CHECK(ringtap_attach(argv[1], RINGTAP_EARLY_FAIL) == RINGTAP_OK);
    CHECK(!RINGTAP_IS_ON(switched, tick) && ringtap_event_id(&ringtap__event_switched__tick) > 0);
    puts("off");
    fflush(stdout);
    until(1, 0);
    /* A forked child is told, too. */
    pid_t child = fork();
    CHECK(child >= 0);
    until(0, child == 0);
    if (child == 0)
        _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return 0;
}
