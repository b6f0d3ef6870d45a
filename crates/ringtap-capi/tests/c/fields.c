/* Writes an event of each kind to the host of RINGTAP_SOCKET, and prints their numbers and formats. */
#include "fields.h"
#include <stdio.h>
#include <stdlib.h>

#define FORMAT(name) print_format(&ringtap__event_fields__##name)

static void print_format(const struct ringtap_event *event)
{
    char text[4096];
    long length = ringtap_event_format(event, text, sizeof text);
    if (length < 0 || (size_t)length >= sizeof text) {
        fprintf(stderr, "no format: %s\n", ringtap_last_error());
        exit(1);
    }
    printf("%d %s\n%s\f", ringtap_event_id(event), event->name, text);
}

int main(void)
{
    if (RINGTAP_IS_ON(fields, one) || RINGTAP_TRY_WRITE(fields, one, 1) != RINGTAP_OFF) {
        fprintf(stderr, "an event is on before there is a host\n");
        return 1;
    }
    if (ringtap_attach(getenv("RINGTAP_SOCKET"), RINGTAP_EARLY_FAIL) != RINGTAP_OK) {
        fprintf(stderr, "not attached: %s\n", ringtap_last_error());
        return 1;
    }
    int written = write_fields();
    if (written != 18) {
        fprintf(stderr, "%d of 18 events were written\n", written);
        return 1;
    }
    /* Texts of all lengths, at both places in a word; the longest are cut. */
    static char text[1200];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    for (uint32_t length = 0; length < 1200; length += length < 80 ? 1 : 50) {
        RINGTAP_WRITE(fields, even_text, length, text, length);
        text[length] = 0;
        RINGTAP_WRITE(fields, one_text, length, text);
        text[length] = (char)('a' + length % 26);
    }
    FORMAT(none);
    FORMAT(one);
    FORMAT(two);
    FORMAT(three);
    FORMAT(unsigned_numbers);
    FORMAT(signed_numbers);
    FORMAT(other_numbers);
    FORMAT(arrays);
    FORMAT(symbols);
    FORMAT(texts);
    FORMAT(slices);
    FORMAT(one_text);
    FORMAT(wide);
    FORMAT(printed);
    FORMAT(request_begin);
    FORMAT(request_end);
    return ringtap_detach() == RINGTAP_OK ? 0 : 1;
}
