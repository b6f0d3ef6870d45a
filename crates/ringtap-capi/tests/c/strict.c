/* All that the header declares, for compilers that are told to complain of more than they do by themselves. */
#include <ringtap.h>
static const struct ringtap_symbol sources[] = {{0, "disk"}, {1, "cache"}};
RINGTAP_EVENT(s, none)
RINGTAP_EVENT(s, nums, (u8, a), (u16, b), (u32, c), (u64, d), (s8, e), (s16, f), (s32, g), (s64, h), (ulong, i), (slong, j), (bool, k), (pointer, l), (f32, m), (f64, n))
RINGTAP_EVENT(s, arrs, (array, u32, a, 3), (array, u8, b, 5), (array, f64, c, 2), (text, d, 16), (array, bool, e, 3))
RINGTAP_EVENT(s, shown, (symbol, u8, a, sources), (flags, u32, b, sources))
RINGTAP_EVENT(s, strs, (u16, a), (string, b), (string_n, c), (slice, s16, d), (slice, f32, e))
RINGTAP_EVENT(s, one, (string, b))
RINGTAP_EVENT(s, onen, (u64, x), (string_n, b))
RINGTAP_EVENT_PRINT(s, printed, ("%u", "a"), (u32, a))
RINGTAP_SPAN(s, span, (u32, a))
RINGTAP_SPAN(s, bare)
int go(const char *t);
int go(const char *t)
{
    unsigned small = 3;
    uint32_t a[3] = {1, 2, 3}; uint8_t b[5] = {0, 0, 0, 0, 0}; double c[2] = {1, 2}; int16_t d[1] = {4}; float e[1] = {1};
    RINGTAP__BOOL f[3] = {1, 0, 1};
    RINGTAP_WRITE(s, none);
    RINGTAP_WRITE(s, nums, 1, 2, small, 4, -1, -2, -3, -4, 5, -5, 1, t, 1.5f, 2.5);
    RINGTAP_WRITE(s, arrs, a, b, c, t, f);
    if (small) RINGTAP_WRITE(s, shown, 1, 2); else RINGTAP_WRITE(s, none);
    RINGTAP_WRITE(s, strs, 1, t, t, 3, d, 1, e, 1);
    RINGTAP_WRITE(s, one, t);
    RINGTAP_WRITE(s, onen, 1, t, 2);
    RINGTAP_WRITE(s, printed, 7);
    RINGTAP_SCOPE(s, span, 7);
    RINGTAP_SCOPE(s, bare);
    RINGTAP_BEGIN(s, bare); RINGTAP_END(s, bare);
    return RINGTAP_TRY_WRITE(s, none) + RINGTAP_TRY_WRITE(s, one, t) + RINGTAP_IS_ON(s, none);
}
