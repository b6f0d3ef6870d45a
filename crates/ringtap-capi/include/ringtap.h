/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ringtap: trace events from C and C++ for little more than the price of reading the clock.
 *
 *     #include <ringtap.h>
 *
 *     RINGTAP_EVENT(shop, served, (u16, status), (u64, took_ns), (string, path))
 *
 *     int main(void)
 *     {
 *         ringtap_init();
 *         RINGTAP_WRITE(shop, served, 200, 81250, "/cart");
 *     }
 *
 * `ringtap stream -- ./shop` shows the events while they happen. docs/c.md is the guide.
 *
 * While an event is off, RINGTAP_WRITE costs one load and a branch, and its arguments are not computed.
 *
 * Errors. Functions that return int return RINGTAP_OK, another result that is no error (above 0), or an error (below 0)
 * whose sentence ringtap_last_error tells. Outputs are written on success alone. No function lets a C++ exception or a
 * Rust panic through.
 *
 * Threads and signals. Each function says from where it may be called:
 *     [any]     any thread, any signal handler, a forked child; nothing is allocated, no lock is taken
 *     [thread]  any thread, several at once; no signal handler
 *     [handle]  any thread, but one at a time for the same handle; no signal handler
 * A child of vfork, or of clone with CLONE_VM, must not write events.
 */
#ifndef RINGTAP_H
#define RINGTAP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What this header was made for; a library of another number refuses its declarations. */
#define RINGTAP_ABI 1u

enum ringtap_result {
    RINGTAP_OK = 0,
    /* Nothing to read now, or a wait that timed out. */
    RINGTAP_NONE = 1,
    /* The event or the recording is off: nothing was written. */
    RINGTAP_OFF = 2,
    /* A null pointer, a value out of range, a name that cannot be one. */
    RINGTAP_ERROR_ARGUMENT = -1,
    /* The operating system refused. */
    RINGTAP_ERROR_SYSTEM = -2,
    /* The host cannot be reached, or refused. */
    RINGTAP_ERROR_HOST = -3,
    /* Another reader consumes the buffer; or, of a write, another writer stopped in the middle of its event. */
    RINGTAP_ERROR_BUSY = -4,
    /* Shared memory or a file says what cannot be. */
    RINGTAP_ERROR_DAMAGED = -5,
    /* The ring is full and in discard mode; counted there. */
    RINGTAP_ERROR_FULL = -6,
    /* The event is larger than a sub-buffer takes. */
    RINGTAP_ERROR_TOO_LARGE = -7,
    /* The process traces already, or does not trace. */
    RINGTAP_ERROR_STATE = -8,
    /* A defect of the library. */
    RINGTAP_ERROR_INTERNAL = -9
};

/* The sentence of the last error of the calling thread; "" before the first. Valid until the thread's next call that
 * fails. Refused events have none: their result says all, and signal handlers write them. [thread] */
const char *ringtap_last_error(void);

/* The library's version, such as "0.1.0". [any] */
const char *ringtap_version(void);

/* ---------------------------------------------------------------------------------------------------------------
 * Where events go
 *
 * A process's declared events and markers go to one host: one in another process, or one of its own. Whatever was
 * committed there is safe from what becomes of this process: exit, exec, a signal.
 */

typedef struct ringtap_host ringtap_host;

/* Traces to the host that the environment names in RINGTAP_SOCKET (`ringtap stream -- PROGRAM` does), else to the
 * user's daemon where one runs, else into memory of the process's own, which it serves under the program's name so that
 * `ringtap stream --attach SOCKET` can look in. Libraries may call it, too: a process that traces already goes on as it
 * does, and that is RINGTAP_OK. [thread] */
int ringtap_init(void);

/* What becomes of events until there is a host. */
enum ringtap_early {
    /* There must be one: else the call fails. */
    RINGTAP_EARLY_FAIL = 0,
    /* They are off. */
    RINGTAP_EARLY_OFF = 1,
    /* They go into memory of the process's own, which the host is given as its instance early-PID. */
    RINGTAP_EARLY_HAND_OVER = 2
};

/* Traces to the host whose socket this is. RINGTAP_ERROR_STATE where the process traces already. [thread] */
int ringtap_attach(const char *socket, enum ringtap_early early);

/* Traces into a host of this process, which must stay until ringtap_detach. RINGTAP_ERROR_STATE where the process traces
 * already. [thread] */
int ringtap_trace_to(ringtap_host *host);

/* Ends that: all events are off until the next ringtap_init, ringtap_attach or ringtap_trace_to. Writes that are under
 * way in other threads are completed. [thread] */
int ringtap_detach(void);

/* Whether children of fork start threads of the library's, as they do by itself where the process traces to a host of another
 * process: they hear of switched events, resized buffers, a new host. Without them (0) a child writes on into the buffers that
 * it has, and may do what the system allows only to a process of one thread, such as unshare(CLONE_NEWUSER). [thread] */
int ringtap_follow_forks(int follow);

/* The socket under which this process's own memory is served by ringtap_init; NULL where it is not. Valid until
 * ringtap_detach. [thread] */
const char *ringtap_socket(void);

/* ---------------------------------------------------------------------------------------------------------------
 * Declarations
 */

enum ringtap_type {
    RINGTAP_U8 = 1, RINGTAP_U16, RINGTAP_U32, RINGTAP_U64,
    RINGTAP_S8, RINGTAP_S16, RINGTAP_S32, RINGTAP_S64,
    RINGTAP_ULONG, RINGTAP_SLONG, RINGTAP_BOOL, RINGTAP_POINTER,
    RINGTAP_F32, RINGTAP_F64, RINGTAP_CHAR
};

/* How many elements a field has: one, as many as it declares, or as many as each record says. */
enum ringtap_shape { RINGTAP_ONE = 0, RINGTAP_FIXED = 1, RINGTAP_DYNAMIC = 2 };

/* How a number is shown: as such, as the text of its value, as the texts of its bits. */
enum ringtap_show { RINGTAP_PLAIN = 0, RINGTAP_SYMBOL = 1, RINGTAP_FLAGS = 2 };

/* The text of a number, or of one of its bits. */
struct ringtap_symbol {
    uint64_t value;
    const char *text;
};

/* A field of an event. */
struct ringtap_field {
    const char *name;
    uint8_t type;  /* enum ringtap_type */
    uint8_t shape; /* enum ringtap_shape */
    uint8_t show;  /* enum ringtap_show */
    uint8_t reserved;
    uint32_t count; /* elements, where they are fixed */
    const struct ringtap_symbol *symbols;
    size_t symbol_count;
};

