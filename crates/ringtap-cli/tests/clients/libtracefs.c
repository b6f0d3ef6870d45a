/*
 * A client of libtracefs: writes markers into an instance of its own, reads them back by the library, and says what it
 * found. Where the library can map (1.8 and later), also by mapping.
 *
 * The library is opened at run time, so that the same program runs with every version, its headers not needed.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As libtraceevent has it. */
struct record {
	unsigned long long ts;
	unsigned long long offset;
	long long missed_events;
	int record_size;
	int size;
	const char *data;
	int cpu;
};

typedef int (*callback_t)(void *event, struct record *record, int cpu, void *context);

/* Common fields and the address stand before a marker's text, "n000042". */
#define NUMBER 17
#define MARKERS 5000

static int times_seen[MARKERS];
static int seen;
static bool in_order = true;
static unsigned long long last_time;

static void *library(const char *name)
{
	void *handle = dlopen(name, RTLD_NOW | RTLD_GLOBAL);

	if (!handle) {
		printf("missing: %s\n", dlerror());
		exit(0);
	}
	return handle;
}

static void forget(void)
{
	memset(times_seen, 0, sizeof(times_seen));
	seen = 0;
}

static void see(const char *payload)
{
	int number = atoi(payload + NUMBER);

	if (number >= 0 && number < MARKERS)
		times_seen[number]++;
	seen++;
}

static int see_record(void *event, struct record *record, int cpu, void *context)
{
	(void)event, (void)cpu, (void)context;
	see(record->data);
	in_order &= record->ts >= last_time;
	last_time = record->ts;
	return 0;
}

static bool each_once(void)
{
	for (int i = 0; i < MARKERS; i++)
		if (times_seen[i] != 1)
			return false;
	return seen == MARKERS;
}

static void stay_on(int cpu)
{
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	sched_setaffinity(0, sizeof(only), &only);
}

/* Half of them on another CPU, where there is one. */
static void write_markers(void)
{
	int fd = open("/sys/kernel/tracing/instances/lib/trace_marker", O_WRONLY);
	char text[16];

	for (int i = 0; i < MARKERS; i++) {
		int len = snprintf(text, sizeof(text), "n%06d", i);

		if (i == 0 || i == MARKERS / 2)
			stay_on(i != 0);
		if (write(fd, text, len) != len)
			perror("write");
	}
	close(fd);
}

static void *traceevent;

/* What a reader was given, as the library's kbuffer. */
static void see_buffer(void *buffer)
{
	void *(*first)(void *, unsigned long long *) =
		(void *(*)(void *, unsigned long long *))dlsym(traceevent, "kbuffer_read_event");
	void *(*next)(void *, unsigned long long *) =
		(void *(*)(void *, unsigned long long *))dlsym(traceevent, "kbuffer_next_event");
	unsigned long long time;

	for (char *payload = first(buffer, &time); payload; payload = next(buffer, &time))
		see(payload);
}

static void read_mapped(void *tracefs, void *instance)
{
	void *(*open_mapped)(void *, int, bool) = (void *(*)(void *, int, bool))dlsym(tracefs, "tracefs_cpu_open_mapped");
	bool (*is_mapped)(void *) = (bool (*)(void *))dlsym(tracefs, "tracefs_cpu_is_mapped");
	void *(*read_buf)(void *, bool) = (void *(*)(void *, bool))dlsym(tracefs, "tracefs_cpu_read_buf");
	void (*close_cpu)(void *) = (void (*)(void *))dlsym(tracefs, "tracefs_cpu_close");
	void *(*flush_buf)(void *) = (void *(*)(void *))dlsym(tracefs, "tracefs_cpu_flush_buf");

	for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
		void *buffer, *reader = open_mapped(instance, cpu, true);

		if (!reader || !is_mapped(reader)) {
			printf("CPU %d is not mapped\n", cpu);
			continue;
		}
		while ((buffer = read_buf(reader, true)))
			see_buffer(buffer);
		/* Below the watermark it is given out only by this, on the kernel's files as well. */
		while ((buffer = flush_buf(reader)))
			see_buffer(buffer);
		close_cpu(reader);
	}
	printf("mapped: each once: %d\n", each_once());
}

int main(void)
{
	traceevent = library("libtraceevent.so.1");

	void *tracefs = library("libtracefs.so.1");
	void *(*create)(const char *) = (void *(*)(const char *))dlsym(tracefs, "tracefs_instance_create");
	int (*destroy)(void *) = (int (*)(void *))dlsym(tracefs, "tracefs_instance_destroy");
	void *(*local_events)(const char *) = (void *(*)(const char *))dlsym(tracefs, "tracefs_local_events");
	int (*iterate)(void *, void *, cpu_set_t *, int, callback_t, void *) =
		(int (*)(void *, void *, cpu_set_t *, int, callback_t, void *))dlsym(tracefs, "tracefs_iterate_raw_events");
	void *instance = create("lib");
	void *events = local_events(NULL);

	if (!instance || !events) {
		printf("no instance, or no events\n");
		return 1;
	}
	write_markers();
	if (iterate(events, instance, NULL, 0, see_record, NULL))
		printf("iterating failed\n");
	printf("iterated: each once: %d, in order: %d\n", each_once(), in_order);
	forget();
	write_markers();
	if (dlsym(tracefs, "tracefs_cpu_open_mapped"))
		read_mapped(tracefs, instance);
	else
		printf("mapped: not by this version\n");
	return destroy(instance);
}
