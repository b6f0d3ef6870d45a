/* A forked child loads a plug-in whose event nobody declared before: its host is the parent, if that serves. */
#include "check.h"
#include "torture.h"
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void load(const char *path, struct counts *counts)
{
    void *library = dlopen(path, RTLD_NOW);
    CHECK(library);
    work_function *work;
    *(void **)&work = dlsym(library, "work");
    work(counts, 0, 10);
    CHECK(dlclose(library) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    struct counts *counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counts != MAP_FAILED);
    ringtap_host *host;
    ringtap_reader *reader;
    CHECK(ringtap_host_new(NULL, &host) == RINGTAP_OK && ringtap_trace_to(host) == RINGTAP_OK);
    for (int is_served = 0; is_served < 2; is_served++) {
        if (is_served)
            CHECK(ringtap_host_serve(host, argv[2]) == RINGTAP_OK);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            load(argv[1], counts);
            exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(counts->slot[0].done == (is_served ? 10 : 0));
    }
    uint64_t lost = 0;
    CHECK(ringtap_reader_new(host, RINGTAP_ALL_CPUS, &reader) == RINGTAP_OK);
    CHECK(drain(reader, &lost) == 10 && lost == 0);
    ringtap_reader_free(reader);
    CHECK(ringtap_detach() == RINGTAP_OK);
    ringtap_host_free(host);
    return 0;
}
