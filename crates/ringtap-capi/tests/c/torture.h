/* What torture.c and its plug-in share: who writes what, counted beside the trace. */
#ifndef TORTURE_H
#define TORTURE_H

#include <stdint.h>

enum { SLOTS = 4096 };

/* One writer's: a thread, or the signal handler on one. Numbers of its events begun, and of those that were accepted. */
struct slot {
    uint64_t begun;
    uint64_t done;
};

/* In a file that all processes map. */
struct counts {
    uint32_t slots;
    uint32_t failed;
    struct slot slot[SLOTS];
};

/* Writes `events` events; the plug-in has one, too. */
typedef void work_function(struct counts *counts, uint32_t slot, uint64_t events);

#endif
