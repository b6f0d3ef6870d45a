/* The LTTng-UST side of the comparison: one event with the payload of ringtap's, three 64-bit numbers. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER ringtap_bench

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "ringtap_bench_tp.h"

#if !defined(RINGTAP_BENCH_TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define RINGTAP_BENCH_TP_H

#include <lttng/tracepoint.h>
#include <stdint.h>

LTTNG_UST_TRACEPOINT_EVENT(
	ringtap_bench,
	event,
	LTTNG_UST_TP_ARGS(uint64_t, writer, uint64_t, sequence, uint64_t, check),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(uint64_t, writer, writer)
		lttng_ust_field_integer(uint64_t, sequence, sequence)
		lttng_ust_field_integer(uint64_t, check, check)
	)
)

#endif

#include <lttng/tracepoint-event.h>
