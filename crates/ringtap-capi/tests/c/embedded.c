/* All that a program does with a host of its own: writes, reads back by a reader and by cursors, is told of its errors. */
#include "check.h"
#include "fields.h"
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 4, EACH = 500 };

static void *work(void *start)
{
    for (uint64_t i = 0; i < EACH; i++)
        RINGTAP_WRITE(fields, two, (uint64_t)(uintptr_t)start + i, 0);
    return NULL;
}

static int is(const char *one, const char *other)
{
    return one && strcmp(one, other) == 0;
}

static void read_fields(ringtap_reader *reader)
{
    struct ringtap_item item;
    int64_t number;
    uint64_t natural;
    double real;
    struct ringtap_bytes bytes;
    char text[256];
    int seen = 0;
    do {
        while (ringtap_reader_next(reader, &item) == RINGTAP_OK) {
            CHECK(item.kind == RINGTAP_RECORD && item.pid == (int32_t)getpid() && item.ns > 0);
            const char *name = ringtap_reader_event(reader);
            if (is(name, "fields:signed_numbers")) {
                CHECK(ringtap_reader_int(reader, "a", &number) == RINGTAP_OK && number == -1);
                CHECK(ringtap_reader_int(reader, "e", &number) == RINGTAP_OK && number == -5);
                CHECK(ringtap_reader_uint(reader, "a", &natural) == RINGTAP_NONE);
                CHECK(ringtap_reader_int(reader, "nothing", &number) == RINGTAP_NONE);
            } else if (is(name, "fields:unsigned_numbers")) {
                CHECK(ringtap_reader_uint(reader, "d", &natural) == RINGTAP_OK && natural == UINT64_MAX);
            } else if (is(name, "fields:other_numbers")) {
                CHECK(ringtap_reader_double(reader, "a", &real) == RINGTAP_OK && real == 1.5);
                CHECK(ringtap_reader_double(reader, "b", &real) == RINGTAP_OK && real == -2.5);
            } else if (is(name, "fields:texts")) {
                CHECK(ringtap_reader_bytes(reader, "part", &bytes) == RINGTAP_OK && bytes.length == 3);
                CHECK(memcmp(bytes.start, "abc", 3) == 0);
            } else if (is(name, "fields:arrays")) {
                /* Cut between characters. */
                CHECK(ringtap_reader_bytes(reader, "e", &bytes) == RINGTAP_OK && bytes.length == 3);
                CHECK(memcmp(bytes.start, "a\xc3\xa4", 3) == 0);
            } else if (is(name, "fields:printed")) {
                CHECK(ringtap_reader_print(reader, text, sizeof text) == 20 && is(text, "::1:8080 fd=3 open=1"));
                CHECK(ringtap_reader_print(reader, text, 4) == 20 && is(text, "::1"));
            } else if (is(name, "ftrace:print")) {
                CHECK(ringtap_reader_bytes(reader, "buf", &bytes) == RINGTAP_OK);
                CHECK(bytes.length == 13 && memcmp(bytes.start, "hello marker\n", 13) == 0);
            } else {
                CHECK(name);
            }
            seen++;
        }
    } while (ringtap_reader_wait(reader, 100) == RINGTAP_OK);
    CHECK(seen == 18 + 2);
}

