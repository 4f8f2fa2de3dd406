/*
 * What a replacement policy makes of a trace. Two kinds of it: references, that know what no pager
 * knows (the future, or every touch), and the pager's own policies in a model of the pager, which know
 * what it knows. Nothing of the kernel's is needed.
 */
#pragma once

#include <stdint.h>

#include "trace.h"

struct victim_policy;

/* Of the measured part of a trace. */
struct outcome {
	uint64_t touches;
	uint64_t fresh;   /* pages touched for the first time: no read */
	uint64_t faults;  /* touches that waited for a read */
	uint64_t reads;   /* pages read, readahead too; the references have none */
	uint64_t standby; /* touches that found their page on standby */
	uint64_t out;     /* pages that left */
	uint64_t out_runs; /* … in so many runs of neighbours */
	uint64_t writes;  /* … that had been written to since they came in */
	double us;        /* estimated, all together */
};

/* Microseconds, measured on the pager (docs/performance.md). */
#define COST_FRESH   9.0  /* a fault that is answered with zeros */
#define COST_STANDBY 10.0
#define COST_FAULT   66.0 /* a fault that waits for a read … */
#define COST_READ    4.0  /* … and each page that it brings */
#define COST_RUN     2.5  /* what leaves: a run … */
#define COST_OUT     1.5  /* … and each page of it */

/* Told now and then how much of the trace is done. */
typedef void sim_progress(uint64_t done, uint64_t all);

struct reference {
	const char *name, *knows;
	void (*run)(const struct trace *trace, uint32_t limit, struct outcome *ret);
};
extern const struct reference references[]; /* ends with name NULL */

void reference_run(const struct reference *reference, const struct trace *trace, uint32_t limit,
		   sim_progress *progress, struct outcome *ret);

/* What of the model can be turned. */
struct model {
	const struct victim_policy *policy;
	uint32_t limit;         /* pages */
	uint32_t frames;        /* pages for standby; 0: as many as the pager takes */
	uint32_t readahead;     /* largest window */
};

void model_run(const struct model *model, const struct trace *trace, sim_progress *progress,
	       struct outcome *ret);

/* => called by both once a touch. */
static inline void sim_tell(sim_progress *progress, uint64_t done, uint64_t all)
{
	if (progress && done % 65536 == 0)
		progress(done, all);
}
