/*
 * Traces: what happens to the tasks of a group, as records in a file (proto/trace.h).
 *
 * A record is encoded into a ring in memory, which the worker's pass writes to the file. Who records never
 * waits: what finds no room there is counted. Nothing but a look at group->trace where there is none.
 *
 * Internal to pager/. On the thread of the group's worker.
 */
#pragma once

#include "pager/worker.h"
#include "proto/trace.h"

struct trace;
struct uffd_msg;

/* trace(task, TRACE_IN, .address = at, .pages = n, …) */
#define trace(whose, what, ...)                                                                    \
	do {                                                                                       \
		if (__builtin_expect((whose)->group->trace != NULL, 0))                            \
			trace_put((whose)->group->trace,                                           \
				  &(struct trace_record){                                          \
					  .kind = (what), .task = (whose)->id, __VA_ARGS__});      \
	} while (0)
/* r->time is set; what lengthens the last record becomes part of it. */
void trace_put(struct trace *trace, struct trace_record *r);

/* handle_mm_fault(), and what came of it. */
enum fault_result trace_fault_slowly(struct fault *fault);
static inline enum fault_result trace_fault(struct fault *fault)
{
	return __builtin_expect(fault->task->group->trace != NULL, 0) ? trace_fault_slowly(fault)
								       : handle_mm_fault(fault);
}
/* The outcome of a fault that waited for a file: `before` is what trace_outcomes() said then. */
uint64_t trace_outcomes(const struct task *task);
void trace_settled(struct task *task, uint64_t address, uint32_t ptid, uint64_t before);

/* Messages that have been read, not yet applied. */
void trace_messages(struct task *task, const struct uffd_msg *messages, uint32_t n);
void trace_task(struct task *task);
void trace_posted(struct task *task, const struct command *command);
/* The results from page `from` on up to n_harvested; theirs: only says why a page stayed. */
void trace_harvested(struct task *task, const struct command *command,
		     const struct exchange_command *theirs, uint32_t from);
void trace_limit(struct group *group);
void trace_armed(struct group *group);
void trace_sample(struct group *group);

/* ---- life ---- */
/* Nothing more is recorded; what has been is written. */
void trace_end(struct group *group);
/* Writes what is due. */
void traces_serve(struct worker *worker);
/* ns: when that is next. */
uint64_t traces_due(const struct worker *worker);
/* The worker ends, and does not wait long for files. */
void traces_close(struct worker *worker);
