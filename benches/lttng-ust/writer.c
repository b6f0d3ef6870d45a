/*
 * A process that writes LTTng-UST events on request. It speaks the workers' protocol of `src/worker.rs`:
 * on stdin the number of events to write, on stdout the nanoseconds they took on the wall's clock and of this
 * thread's CPU time, all as 64-bit little-endian numbers. It ends when stdin does.
 *
 * Usage: writer CPU ID
 */
#define _GNU_SOURCE
#include <endian.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "ringtap_bench_tp.h"

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("cannot run on the chosen CPU");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	uint64_t writer, sequence = 0, events;

	if (argc != 3) {
		fprintf(stderr, "usage: writer CPU ID\n");
		return 2;
	}
	pin(atoi(argv[1]));
	writer = strtoull(argv[2], NULL, 10);

	while (read(0, &events, sizeof(events)) == sizeof(events)) {
		uint64_t cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
		uint64_t wall = now_ns(CLOCK_MONOTONIC);
		uint64_t end = sequence + le64toh(events);
		uint64_t took[2];

		for (; sequence != end; sequence++)
			lttng_ust_tracepoint(ringtap_bench, event, writer, sequence, writer ^ sequence);
		took[0] = htole64(now_ns(CLOCK_MONOTONIC) - wall);
		took[1] = htole64(now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu);
		if (write(1, took, sizeof(took)) != sizeof(took))
			return 1;
	}
	return 0;
}