int main(void)
{
    ringtap_host *host = NULL;
    ringtap_reader *reader = NULL, *cursor = NULL;
    struct ringtap_config config = RINGTAP_CONFIG;
    struct ringtap_stats stats;
    uint64_t lost = 0;

    config.subbuf_size = 1000;
    CHECK(ringtap_host_new(&config, &host) == RINGTAP_ERROR_SYSTEM && host == NULL && ringtap_last_error()[0]);
    config.subbuf_size = 4096;
    CHECK(ringtap_host_new(&config, NULL) == RINGTAP_ERROR_ARGUMENT);
    CHECK(ringtap_host_new(&config, &host) == RINGTAP_OK);
    CHECK(ringtap_print("before") == RINGTAP_OFF);
    CHECK(ringtap_trace_to(NULL) == RINGTAP_ERROR_ARGUMENT);
    CHECK(ringtap_trace_to(host) == RINGTAP_OK);
    CHECK(ringtap_trace_to(host) == RINGTAP_ERROR_STATE);
    /* A library's. */
    CHECK(ringtap_init() == RINGTAP_OK && ringtap_socket() == NULL);

    CHECK(ringtap_reader_new(host, RINGTAP_ALL_CPUS, &reader) == RINGTAP_OK);
    ringtap_reader *second = NULL;
    CHECK(ringtap_reader_new(host, 0, &second) == RINGTAP_ERROR_BUSY && second == NULL);
    CHECK(ringtap_reader_new(host, 100000, &second) == RINGTAP_ERROR_ARGUMENT);
    CHECK(write_fields() == 18);
    CHECK(ringtap_print("hello marker") == RINGTAP_OK);
    CHECK(ringtap_print_raw(7, "abcd", 4) == RINGTAP_OK);

    CHECK(ringtap_cursor_new(host, RINGTAP_ALL_CPUS, RINGTAP_OLDEST, &cursor) == RINGTAP_OK);
    read_fields(cursor);
    read_fields(reader);

    /* Switched here: nothing is written, and arguments are not computed. */
    CHECK(ringtap_event_set_on(&ringtap__event_fields__two, 0) == RINGTAP_OK);
    int computed = 0;
    RINGTAP_WRITE(fields, two, (uint64_t)++computed, 0);
    CHECK(computed == 0 && !RINGTAP_IS_ON(fields, two));
    CHECK(ringtap_event_set_on(&ringtap__event_fields__two, 1) == RINGTAP_OK && RINGTAP_IS_ON(fields, two));

    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i * EACH)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(drain(cursor, &lost) == THREADS * EACH && lost == 0);
    CHECK(drain(reader, &lost) == THREADS * EACH && lost == 0);
    CHECK(ringtap_host_stats(host, &stats) == RINGTAP_OK);
    CHECK(stats.written == THREADS * EACH + 20 && stats.read == stats.written && stats.unread == 0);

    CHECK(ringtap_host_set_recording(host, 0) == RINGTAP_OK);
    CHECK(RINGTAP_TRY_WRITE(fields, none) == RINGTAP_OFF);

    struct ringtap_field odd = {"not a name", RINGTAP_U8, RINGTAP_ONE, RINGTAP_PLAIN, 0, 1, NULL, 0};
    struct ringtap_event event = {0, RINGTAP_ABI, "fields", "odd", &odd, 1, NULL, NULL, NULL};
    CHECK(ringtap_declare(&event) == RINGTAP_ERROR_ARGUMENT && strstr(ringtap_last_error(), "not a name"));
    odd.name = "b";
    event.name = "one";
    CHECK(ringtap_declare(&event) == RINGTAP_ERROR_HOST && strstr(ringtap_last_error(), "fields:one"));
    ringtap_forget(&event);
    event.abi = 99;
    CHECK(ringtap_declare(&event) == RINGTAP_ERROR_ARGUMENT && strstr(ringtap_last_error(), "compile it again"));
    CHECK(ringtap_declare(NULL) == RINGTAP_ERROR_ARGUMENT);
    CHECK(ringtap_file_open("/nonexistent", &second) == RINGTAP_ERROR_SYSTEM);
    CHECK(ringtap_file_open("/proc/self/exe", &second) == RINGTAP_ERROR_DAMAGED && second == NULL);

    ringtap_reader_free(cursor);
    ringtap_reader_free(reader);
    CHECK(ringtap_detach() == RINGTAP_OK && !RINGTAP_IS_ON(fields, two));
    ringtap_host_free(host);
    ringtap_host_free(NULL);

    /* And once more, elsewhere. */
    config.locked = 1;
    CHECK(ringtap_host_new(&config, &host) == RINGTAP_OK && ringtap_trace_to(host) == RINGTAP_OK);
    CHECK(write_fields() == 18);
    CHECK(ringtap_detach() == RINGTAP_OK);
    ringtap_host_free(host);
    return 0;
}