/* An event, as RINGTAP_EVENT declares it. */
struct ringtap_event {
    uint32_t on; /* the library's: whether the event is on in this process */
    uint32_t abi;
    const char *system;
    const char *name;
    const struct ringtap_field *fields;
    size_t field_count;
    const char *print;      /* the kernel's printf format; NULL: each field with its name */
    const char *print_args; /* fields and C expressions, separated by commas */
    void *known;            /* the library's */
};

/* A string's or slice's bytes. */
struct ringtap_bytes {
    const void *start;
    size_t length;
};

/* Makes an event known to the library, and registers it where the process traces, now and later. RINGTAP_EVENT calls it
 * before main, or when its shared library is loaded. Called again, it tries again, and says what is in the way. The event
 * must stay until ringtap_forget. [thread] */
int ringtap_declare(struct ringtap_event *event);

/* The event is about to go away, with the shared library that it stands in. RINGTAP_EVENT calls it. [thread] */
void ringtap_forget(struct ringtap_event *event);

/* The event's number in records; 0 while it is not registered. [any] */
int ringtap_event_id(const struct ringtap_event *event);

/* Switches the event off in this process, or lets the host decide again. [thread] */
int ringtap_event_set_on(struct ringtap_event *event, int on);

/* The event's description as the text of a kernel `format` file, without its number: what declares the same in other
 * languages. Writes at most `size` bytes with the NUL, and returns how many the whole text has without it, as snprintf
 * does; below 0 is an error. [thread] */
long ringtap_event_format(const struct ringtap_event *event, char *text, size_t size);

/* What the header's functions call, with the event's words: the first is the library's to fill. `tails` has the strings
 * and slices in the order of their fields. [any] */
int ringtap_write_short(const struct ringtap_event *event, uint64_t second, uint64_t third, size_t length);
int ringtap_write_words(const struct ringtap_event *event, uint64_t *words, size_t length);
int ringtap_write_tails(const struct ringtap_event *event, uint64_t *words, const struct ringtap_bytes *tails);
/* Puts a text into a field of `size` bytes at byte `at`, cut between characters, a NUL behind it. */
void ringtap_put_text(uint64_t *words, size_t at, size_t size, const char *text);

/* ---------------------------------------------------------------------------------------------------------------
 * Markers: text, and bytes under a number, that need no declaration
 */

/* Writes a text, as the kernel's trace_marker does. [any] */
int ringtap_print(const char *text);
/* Writes the first `length` bytes of it. [any] */
int ringtap_print_n(const char *text, size_t length);
/* Writes bytes under a number, as the kernel's trace_marker_raw does. [any] */
int ringtap_print_raw(uint32_t id, const void *bytes, size_t length);

/* ---------------------------------------------------------------------------------------------------------------
 * Hosts: the memory, in this process or another
 */

/* How a host's memory is made. RINGTAP_CONFIG has the defaults. */
struct ringtap_config {
    uint32_t subbuf_size;    /* bytes of a sub-buffer: a power of two from 4,096 to 524,288 */
    uint32_t ring_subbufs;   /* sub-buffers for each CPU: 2 to 65,535 */
    uint32_t discard;        /* refuse events when full, instead of overwriting the oldest */
    uint32_t buffer_percent; /* how full a buffer is when its reader is woken; 0: at any event */
    uint32_t locked;         /* writers take a lock, as where there are no restartable sequences */
    uint32_t off;            /* begin with recording off */
    const char *clock;       /* such as "mono", in the kernel's names; NULL: the cheapest */
    const char *directory;   /* keep the buffers as files there, which outlive a crash; NULL: memory */
};
#define RINGTAP_CONFIG {4096, 354, 0, 50, 0, 0, NULL, NULL}

/* Makes a host in this process; NULL means RINGTAP_CONFIG. [thread] */
int ringtap_host_new(const struct ringtap_config *config, ringtap_host **host);
/* Connects to a host of another process, to read and to look. NULL means the one that RINGTAP_SOCKET names. [thread] */
int ringtap_host_connect(const char *socket, ringtap_host **host);
/* Lets others attach to a host of this process, until it is freed. [handle] */
int ringtap_host_serve(ringtap_host *host, const char *socket);
/* Switches recording, for all its writers. [thread] */
int ringtap_host_set_recording(ringtap_host *host, int on);
/* Lets go of it. Its readers must be gone. [handle] */
void ringtap_host_free(ringtap_host *host);

/* Counters since the start or the last reset, over all CPUs. */
struct ringtap_stats {
    uint64_t written; /* committed: read + unread + overwritten */
    uint64_t unread;
    uint64_t overwritten;
    uint64_t read;
    uint64_t dropped; /* refused since the ring was full */
    uint64_t refused; /* refused since another writer had stopped in the middle of its event */
};
int ringtap_host_stats(ringtap_host *host, struct ringtap_stats *stats); /* [thread] */

/* ---------------------------------------------------------------------------------------------------------------
 * Reading: live buffers and files, the same way
 */

typedef struct ringtap_reader ringtap_reader;

#define RINGTAP_ALL_CPUS (-1)

/* Where a cursor begins. */
enum ringtap_start { RINGTAP_OLDEST = 0, RINGTAP_UNREAD = 1, RINGTAP_NEWEST = 2 };

/* The consuming reader of a CPU's buffer, or of all merged by time: maps them, and reads in place. There is one at a
 * time. A live reader's memory is not mapped in forked children: there it must not be used, nor freed. [handle of the host] */
int ringtap_reader_new(ringtap_host *host, int cpu, ringtap_reader **reader);
/* A reader that consumes nothing, calls nobody, and that writers never notice. Any number. [handle of the host] */
int ringtap_cursor_new(ringtap_host *host, int cpu, enum ringtap_start start, ringtap_reader **reader);
/* A trace.dat, of `ringtap record` or `trace-cmd record`. [thread] */
int ringtap_file_open(const char *path, ringtap_reader **reader);
/* [handle] */
void ringtap_reader_free(ringtap_reader *reader);

enum ringtap_kind {
    RINGTAP_RECORD = 1,
    /* Events that stood here and were overwritten, or dropped by the kernel. */
    RINGTAP_LOST = 2,
    /* The rest of a sub-buffer cannot be read. */
    RINGTAP_DAMAGED = 3
};

/* What comes next in a trace. */
struct ringtap_item {
    uint32_t kind; /* enum ringtap_kind */
    uint32_t cpu;
    uint64_t ns;   /* nanoseconds of CLOCK_MONOTONIC; of a file, as it has them */
    uint64_t lost; /* how many events; UINT64_MAX where that is not known */
    /* Of a record: its event's number, its thread, and its bytes, which are valid until the next item is asked for. A
     * consuming reader's lie where they were written: whoever may write there could change them. */
    uint32_t id;
    int32_t pid;
    const void *payload;
    size_t length;
};

