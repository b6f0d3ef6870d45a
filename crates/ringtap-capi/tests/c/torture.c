/*
 * Threads, signal handlers, forked children, exec, exit and plug-ins that come and go, all at once. Each writer numbers its
 * events. Afterwards the trace must have each number that a writer was told was written, once: none is lost.
 *
 *     torture embedded|attached SEED EVENTS PLUGIN SOCKET COUNTS
 *
 * embedded: the host is in the program under torture, and its children write into it. attached: it is in the program's
 * parent. SEED chooses what children do, EVENTS how much each writer writes.
 */
#include "check.h"
#include "torture.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

RINGTAP_EVENT(torture, tick, (u32, slot), (u64, number))
RINGTAP_SPAN(torture, span, (u32, slot), (u64, number), (string, text))

enum { THREADS = 3, CHILDREN = 16, LOADS = 10 };

static struct counts *counts;
static uint64_t events;
static const char *plugin;
static char **arguments;
/* Held by who loads, and by who forks a child that will load, or exit. The C library (2.36) leaves a child the locks of dlopen,
 * dlclose and exit as some thread of its parent held them, and the child waits for them for ever: dlclose waits for the end of a
 * fork while it has exit's. */
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
/* The handler's, on this thread. */
static __thread uint32_t handlers_slot = UINT32_MAX;

static uint32_t take_slot(void)
{
    uint32_t slot = __atomic_fetch_add(&counts->slots, 1, __ATOMIC_RELAXED);
    CHECK(slot < SLOTS);
    return slot;
}

static void write_one(uint32_t slot, int with_text)
{
    struct slot *mine = &counts->slot[slot];
    uint64_t number = __atomic_fetch_add(&mine->begun, 1, __ATOMIC_RELAXED);
    int result = with_text ? RINGTAP_TRY_WRITE(torture, span_begin, slot, number, "some text")
                           : RINGTAP_TRY_WRITE(torture, tick, slot, number);
    if (result == RINGTAP_OK)
        __atomic_fetch_add(&mine->done, 1, __ATOMIC_RELAXED);
    else
        __atomic_fetch_sub(&mine->begun, 1, __ATOMIC_RELAXED);
}

static void on_signal(int number)
{
    (void)number;
    if (handlers_slot != UINT32_MAX)
        write_one(handlers_slot, 0);
}

static void begin_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval often = {{0, 500}, {0, 500}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
}

static void work_here(void)
{
    uint32_t slot = take_slot();
    handlers_slot = take_slot();
    for (uint64_t i = 0; i < events; i++)
        write_one(slot, i % 5 == 0);
    handlers_slot = UINT32_MAX;
}

static void *thread(void *unused)
{
    (void)unused;
    work_here();
    return NULL;
}

/* Writes until the process ends: as fast as it can at first, then slowly, since on a loaded machine the end may be long in
 * coming, and the reader has to keep up. */
static void *endless_thread(void *unused)
{
    (void)unused;
    uint32_t slot = take_slot();
    for (uint64_t i = 0;; i++) {
        write_one(slot, 0);
        if (i > 100000 && i % 64 == 0)
            usleep(1000);
    }
    return NULL;
}

static void load_and_unload(void)
{
    for (int i = 0; i < LOADS; i++) {
        CHECK(pthread_mutex_lock(&loading) == 0);
        void *library = dlopen(plugin, RTLD_NOW);
        pthread_mutex_unlock(&loading);
        if (!library)
            fprintf(stderr, "%s\n", dlerror());
        CHECK(library);
        work_function *work;
        *(void **)&work = dlsym(library, "work");
        CHECK(work);
        work(counts, take_slot(), events / LOADS);
        CHECK(pthread_mutex_lock(&loading) == 0);
        CHECK(dlclose(library) == 0);
        pthread_mutex_unlock(&loading);
    }
}

static void *loading_thread(void *unused)
{
    (void)unused;
    load_and_unload();
    return NULL;
}

static void start(pthread_t *threads, int count, void *(*run)(void *))
{
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, run, NULL) == 0);
}

