/* Writes into a host of its own, which it serves, until its input ends. */
#include "check.h"
#include "fields.h"

int main(int argc, char **argv)
{
    ringtap_host *host;
    CHECK(argc == 2);
    CHECK(ringtap_host_new(NULL, &host) == RINGTAP_OK);
    CHECK(ringtap_host_serve(host, argv[1]) == RINGTAP_OK);
    CHECK(ringtap_host_serve(host, argv[1]) == RINGTAP_ERROR_STATE);
    CHECK(ringtap_trace_to(host) == RINGTAP_OK);
    CHECK(write_fields() == 18);
    CHECK(ringtap_print("all is written") == RINGTAP_OK);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    CHECK(ringtap_detach() == RINGTAP_OK);
    ringtap_host_free(host);
    return 0;
}