/* The next item; RINGTAP_NONE where there is nothing new, or the file ends. Never blocks. Behind the last item of a live
 * buffer wait, then ask again: the newest ten microseconds may be held back, since another CPU may bring an earlier one.
 * [handle] */
int ringtap_reader_next(ringtap_reader *reader, struct ringtap_item *item);
/* Waits for more, for ever where it is below 0; RINGTAP_NONE where none came. A file's reader never waits. [handle] */
int ringtap_reader_wait(ringtap_reader *reader, int timeout_ms);
/* Of the record that came last: its event's name, as SYSTEM:NAME; NULL where nobody declared it, or what came last is no
 * record. Valid until the next item is asked for. [handle] */
const char *ringtap_reader_event(ringtap_reader *reader);
/* Of the record that came last: a field, by its name; RINGTAP_NONE where the event has none of that name and type. Bytes
 * are a text without its NUL or an array, valid until the next item is asked for. [handle] */
int ringtap_reader_int(ringtap_reader *reader, const char *field, int64_t *value);
int ringtap_reader_uint(ringtap_reader *reader, const char *field, uint64_t *value);
int ringtap_reader_double(ringtap_reader *reader, const char *field, double *value);
int ringtap_reader_bytes(ringtap_reader *reader, const char *field, struct ringtap_bytes *value);
/* Of the record that came last: what the event prints. Writes and returns as ringtap_event_format does. [handle] */
long ringtap_reader_print(ringtap_reader *reader, char *text, size_t size);
/* The names of all events that the trace declares by now, SYSTEM:NAME, one a line. Writes and returns as
 * ringtap_event_format does. [handle] */
long ringtap_reader_events(ringtap_reader *reader, char *text, size_t size);

/* Of Apache Arrow's C data interface; whoever uses it defines them. */
struct ArrowSchema;
struct ArrowArray;

/* The next records, at most `rows`, as a table: time_ns, cpu, pid, and how many events were lost before each. For one event,
 * named SYSTEM:NAME, its fields as columns; for all (NULL), their names and texts. RINGTAP_NONE where there is nothing new.
 * [handle] */
int ringtap_reader_batch(ringtap_reader *reader, const char *event, size_t rows, struct ArrowSchema *schema,
                         struct ArrowArray *array);

#ifdef __cplusplus
}
#endif

/* ===============================================================================================================
 * The declaring macros. What begins with RINGTAP__ or ringtap__ is not for direct use.
 *
 *     RINGTAP_EVENT(SYSTEM, NAME, FIELD...)     declares an event of up to 24 fields, at the level of the file
 *     RINGTAP_EVENT_PRINT(SYSTEM, NAME, (FORMAT, "ARGS"), FIELD...)    the same, printed by a format
 *     RINGTAP_WRITE(SYSTEM, NAME, VALUE...)     writes it if it is on                         [any]
 *     RINGTAP_IS_ON(SYSTEM, NAME)               whether it is on: one load                    [any]
 *
 *     RINGTAP_SPAN(SYSTEM, NAME, FIELD...)      declares NAME_begin, which has the fields, and NAME_end
 *     RINGTAP_BEGIN(SYSTEM, NAME, VALUE...)     begins one                                    [any]
 *     RINGTAP_END(SYSTEM, NAME)                 ends the thread's innermost of that name      [any]
 *     RINGTAP_SCOPE(SYSTEM, NAME, VALUE...)     begins one that ends with the enclosing block [any]
 *
 * An event may be declared in several files; it is the same one.
 *
 *     FIELD                       in C                        Rust           `format` text
 *     (u8, x) ... (u64, x)        uint8_t ... uint64_t        u8 ... u64     u8 ... u64
 *     (s8, x) ... (s64, x)        int8_t ... int64_t          i8 ... i64     s8 ... s64
 *     (ulong, x), (slong, x)      unsigned long, long         usize, isize   unsigned long, long
 *     (bool, x)                   bool                        bool           bool
 *     (pointer, x)                const void *                *const T       void *
 *     (f32, x), (f64, x)          float, double               f32, f64       float, double
 *     (symbol, u8, x, table)      uint8_t, up to uint64_t     symbols! enum  u8, printed as a symbol
 *     (flags, u32, x, table)      uint32_t, or the others     symbols! flags u32, printed as symbols
 *     (array, u32, x, 4)          const uint32_t *, 4 of them [u32; 4]       u32 x[4]; also of the other numbers
 *     (text, x, 16)               const char *, cut to 15     Text<16>       char x[16]
 *     (string, x)                 const char *                &str           __data_loc char[]
 *     (string_n, x)               const char *, size_t        &str           __data_loc char[]
 *     (slice, u16, x)             const uint16_t *, size_t    &[u16]         __data_loc u16[]; also of the others
 *
 * Tables are arrays of struct ringtap_symbol. A record with strings or slices has 1,024 bytes: what is longer is cut.
 */

#ifdef __cplusplus
#define RINGTAP__BOOL bool
#else
#define RINGTAP__BOOL _Bool
#endif

#define RINGTAP__INLINE static inline __attribute__((always_inline, unused))

/* How many fields or arguments stand behind SYSTEM and NAME, at most 48; and whether any do. */
#define RINGTAP__MORE(...) RINGTAP__LAST(__VA_ARGS__, \
    48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, \
    21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0)
#define RINGTAP__ANY(...) RINGTAP__LAST(__VA_ARGS__, \
    n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, \
    n, n, n, n, n, n, n, n, n, n, n, n, 0, 0, 0)
#define RINGTAP__LAST( \
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22, a23, \
    a24, a25, a26, a27, a28, a29, a30, a31, a32, a33, a34, a35, a36, a37, a38, a39, a40, a41, a42, a43, a44, \
    a45, a46, a47, a48, a49, a50, last, ...) last

#define RINGTAP__JOIN(a, b) RINGTAP__JOIN_(a, b)
#define RINGTAP__JOIN_(a, b) a##b
#define RINGTAP__NAME(prefix, system, name) RINGTAP__NAME_(prefix, system, name)
#define RINGTAP__NAME_(prefix, system, name) prefix##system##__##name

