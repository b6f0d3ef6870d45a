/* An event of each kind of field, declared in C; tests/programs.rs declares the same in Rust. */
#ifndef FIELDS_H
#define FIELDS_H

#include <ringtap.h>
#include <stdbool.h>

static const struct ringtap_symbol sources[] = {{0, "Disk"}, {1, "page cache"}};
static const struct ringtap_symbol accesses[] = {{1, "READ"}, {2, "WRITE"}};

RINGTAP_EVENT(fields, none)
RINGTAP_EVENT(fields, one, (u8, a))
RINGTAP_EVENT(fields, two, (u64, a), (u32, b))
RINGTAP_EVENT(fields, three, (u64, a), (u32, b), (u32, c))
RINGTAP_EVENT(fields, unsigned_numbers, (u8, a), (u16, b), (u32, c), (u64, d), (ulong, e))
RINGTAP_EVENT(fields, signed_numbers, (s8, a), (s64, b), (s16, c), (s32, d), (slong, e), (bool, f))
RINGTAP_EVENT(fields, other_numbers, (f32, a), (f64, b), (pointer, c), (bool, d))
RINGTAP_EVENT(fields, arrays, (array, u32, a, 3), (array, u8, b, 5), (array, s16, c, 2), (text, d, 16), (text, e, 4))
RINGTAP_EVENT(fields, symbols, (symbol, u8, source, sources), (flags, u32, access, accesses))
RINGTAP_EVENT(fields, texts, (u16, status), (string, path), (string_n, part), (u8, end))
RINGTAP_EVENT(fields, slices, (slice, u8, a), (slice, u32, b), (slice, s64, c), (slice, f64, d))
RINGTAP_EVENT(fields, one_text, (u64, took_ns), (string, path))
RINGTAP_EVENT(fields, even_text, (u32, length), (string_n, text))
RINGTAP_EVENT(fields, wide, (array, u64, a, 20), (u32, b))
RINGTAP_EVENT_PRINT(fields, printed, ("%s:%u fd=%d open=%d", "peer, port, fd, REC->fd >= 0"), (s32, fd), (u16, port),
                    (string, peer))
RINGTAP_SPAN(fields, request, (u32, user))
RINGTAP_SPAN(fields, work)

/* Writes each of them once; how many were written. */
static inline int write_fields(void)
{
    static const uint32_t words[3] = {1, 2, 3000000000u};
    static const uint8_t bytes[5] = {1, 2, 3, 4, 255};
    static const int16_t shorts[2] = {-1, 2};
    static const int64_t longs[2] = {-5, 5};
    static const double doubles[1] = {0.25};
    static const uint64_t wide[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
    const void *pointer = (const void *)(uintptr_t)0x1234;
    int written = 0;
    written += RINGTAP_TRY_WRITE(fields, none) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, one, 7) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, two, 1, 2) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, three, UINT64_MAX, 2, 3) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, unsigned_numbers, 255, 65535, 4000000000u, UINT64_MAX, 5) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, signed_numbers, -1, -2, -3, -4, -5, true) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, other_numbers, 1.5f, -2.5, pointer, false) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, arrays, words, bytes, shorts, "main", "a\xc3\xa4\xc3\xb6") == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, symbols, 1, 3) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, texts, 200, "/cart", "abcdef", 3, 9) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, slices, bytes, 5, words, 3, longs, 2, doubles, 1) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, one_text, 81250, "/cart/7") == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, wide, wide, 21) == RINGTAP_OK;
    written += RINGTAP_TRY_WRITE(fields, printed, 3, 8080, "::1") == RINGTAP_OK;
    {
        RINGTAP_SCOPE(fields, request, 7);
        RINGTAP_SCOPE(fields, work);
        written += 4;
    }
    return written;
}

#endif
