/* What the library must bear from those who call it: missing memory, lengths that no memory has, and an exit at any time. */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

RINGTAP_EVENT(misuse, number, (u64, number))

#define EVENT ringtap__event_misuse__number

static void nothing_there(ringtap_reader *reader)
{
    static struct ringtap_event no_fields = {0, RINGTAP_ABI, "misuse", "no_fields", NULL, 1, NULL, NULL, NULL};
    CHECK(ringtap_declare(&no_fields) == RINGTAP_ERROR_ARGUMENT);
    static const struct ringtap_field field = {"x", RINGTAP_U8, RINGTAP_ONE, RINGTAP_SYMBOL, 0, 1, NULL, 3};
    static struct ringtap_event no_symbols = {0, RINGTAP_ABI, "misuse", "no_symbols", &field, 1, NULL, NULL, NULL};
    CHECK(ringtap_declare(&no_symbols) == RINGTAP_ERROR_ARGUMENT);
    CHECK(strstr(ringtap_last_error(), "symbols"));
    CHECK(ringtap_event_format(&EVENT, NULL, 10) > 10);
    CHECK(ringtap_reader_events(reader, NULL, 10) > 10);
    struct ringtap_item item;
    CHECK(ringtap_print("last") == RINGTAP_OK);
    while (ringtap_reader_next(reader, &item) == RINGTAP_OK)
        ;
    CHECK(ringtap_reader_print(reader, NULL, 10) >= 0);
    CHECK(ringtap_reader_event(NULL) == NULL && ringtap_event_id(NULL) == 0);
}

/* As -1 is, or a difference of pointers in the wrong order. What is there may be read as far as a record takes it. */
static void too_long(void)
{
    static char much[1 << 20];
    memset(much, 'x', sizeof much);
    CHECK(ringtap_print_n(much, SIZE_MAX) == RINGTAP_OK);
    CHECK(ringtap_print_raw(1, much, SIZE_MAX) == RINGTAP_ERROR_TOO_LARGE);
    CHECK(ringtap_print_raw(1, much, SIZE_MAX / 2) == RINGTAP_ERROR_TOO_LARGE);
    CHECK(ringtap_print_raw(1, much, sizeof much) == RINGTAP_ERROR_TOO_LARGE);
}

/* A child of a handler, and a child of that. */
static void fork_twice(int signal)
{
    (void)signal;
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0)
            exit(7);
        int status;
        _exit(waitpid(grandchild, &status, 0) == grandchild && WEXITSTATUS(status) == 7 ? 7 : 1);
    }
    int status;
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7)
        _exit(1);
}

static void leave(int signal) { (void)signal; exit(9); }

/* A handler that ends the program may have interrupted anything. */
static void exits(void)
{
    signal(SIGALRM, fork_twice);
    for (int i = 0; i < 40; i++) {
        struct itimerval timer = {{0, 0}, {0, 500 + i * 7}};
        setitimer(ITIMER_REAL, &timer, NULL);
        do {
            for (int k = 0; k < 100; k++)
                ringtap_event_set_on(&EVENT, 1);
            getitimer(ITIMER_REAL, &timer);
        } while (timer.it_value.tv_usec > 0);
    }
    for (int i = 0; i < 40; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            signal(SIGALRM, leave);
            struct itimerval timer = {{0, 0}, {0, 500 + i * 7}};
            setitimer(ITIMER_REAL, &timer, NULL);
            for (;;)
                ringtap_event_set_on(&EVENT, 1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    }
}

/* What the system allows only to a process of one thread. */
static int is_alone(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? 1 : errno == EINVAL ? 0 : 2);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void forks(const char *socket)
{
    CHECK(ringtap_attach(socket, RINGTAP_EARLY_FAIL) == RINGTAP_OK);
    if (is_alone() == 2) {
        puts("skipped: no permission to make a user namespace");
        return;
    }
    for (int round = 0; round < 10; round++) {
        CHECK(ringtap_follow_forks(0) == RINGTAP_OK);
        CHECK(is_alone() == 1);
        CHECK(ringtap_detach() == RINGTAP_OK && ringtap_attach(socket, RINGTAP_EARLY_FAIL) == RINGTAP_OK);
        CHECK(is_alone() == 1);
        CHECK(ringtap_follow_forks(1) == RINGTAP_OK);
        CHECK(is_alone() == 0);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "exits") == 0) {
        CHECK(ringtap_init() == RINGTAP_OK);
        exits();
        return 0;
    }
    if (argc > 1) {
        forks(argv[1]);
        return 0;
    }
    ringtap_host *host;
    ringtap_reader *reader;
    CHECK(ringtap_host_new(NULL, &host) == RINGTAP_OK && ringtap_trace_to(host) == RINGTAP_OK);
    CHECK(ringtap_cursor_new(host, RINGTAP_ALL_CPUS, RINGTAP_OLDEST, &reader) == RINGTAP_OK);
    nothing_there(reader);
    too_long();
    ringtap_reader_free(reader);
    CHECK(ringtap_detach() == RINGTAP_OK);
    ringtap_host_free(host);
    return 0;
}