#define RINGTAP__EACH(count, op, ...) RINGTAP__JOIN(RINGTAP__EACH_, count)(op, __VA_ARGS__)
#define RINGTAP__EACH_1(op, a) op(a)
#define RINGTAP__EACH_2(op, a, ...) op(a) RINGTAP__EACH_1(op, __VA_ARGS__)
#define RINGTAP__EACH_3(op, a, ...) op(a) RINGTAP__EACH_2(op, __VA_ARGS__)
#define RINGTAP__EACH_4(op, a, ...) op(a) RINGTAP__EACH_3(op, __VA_ARGS__)
#define RINGTAP__EACH_5(op, a, ...) op(a) RINGTAP__EACH_4(op, __VA_ARGS__)
#define RINGTAP__EACH_6(op, a, ...) op(a) RINGTAP__EACH_5(op, __VA_ARGS__)
#define RINGTAP__EACH_7(op, a, ...) op(a) RINGTAP__EACH_6(op, __VA_ARGS__)
#define RINGTAP__EACH_8(op, a, ...) op(a) RINGTAP__EACH_7(op, __VA_ARGS__)
#define RINGTAP__EACH_9(op, a, ...) op(a) RINGTAP__EACH_8(op, __VA_ARGS__)
#define RINGTAP__EACH_10(op, a, ...) op(a) RINGTAP__EACH_9(op, __VA_ARGS__)
#define RINGTAP__EACH_11(op, a, ...) op(a) RINGTAP__EACH_10(op, __VA_ARGS__)
#define RINGTAP__EACH_12(op, a, ...) op(a) RINGTAP__EACH_11(op, __VA_ARGS__)
#define RINGTAP__EACH_13(op, a, ...) op(a) RINGTAP__EACH_12(op, __VA_ARGS__)
#define RINGTAP__EACH_14(op, a, ...) op(a) RINGTAP__EACH_13(op, __VA_ARGS__)
#define RINGTAP__EACH_15(op, a, ...) op(a) RINGTAP__EACH_14(op, __VA_ARGS__)
#define RINGTAP__EACH_16(op, a, ...) op(a) RINGTAP__EACH_15(op, __VA_ARGS__)
#define RINGTAP__EACH_17(op, a, ...) op(a) RINGTAP__EACH_16(op, __VA_ARGS__)
#define RINGTAP__EACH_18(op, a, ...) op(a) RINGTAP__EACH_17(op, __VA_ARGS__)
#define RINGTAP__EACH_19(op, a, ...) op(a) RINGTAP__EACH_18(op, __VA_ARGS__)
#define RINGTAP__EACH_20(op, a, ...) op(a) RINGTAP__EACH_19(op, __VA_ARGS__)
#define RINGTAP__EACH_21(op, a, ...) op(a) RINGTAP__EACH_20(op, __VA_ARGS__)
#define RINGTAP__EACH_22(op, a, ...) op(a) RINGTAP__EACH_21(op, __VA_ARGS__)
#define RINGTAP__EACH_23(op, a, ...) op(a) RINGTAP__EACH_22(op, __VA_ARGS__)
#define RINGTAP__EACH_24(op, a, ...) op(a) RINGTAP__EACH_23(op, __VA_ARGS__)

#define RINGTAP__LIST(count, op, ...) RINGTAP__JOIN(RINGTAP__LIST_, count)(op, __VA_ARGS__)
#define RINGTAP__LIST_1(op, a) op(a)
#define RINGTAP__LIST_2(op, a, ...) op(a), RINGTAP__LIST_1(op, __VA_ARGS__)
#define RINGTAP__LIST_3(op, a, ...) op(a), RINGTAP__LIST_2(op, __VA_ARGS__)
#define RINGTAP__LIST_4(op, a, ...) op(a), RINGTAP__LIST_3(op, __VA_ARGS__)
#define RINGTAP__LIST_5(op, a, ...) op(a), RINGTAP__LIST_4(op, __VA_ARGS__)
#define RINGTAP__LIST_6(op, a, ...) op(a), RINGTAP__LIST_5(op, __VA_ARGS__)
#define RINGTAP__LIST_7(op, a, ...) op(a), RINGTAP__LIST_6(op, __VA_ARGS__)
#define RINGTAP__LIST_8(op, a, ...) op(a), RINGTAP__LIST_7(op, __VA_ARGS__)
#define RINGTAP__LIST_9(op, a, ...) op(a), RINGTAP__LIST_8(op, __VA_ARGS__)
#define RINGTAP__LIST_10(op, a, ...) op(a), RINGTAP__LIST_9(op, __VA_ARGS__)
#define RINGTAP__LIST_11(op, a, ...) op(a), RINGTAP__LIST_10(op, __VA_ARGS__)
#define RINGTAP__LIST_12(op, a, ...) op(a), RINGTAP__LIST_11(op, __VA_ARGS__)
#define RINGTAP__LIST_13(op, a, ...) op(a), RINGTAP__LIST_12(op, __VA_ARGS__)
#define RINGTAP__LIST_14(op, a, ...) op(a), RINGTAP__LIST_13(op, __VA_ARGS__)
#define RINGTAP__LIST_15(op, a, ...) op(a), RINGTAP__LIST_14(op, __VA_ARGS__)
#define RINGTAP__LIST_16(op, a, ...) op(a), RINGTAP__LIST_15(op, __VA_ARGS__)
#define RINGTAP__LIST_17(op, a, ...) op(a), RINGTAP__LIST_16(op, __VA_ARGS__)
#define RINGTAP__LIST_18(op, a, ...) op(a), RINGTAP__LIST_17(op, __VA_ARGS__)
#define RINGTAP__LIST_19(op, a, ...) op(a), RINGTAP__LIST_18(op, __VA_ARGS__)
#define RINGTAP__LIST_20(op, a, ...) op(a), RINGTAP__LIST_19(op, __VA_ARGS__)
#define RINGTAP__LIST_21(op, a, ...) op(a), RINGTAP__LIST_20(op, __VA_ARGS__)
#define RINGTAP__LIST_22(op, a, ...) op(a), RINGTAP__LIST_21(op, __VA_ARGS__)
#define RINGTAP__LIST_23(op, a, ...) op(a), RINGTAP__LIST_22(op, __VA_ARGS__)
#define RINGTAP__LIST_24(op, a, ...) op(a), RINGTAP__LIST_23(op, __VA_ARGS__)

/* What a field is, in each place that asks. */
#define RINGTAP__PARAM(field) RINGTAP__PARAM_ field
#define RINGTAP__PARAM_(kind, ...) RINGTAP__PARAM_##kind(__VA_ARGS__)
#define RINGTAP__MEMBER(field) RINGTAP__MEMBER_ field
#define RINGTAP__MEMBER_(kind, ...) RINGTAP__MEMBER_##kind(__VA_ARGS__)
#define RINGTAP__FIELD(field) RINGTAP__FIELD_ field
#define RINGTAP__FIELD_(kind, ...) RINGTAP__FIELD_##kind(__VA_ARGS__)
#define RINGTAP__PUT(field) RINGTAP__PUT_ field
#define RINGTAP__PUT_(kind, ...) RINGTAP__PUT_##kind(__VA_ARGS__)
#define RINGTAP__TAILS(field) + RINGTAP__TAILS_ field
#define RINGTAP__TAILS_(kind, ...) RINGTAP__TAILS_##kind