static void join(pthread_t *threads, int count)
{
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* What becomes of a forked child. */
enum fate { EXITS, EXECUTES, LOADS_PLUGINS, FORKS };

/* A forked child's life. */
static void child(enum fate fate)
{
    pthread_t threads[2];
    begin_signals();
    switch (fate) {
    case EXITS:
        /* Leaves by exit while others write. */
        start(threads, 2, endless_thread);
        work_here();
        exit(0);
    case EXECUTES:
        /* Becomes another program while others write. */
        start(threads, 1, endless_thread);
        work_here();
        /* The timer lives on behind exec, the handler not. */
        signal(SIGALRM, SIG_IGN);
        execv(arguments[0], (char *[]){arguments[0], "executed", arguments[2], arguments[3], arguments[4],
                                           arguments[5], arguments[6], NULL});
        CHECK(!"executed");
        break;
    case LOADS_PLUGINS:
        start(threads, 1, thread);
        load_and_unload();
        join(threads, 1);
        exit(0);
    case FORKS:
        /* Its own child writes on behind its end. */
        if (fork() == 0) {
            work_here();
            _exit(0);
        }
        start(threads, 1, endless_thread);
        work_here();
        while (wait(NULL) > 0)
            ;
        _exit(0);
    }
}

static void mark(void)
{
    int result;
    /* Where writers take a lock, the one who has it may be stopped by its signal handler. */
    while ((result = ringtap_print("some children more")) == RINGTAP_ERROR_BUSY)
        ;
    CHECK(result == RINGTAP_OK);
}

static void torture(unsigned seed)
{
    pthread_t threads[THREADS], loader;
    begin_signals();
    start(threads, THREADS, thread);
    start(&loader, 1, loading_thread);
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        fflush(NULL);
        seed = seed * 1103515245u + 12345u;
        enum fate fate = seed >> 16 & 3;
        int keeps_off = fate == LOADS_PLUGINS || fate == EXITS;
        if (keeps_off)
            CHECK(pthread_mutex_lock(&loading) == 0);
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (keeps_off)
            pthread_mutex_unlock(&loading);
        if (children[i] == 0)
            child(fate);
        if (i % 4 == 3)
            mark();
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        pid_t ended;
        while ((ended = waitpid(children[i], &status, 0)) < 0)
            ;
        if (status != 0) {
            fprintf(stderr, "child %d ended with status %#x\n", i, (unsigned)status);
            __atomic_fetch_add(&counts->failed, 1, __ATOMIC_RELAXED);
        }
    }
    join(threads, THREADS);
    join(&loader, 1);
    struct itimerval never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

/* What was read. */
struct seen {
    uint64_t records, lost, markers;
    uint64_t of_slot[SLOTS];
    /* Sums of numbers and of their squares: each number once. */
    uint64_t sum[SLOTS], squares[SLOTS];
};
static struct seen seen;

static void read_more(ringtap_reader *reader, int timeout_ms)
{
    struct ringtap_item item;
    do {
        int result;
        while ((result = ringtap_reader_next(reader, &item)) == RINGTAP_OK) {
            CHECK(item.kind != RINGTAP_DAMAGED);
            if (item.kind == RINGTAP_LOST) {
                seen.lost += item.lost;
                continue;
            }
            seen.records++;
            uint64_t slot, number;
            if (ringtap_reader_uint(reader, "slot", &slot) != RINGTAP_OK) {
                seen.markers++;
                continue;
            }
            CHECK(ringtap_reader_uint(reader, "number", &number) == RINGTAP_OK && slot < SLOTS);
            seen.of_slot[slot]++;
            seen.sum[slot] += number;
            seen.squares[slot] += number * number;
        }
        CHECK(result == RINGTAP_NONE);
    } while (ringtap_reader_wait(reader, timeout_ms) == RINGTAP_OK);
}

static void verify(ringtap_host *host)
{
    struct ringtap_stats stats;
    CHECK(ringtap_host_stats(host, &stats) == RINGTAP_OK);
    uint64_t done = 0;
    for (uint32_t slot = 0; slot < counts->slots; slot++) {
        uint64_t n = seen.of_slot[slot], sum = 0, squares = 0;
        for (uint64_t i = 0; i < n; i++) {
            sum += i;
            squares += i * i;
        }
        done += counts->slot[slot].done;
        if (n < counts->slot[slot].done || n > counts->slot[slot].begun || sum != seen.sum[slot] ||
            squares != seen.squares[slot]) {
            fprintf(stderr, "writer %u: %llu written, %llu begun, %llu read\n", slot,
                    (unsigned long long)counts->slot[slot].done, (unsigned long long)counts->slot[slot].begun,
                    (unsigned long long)n);
            counts->failed++;
        }
    }
    printf("%u writers; written %llu = read %llu + lost %llu; %llu accepted, %llu refused\n", counts->slots,
           (unsigned long long)stats.written, (unsigned long long)seen.records, (unsigned long long)seen.lost,
           (unsigned long long)done, (unsigned long long)stats.refused);
    CHECK(stats.written == seen.records + seen.lost && seen.lost == 0 && stats.read == stats.written);
    CHECK(seen.markers == CHILDREN / 4);
    CHECK(counts->failed == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 7);
    arguments = argv;
    events = strtoull(argv[3], NULL, 10);
    plugin = argv[4];
    int file = open(argv[6], O_RDWR | O_CREAT, 0600);
    CHECK(file >= 0 && ftruncate(file, sizeof *counts) == 0);
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(counts != MAP_FAILED);
    close(file);

    if (strcmp(argv[1], "executed") == 0) {
        begin_signals();
        CHECK(ringtap_attach(argv[5], RINGTAP_EARLY_FAIL) == RINGTAP_OK);
        work_here();
        return 0;
    }
    if (strcmp(argv[1], "under") == 0) {
        CHECK(ringtap_attach(argv[5], RINGTAP_EARLY_FAIL) == RINGTAP_OK);
        torture((unsigned)strtoul(argv[2], NULL, 10));
        return 0;
    }

    struct ringtap_config config = RINGTAP_CONFIG;
    config.subbuf_size = 65536;
    config.ring_subbufs = 1024;
    config.buffer_percent = 0;
    ringtap_host *host;
    ringtap_reader *reader;
    CHECK(ringtap_host_new(&config, &host) == RINGTAP_OK);
    CHECK(ringtap_host_serve(host, argv[5]) == RINGTAP_OK);
    CHECK(ringtap_reader_new(host, RINGTAP_ALL_CPUS, &reader) == RINGTAP_OK);
    if (strcmp(argv[1], "embedded") == 0) {
        CHECK(ringtap_trace_to(host) == RINGTAP_OK);
        torture((unsigned)strtoul(argv[2], NULL, 10));
    } else {
        pid_t under = fork();
        CHECK(under >= 0);
        if (under == 0) {
            execv(argv[0], (char *[]){argv[0], "under", argv[2], argv[3], argv[4], argv[5], argv[6], NULL});
            _exit(127);
        }
        int status;
        while (waitpid(under, &status, WNOHANG) == 0)
            read_more(reader, 10);
        CHECK(status == 0);
    }
    read_more(reader, 200);
    verify(host);
    ringtap_reader_free(reader);
    CHECK(ringtap_detach() == RINGTAP_OK);
    ringtap_host_free(host);
    return 0;
}
