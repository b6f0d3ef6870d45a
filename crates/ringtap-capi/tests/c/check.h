/* What the tests' programs have in common. */
#ifndef CHECK_H
#define CHECK_H

#include <ringtap.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, ringtap_last_error()); \
            exit(1); \
        } \
    } while (0)

/* Reads until nothing comes for a while; how many records, and how many were lost. */
static inline uint64_t drain(ringtap_reader *reader, uint64_t *lost)
{
    struct ringtap_item item;
    uint64_t records = 0;
    do {
        int result;
        while ((result = ringtap_reader_next(reader, &item)) == RINGTAP_OK) {
            CHECK(item.kind != RINGTAP_DAMAGED);
            if (item.kind == RINGTAP_RECORD)
                records++;
            else
                *lost += item.lost;
        }
        CHECK(result == RINGTAP_NONE);
    } while (ringtap_reader_wait(reader, 100) == RINGTAP_OK);
    return records;
}

#endif