/* Numbers: in C, in declarations, and as a word. stdbool.h makes another word of bool on the way here. */
#define RINGTAP__C_u8 uint8_t
#define RINGTAP__TYPE_u8 RINGTAP_U8
#define RINGTAP__WORD_u8(name) (uint8_t)(name)
#define RINGTAP__C_u16 uint16_t
#define RINGTAP__TYPE_u16 RINGTAP_U16
#define RINGTAP__WORD_u16(name) (uint16_t)(name)
#define RINGTAP__C_u32 uint32_t
#define RINGTAP__TYPE_u32 RINGTAP_U32
#define RINGTAP__WORD_u32(name) (uint32_t)(name)
#define RINGTAP__C_u64 uint64_t
#define RINGTAP__TYPE_u64 RINGTAP_U64
#define RINGTAP__WORD_u64(name) (uint64_t)(name)
#define RINGTAP__C_s8 int8_t
#define RINGTAP__TYPE_s8 RINGTAP_S8
#define RINGTAP__WORD_s8(name) (uint8_t)(name)
#define RINGTAP__C_s16 int16_t
#define RINGTAP__TYPE_s16 RINGTAP_S16
#define RINGTAP__WORD_s16(name) (uint16_t)(name)
#define RINGTAP__C_s32 int32_t
#define RINGTAP__TYPE_s32 RINGTAP_S32
#define RINGTAP__WORD_s32(name) (uint32_t)(name)
#define RINGTAP__C_s64 int64_t
#define RINGTAP__TYPE_s64 RINGTAP_S64
#define RINGTAP__WORD_s64(name) (uint64_t)(name)
#define RINGTAP__C_ulong unsigned long
#define RINGTAP__TYPE_ulong RINGTAP_ULONG
#define RINGTAP__WORD_ulong(name) (unsigned long)(name)
#define RINGTAP__C_slong long
#define RINGTAP__TYPE_slong RINGTAP_SLONG
#define RINGTAP__WORD_slong(name) (unsigned long)(name)
#define RINGTAP__C_bool RINGTAP__BOOL
#define RINGTAP__TYPE_bool RINGTAP_BOOL
#define RINGTAP__WORD_bool(name) (uint8_t)(name)
#define RINGTAP__C__Bool RINGTAP__BOOL
#define RINGTAP__TYPE__Bool RINGTAP_BOOL
#define RINGTAP__WORD__Bool(name) (uint8_t)(name)
#define RINGTAP__C_f32 float
#define RINGTAP__TYPE_f32 RINGTAP_F32
#define RINGTAP__WORD_f32(name) ringtap__f32_bits(name)
#define RINGTAP__C_f64 double
#define RINGTAP__TYPE_f64 RINGTAP_F64
#define RINGTAP__WORD_f64(name) ringtap__f64_bits(name)
#define RINGTAP__C_pointer const void *
#define RINGTAP__TYPE_pointer RINGTAP_POINTER
#define RINGTAP__WORD_pointer(name) (uintptr_t)(name)

/* A field of one number. */
#define RINGTAP__FIELD_NUMBER(kind, name) {#name, RINGTAP__TYPE_##kind, RINGTAP_ONE, RINGTAP_PLAIN, 0, 1, NULL, 0}
#define RINGTAP__PUT_NUMBER(kind, name) RINGTAP__BITS(name, RINGTAP__WORD_##kind(name))
#define RINGTAP__PARAM_u8(name) RINGTAP__C_u8 name
#define RINGTAP__MEMBER_u8(name) RINGTAP__C_u8 name;
#define RINGTAP__FIELD_u8(name) RINGTAP__FIELD_NUMBER(u8, name)
#define RINGTAP__PUT_u8(name) RINGTAP__PUT_NUMBER(u8, name)
#define RINGTAP__TAILS_u8 0
#define RINGTAP__PARAM_u16(name) RINGTAP__C_u16 name
#define RINGTAP__MEMBER_u16(name) RINGTAP__C_u16 name;
#define RINGTAP__FIELD_u16(name) RINGTAP__FIELD_NUMBER(u16, name)
#define RINGTAP__PUT_u16(name) RINGTAP__PUT_NUMBER(u16, name)
#define RINGTAP__TAILS_u16 0
#define RINGTAP__PARAM_u32(name) RINGTAP__C_u32 name
#define RINGTAP__MEMBER_u32(name) RINGTAP__C_u32 name;
#define RINGTAP__FIELD_u32(name) RINGTAP__FIELD_NUMBER(u32, name)
#define RINGTAP__PUT_u32(name) RINGTAP__PUT_NUMBER(u32, name)
#define RINGTAP__TAILS_u32 0
#define RINGTAP__PARAM_u64(name) RINGTAP__C_u64 name
#define RINGTAP__MEMBER_u64(name) RINGTAP__C_u64 name;
#define RINGTAP__FIELD_u64(name) RINGTAP__FIELD_NUMBER(u64, name)
#define RINGTAP__PUT_u64(name) RINGTAP__PUT_NUMBER(u64, name)
#define RINGTAP__TAILS_u64 0
#define RINGTAP__PARAM_s8(name) RINGTAP__C_s8 name
#define RINGTAP__MEMBER_s8(name) RINGTAP__C_s8 name;
#define RINGTAP__FIELD_s8(name) RINGTAP__FIELD_NUMBER(s8, name)
#define RINGTAP__PUT_s8(name) RINGTAP__PUT_NUMBER(s8, name)
#define RINGTAP__TAILS_s8 0
#define RINGTAP__PARAM_s16(name) RINGTAP__C_s16 name
#define RINGTAP__MEMBER_s16(name) RINGTAP__C_s16 name;
#define RINGTAP__FIELD_s16(name) RINGTAP__FIELD_NUMBER(s16, name)
#define RINGTAP__PUT_s16(name) RINGTAP__PUT_NUMBER(s16, name)
#define RINGTAP__TAILS_s16 0
#define RINGTAP__PARAM_s32(name) RINGTAP__C_s32 name
#define RINGTAP__MEMBER_s32(name) RINGTAP__C_s32 name;
#define RINGTAP__FIELD_s32(name) RINGTAP__FIELD_NUMBER(s32, name)
#define RINGTAP__PUT_s32(name) RINGTAP__PUT_NUMBER(s32, name)
#define RINGTAP__TAILS_s32 0
#define RINGTAP__PARAM_s64(name) RINGTAP__C_s64 name
#define RINGTAP__MEMBER_s64(name) RINGTAP__C_s64 name;
#define RINGTAP__FIELD_s64(name) RINGTAP__FIELD_NUMBER(s64, name)
#define RINGTAP__PUT_s64(name) RINGTAP__PUT_NUMBER(s64, name)
#define RINGTAP__TAILS_s64 0
#define RINGTAP__PARAM_ulong(name) RINGTAP__C_ulong name
#define RINGTAP__MEMBER_ulong(name) RINGTAP__C_ulong name;
#define RINGTAP__FIELD_ulong(name) RINGTAP__FIELD_NUMBER(ulong, name)
#define RINGTAP__PUT_ulong(name) RINGTAP__PUT_NUMBER(ulong, name)
#define RINGTAP__TAILS_ulong 0
#define RINGTAP__PARAM_slong(name) RINGTAP__C_slong name
#define RINGTAP__MEMBER_slong(name) RINGTAP__C_slong name;
#define RINGTAP__FIELD_slong(name) RINGTAP__FIELD_NUMBER(slong, name)
#define RINGTAP__PUT_slong(name) RINGTAP__PUT_NUMBER(slong, name)
#define RINGTAP__TAILS_slong 0
#define RINGTAP__PARAM_bool(name) RINGTAP__C_bool name
#define RINGTAP__MEMBER_bool(name) RINGTAP__C_bool name;
#define RINGTAP__FIELD_bool(name) RINGTAP__FIELD_NUMBER(bool, name)
#define RINGTAP__PUT_bool(name) RINGTAP__PUT_NUMBER(bool, name)
#define RINGTAP__TAILS_bool 0
#define RINGTAP__PARAM__Bool(name) RINGTAP__C__Bool name
#define RINGTAP__MEMBER__Bool(name) RINGTAP__C__Bool name;
#define RINGTAP__FIELD__Bool(name) RINGTAP__FIELD_NUMBER(_Bool, name)
#define RINGTAP__PUT__Bool(name) RINGTAP__PUT_NUMBER(_Bool, name)
#define RINGTAP__TAILS__Bool 0
#define RINGTAP__PARAM_f32(name) RINGTAP__C_f32 name
#define RINGTAP__MEMBER_f32(name) RINGTAP__C_f32 name;
#define RINGTAP__FIELD_f32(name) RINGTAP__FIELD_NUMBER(f32, name)
#define RINGTAP__PUT_f32(name) RINGTAP__PUT_NUMBER(f32, name)
#define RINGTAP__TAILS_f32 0
#define RINGTAP__PARAM_f64(name) RINGTAP__C_f64 name
#define RINGTAP__MEMBER_f64(name) RINGTAP__C_f64 name;
#define RINGTAP__FIELD_f64(name) RINGTAP__FIELD_NUMBER(f64, name)
#define RINGTAP__PUT_f64(name) RINGTAP__PUT_NUMBER(f64, name)
#define RINGTAP__TAILS_f64 0
#define RINGTAP__PARAM_pointer(name) RINGTAP__C_pointer name
#define RINGTAP__MEMBER_pointer(name) RINGTAP__C_pointer name;
#define RINGTAP__FIELD_pointer(name) RINGTAP__FIELD_NUMBER(pointer, name)
#define RINGTAP__PUT_pointer(name) RINGTAP__PUT_NUMBER(pointer, name)
#define RINGTAP__TAILS_pointer 0

/* (array, u32, name, 4) */
#define RINGTAP__PARAM_array(kind, name, count) const RINGTAP__C_##kind *name
#define RINGTAP__MEMBER_array(kind, name, count) RINGTAP__C_##kind name[count];
#define RINGTAP__FIELD_array(kind, name, count) \
    {#name, RINGTAP__TYPE_##kind, RINGTAP_FIXED, RINGTAP_PLAIN, 0, count, NULL, 0}
#define RINGTAP__PUT_array(kind, name, count) RINGTAP__BYTES(name)
#define RINGTAP__TAILS_array 0
/* (slice, u32, name) */
#define RINGTAP__PARAM_slice(kind, name) const RINGTAP__C_##kind *name, size_t name##_count
#define RINGTAP__MEMBER_slice(kind, name) uint32_t name;
#define RINGTAP__FIELD_slice(kind, name) \
    {#name, RINGTAP__TYPE_##kind, RINGTAP_DYNAMIC, RINGTAP_PLAIN, 0, 0, NULL, 0}
#define RINGTAP__PUT_slice(kind, name) RINGTAP__TAIL(name, name##_count * sizeof *(name))
#define RINGTAP__TAILS_slice 1
/* (symbol, u8, name, table) and (flags, u32, name, table) */
#define RINGTAP__SHOWN(kind, name, show, table) \
    {#name, RINGTAP__TYPE_##kind, RINGTAP_ONE, show, 0, 1, table, sizeof(table) / sizeof(table)[0]}
#define RINGTAP__PARAM_symbol(kind, name, table) RINGTAP__C_##kind name
#define RINGTAP__MEMBER_symbol(kind, name, table) RINGTAP__C_##kind name;
#define RINGTAP__FIELD_symbol(kind, name, table) RINGTAP__SHOWN(kind, name, RINGTAP_SYMBOL, table)
#define RINGTAP__PUT_symbol(kind, name, table) RINGTAP__PUT_NUMBER(kind, name)
#define RINGTAP__TAILS_symbol 0
#define RINGTAP__PARAM_flags(kind, name, table) RINGTAP__C_##kind name
#define RINGTAP__MEMBER_flags(kind, name, table) RINGTAP__C_##kind name;
#define RINGTAP__FIELD_flags(kind, name, table) RINGTAP__SHOWN(kind, name, RINGTAP_FLAGS, table)
#define RINGTAP__PUT_flags(kind, name, table) RINGTAP__PUT_NUMBER(kind, name)
#define RINGTAP__TAILS_flags 0
/* (text, name, 16) */
#define RINGTAP__PARAM_text(name, size) const char *name
#define RINGTAP__MEMBER_text(name, size) char name[size];
#define RINGTAP__FIELD_text(name, size) {#name, RINGTAP_CHAR, RINGTAP_FIXED, RINGTAP_PLAIN, 0, size, NULL, 0}
#define RINGTAP__PUT_text(name, size) \
    ringtap_put_text(ringtap__words, offsetof(ringtap__layout, name), size, name);
#define RINGTAP__TAILS_text 0
/* (string, name) */
#define RINGTAP__PARAM_string(name) const char *name
#define RINGTAP__MEMBER_string(name) uint32_t name;
#define RINGTAP__FIELD_string(name) {#name, RINGTAP_CHAR, RINGTAP_DYNAMIC, RINGTAP_PLAIN, 0, 0, NULL, 0}
#define RINGTAP__PUT_string(name) RINGTAP__TEXT(name, name ? strlen(name) : 0)
#define RINGTAP__TAILS_string 1
/* (string_n, name): of a text that says its length */
#define RINGTAP__PARAM_string_n(name) const char *name, size_t name##_count
#define RINGTAP__MEMBER_string_n(name) uint32_t name;
#define RINGTAP__FIELD_string_n(name) RINGTAP__FIELD_string(name)
#define RINGTAP__PUT_string_n(name) RINGTAP__TEXT(name, name ? name##_count : 0)
#define RINGTAP__TAILS_string_n 1

/* Records are built in whole words: narrow stores that are loaded as wide ones would stall. */
#define RINGTAP__BITS(name, bits) ringtap__put(ringtap__words, offsetof(ringtap__layout, name), (bits));
#define RINGTAP__BYTES(name) \
    ringtap__put_bytes(ringtap__words, offsetof(ringtap__layout, name), (name), sizeof(((ringtap__layout *)0)->name));
#define RINGTAP__TAIL(from, bytes) \
    ringtap__tails[ringtap__tail].start = (from); \
    ringtap__tails[ringtap__tail++].length = (bytes);
/* A string. Where it is the last field, and no other is a string or slice, the record is built here, where its layout is
 * known to the compiler; unless it is long. */
#define RINGTAP__TEXT(from, bytes) \
    RINGTAP__TAIL(from, bytes) \
    if (ringtap__tail_count == 1 && offsetof(ringtap__layout, from) + 4 == ringtap__length && \
        ringtap__tails[0].length <= RINGTAP__SHORT_TEXT) { \
        uint64_t ringtap__record[RINGTAP__WORDS(ringtap__length) + RINGTAP__SHORT_TEXT / 8 + 2]; \
        size_t ringtap__end = ringtap__put_last(ringtap__record, ringtap__words, ringtap__length, (from), \
                                                ringtap__tails[0].length); \
        return ringtap_write_words(ringtap__event, ringtap__record, ringtap__end); \
    }
/* Bytes of such a string. */
#define RINGTAP__SHORT_TEXT 247

/* Zeros, word by word, so that nearly all are found to be overwritten: of = {0}, compilers make a `rep stos` in code that they
 * take for rare, as that of an event's is, and it takes as long as the rest of the event. */
RINGTAP__INLINE void ringtap__clear(uint64_t *words, size_t count)
{
    words[0] = words[1] = words[2] = 0;
    if (count > 3)
        words[3] = 0;
    if (count > 4)
        words[4] = 0;
    if (count > 5)
        words[5] = 0;
    if (count > 6)
        words[6] = 0;
    if (count > 7)
        words[7] = 0;
    for (size_t i = 8; i < count; i++)
        words[i] = 0;
}

RINGTAP__INLINE void ringtap__put(uint64_t *words, size_t at, uint64_t bits)
{
    words[at / 8] |= bits << (at % 8 * 8);
}

RINGTAP__INLINE void ringtap__put_bytes(uint64_t *words, size_t at, const void *from, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)from;
    size_t done = 0;
    if (at % 8 == 0) {
        for (; done + 8 <= length; done += 8) {
            uint64_t word;
            memcpy(&word, bytes + done, 8);
            words[(at + done) / 8] = word;
        }
    }
    for (; done < length; done++)
        ringtap__put(words, at + done, bytes[done]);
}

/* The word of 0 to 7 bytes, zero behind them. */
RINGTAP__INLINE uint64_t ringtap__short_word(const unsigned char *bytes, size_t length)
{
    if (length >= 4) {
        /* Two loads that overlap instead of one for each byte. */
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + length - 4, 4);
        return low | (uint64_t)high << (8 * (length - 4));
    }
    if (length == 0)
        return 0;
    return bytes[0] | (uint64_t)bytes[length / 2] << (8 * (length / 2)) |
           (uint64_t)bytes[length - 1] << (8 * (length - 1));
}

/* Builds the record of an event that ends with its only string: the fixed words, of which the last four bytes before `at` say
 * where the text is, and the text. Returns its length. */
RINGTAP__INLINE size_t ringtap__put_last(uint64_t *record, const uint64_t *words, size_t at, const char *text,
                                         size_t length)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t whole = at / 8, left = length;
    uint64_t place = ((uint64_t)length + 1) << 16 | at, before = 0, last;
    uint64_t *to = record + whole;
    /* The first word is the library's. */
    for (size_t i = 1; i < whole; i++)
        record[i] = words[i];
    if (at % 8)
        before = words[whole] | place;
    else
        record[whole - 1] |= place << 32;
    for (; left >= 8; left -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        /* Or it would become a call of memcpy, which is dearer. */
        __asm__("" : "+r"(word));
        *to++ = at % 8 ? before | word << 32 : word;
        before = word >> 32;
    }
    last = ringtap__short_word(bytes, left);
    if (at % 8) {
        *to++ = before | last << 32;
        *to = last >> 32;
    } else {
        *to = last;
    }
    /* With the NUL. */
    return (at + length + 4) / 4 * 4;
}

RINGTAP__INLINE uint64_t ringtap__f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

RINGTAP__INLINE uint64_t ringtap__f64_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

RINGTAP__INLINE int ringtap__is_on(const struct ringtap_event *event)
{
    /* Relaxed: an event about to be written while it is switched may be either. */
    return __builtin_expect(__atomic_load_n(&event->on, __ATOMIC_RELAXED) != 0, 0) != 0;
}

/* A record without strings and slices. In a library call's registers where it fits there. */
RINGTAP__INLINE int ringtap__write(const struct ringtap_event *event, uint64_t *words, size_t length)
{
    if (length <= 24)
        return ringtap_write_short(event, words[1], words[2], length);
    return ringtap_write_words(event, words, length);
}

/* Bytes of a record that ends there: whole words of 4 bytes, and not 8, of which the ring makes 12. */
#define RINGTAP__LENGTH(end) ((end) <= 8 ? 12 : ((end) + 3) / 4 * 4)
/* Its words of 8 bytes; three at least, which travel in registers. */
#define RINGTAP__WORDS(end) ((end) <= 24 ? 3 : ((end) + 7) / 8)

/* The event, and how it becomes known before anything else of its file runs. */
#define RINGTAP__STATIC(system, name, fields, count, print, args) \
    static struct ringtap_event RINGTAP__NAME(ringtap__event_, system, name) = { \
        0, RINGTAP_ABI, #system, #name, fields, count, print, args, NULL}; \
    __attribute__((constructor, used)) static void RINGTAP__NAME(ringtap__declare_, system, name)(void) \
    { \
        (void)ringtap_declare(&RINGTAP__NAME(ringtap__event_, system, name)); \
    } \
    __attribute__((destructor, used)) static void RINGTAP__NAME(ringtap__forget_, system, name)(void) \
    { \
        ringtap_forget(&RINGTAP__NAME(ringtap__event_, system, name)); \
    }

#define RINGTAP_EVENT(...) RINGTAP__JOIN(RINGTAP__EVENT_, RINGTAP__ANY(__VA_ARGS__))(__VA_ARGS__)
#define RINGTAP__EVENT_0(system, name) RINGTAP__BARE(system, name, NULL, NULL)
#define RINGTAP__EVENT_n(system, name, ...) \
    RINGTAP__DECLARE(RINGTAP__MORE(system, name, __VA_ARGS__), system, name, NULL, NULL, __VA_ARGS__)

#define RINGTAP_EVENT_PRINT(system, name, print, ...) \
    RINGTAP__DECLARE(RINGTAP__MORE(system, name, __VA_ARGS__), system, name, RINGTAP__FIRST print, \
                     RINGTAP__SECOND print, __VA_ARGS__)
#define RINGTAP__FIRST(first, second) first
#define RINGTAP__SECOND(first, second) second

#define RINGTAP__BARE(system, name, print, args) \
    RINGTAP__STATIC(system, name, NULL, 0, print, args) \
    RINGTAP__INLINE int RINGTAP__NAME(ringtap__write_, system, name)(void) \
    { \
        return ringtap_write_short(&RINGTAP__NAME(ringtap__event_, system, name), 0, 0, 12); \
    }

#define RINGTAP__DECLARE(count, system, name, print, args, ...) \
    static const struct ringtap_field RINGTAP__NAME(ringtap__fields_, system, name)[count] = { \
        RINGTAP__LIST(count, RINGTAP__FIELD, __VA_ARGS__)}; \
    RINGTAP__STATIC(system, name, RINGTAP__NAME(ringtap__fields_, system, name), count, print, args) \
    struct RINGTAP__NAME(ringtap__layout_, system, name) { \
        uint64_t ringtap__common; \
        RINGTAP__EACH(count, RINGTAP__MEMBER, __VA_ARGS__) \
        char ringtap__end; \
    }; \
    RINGTAP__INLINE int RINGTAP__NAME(ringtap__write_, system, name)( \
        RINGTAP__LIST(count, RINGTAP__PARAM, __VA_ARGS__)) \
    { \
        typedef struct RINGTAP__NAME(ringtap__layout_, system, name) ringtap__layout; \
        enum { \
            ringtap__tail_count = 0 RINGTAP__EACH(count, RINGTAP__TAILS, __VA_ARGS__), \
            ringtap__length = offsetof(ringtap__layout, ringtap__end) \
        }; \
        const struct ringtap_event *ringtap__event = &RINGTAP__NAME(ringtap__event_, system, name); \
        uint64_t ringtap__words[RINGTAP__WORDS(ringtap__length)]; \
        struct ringtap_bytes ringtap__tails[ringtap__tail_count + 1]; \
        unsigned ringtap__tail = 0; \
        ringtap__clear(ringtap__words, RINGTAP__WORDS(ringtap__length)); \
        ringtap__tails[ringtap__tail_count].start = NULL; \
        ringtap__tails[ringtap__tail_count].length = 0; \
        RINGTAP__EACH(count, RINGTAP__PUT, __VA_ARGS__) \
        (void)ringtap__tail; \
        if (ringtap__tail_count > 0) \
            return ringtap_write_tails(ringtap__event, ringtap__words, ringtap__tails); \
        return ringtap__write(ringtap__event, ringtap__words, RINGTAP__LENGTH(ringtap__length)); \
    }

#define RINGTAP_IS_ON(system, name) ringtap__is_on(&RINGTAP__NAME(ringtap__event_, system, name))

#define RINGTAP_WRITE(...) RINGTAP__JOIN(RINGTAP__WRITE_, RINGTAP__ANY(__VA_ARGS__))(__VA_ARGS__)
#define RINGTAP__WRITE_0(system, name) \
    do { \
        if (RINGTAP_IS_ON(system, name)) \
            (void)RINGTAP__NAME(ringtap__write_, system, name)(); \
    } while (0)
#define RINGTAP__WRITE_n(system, name, ...) \
    do { \
        if (RINGTAP_IS_ON(system, name)) \
            (void)RINGTAP__NAME(ringtap__write_, system, name)(__VA_ARGS__); \
    } while (0)

/* As RINGTAP_WRITE, with the result of the write as the expression's value. */
#define RINGTAP_TRY_WRITE(...) RINGTAP__JOIN(RINGTAP__TRY_, RINGTAP__ANY(__VA_ARGS__))(__VA_ARGS__)
#define RINGTAP__TRY_0(system, name) \
    (RINGTAP_IS_ON(system, name) ? RINGTAP__NAME(ringtap__write_, system, name)() : (int)RINGTAP_OFF)
#define RINGTAP__TRY_n(system, name, ...) \
    (RINGTAP_IS_ON(system, name) ? RINGTAP__NAME(ringtap__write_, system, name)(__VA_ARGS__) : (int)RINGTAP_OFF)

#define RINGTAP_SPAN(...) RINGTAP__JOIN(RINGTAP__SPAN_, RINGTAP__ANY(__VA_ARGS__))(__VA_ARGS__)
#define RINGTAP__SPAN_0(system, name) RINGTAP_EVENT(system, name##_begin) RINGTAP__SPAN_END(system, name)
#define RINGTAP__SPAN_n(system, name, ...) \
    RINGTAP_EVENT(system, name##_begin, __VA_ARGS__) RINGTAP__SPAN_END(system, name)
#define RINGTAP__SPAN_END(system, name) \
    RINGTAP_EVENT(system, name##_end) \
    RINGTAP__INLINE void RINGTAP__NAME(ringtap__leave_, system, name)(const int *begun) \
    { \
        if (*begun == RINGTAP_OK) \
            RINGTAP_WRITE(system, name##_end); \
    }

#define RINGTAP_BEGIN(...) RINGTAP__JOIN(RINGTAP__BEGIN_, RINGTAP__ANY(__VA_ARGS__))(__VA_ARGS__)
#define RINGTAP__BEGIN_0(system, name) RINGTAP_WRITE(system, name##_begin)
#define RINGTAP__BEGIN_n(system, name, ...) RINGTAP_WRITE(system, name##_begin, __VA_ARGS__)
#define RINGTAP_END(system, name) RINGTAP_WRITE(system, name##_end)

#define RINGTAP_SCOPE(...) RINGTAP__JOIN(RINGTAP__SCOPE_, RINGTAP__ANY(__VA_ARGS__))(__VA_ARGS__)
#define RINGTAP__SCOPE_0(system, name) RINGTAP__SCOPE_OF(system, name, RINGTAP_TRY_WRITE(system, name##_begin))
#define RINGTAP__SCOPE_n(system, name, ...) \
    RINGTAP__SCOPE_OF(system, name, RINGTAP_TRY_WRITE(system, name##_begin, __VA_ARGS__))
#define RINGTAP__SCOPE_OF(system, name, begin) \
    __attribute__((cleanup(ringtap__leave_##system##__##name), unused)) const int \
        RINGTAP__JOIN(ringtap__scope_##system##__##name##_, __LINE__) = begin

#endif
