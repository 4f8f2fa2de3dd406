#include "traces.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "log.h"
#include "registry.h"
#include "varlink.h"

struct trace_call {
	LIST_ENTRY(trace_call) entry;
	struct traces *traces;
	struct varlink_call *call;
	const struct group *group; /* NULL: it has ended */
	uint64_t id;
};

void traces_init(struct traces *traces, struct pager *pager)
{
	traces->pager = pager;
	LIST_INIT(&traces->list);
}

static const char *what_failed(int error)
{
	switch (error) {
	case EBUSY:
		return "the group is being traced already";
	case ETIMEDOUT:
		return "the file takes nothing any more";
	default:
		return "writing the trace";
	}
}

static void fail(struct varlink_call *call, int error)
{
	varlink_error(call, "io.upager.Pager.Failed",
		      json_pack("{s:s,s:i}", "what", what_failed(error), "errno", error));
}

static json_t *result(const struct pager_trace_stat *stat)
{
	return json_pack("{s:I,s:I,s:I}", "records", (json_int_t)stat->records, "dropped",
			 (json_int_t)stat->dropped, "bytes", (json_int_t)stat->bytes);
}

static void on_cancelled(struct varlink_call *call)
{
	struct trace_call *t = call->state;

	LIST_REMOVE(t, entry);
	pager_trace_end(t->traces->pager, t->id);
	free(t);
}

void traces_start(struct traces *traces, struct group *group, int fd, struct varlink_call *call)
{
	struct trace_call *t = malloc(sizeof(*t));
	uint64_t id = 0;
	int r = -ENOMEM;

	if (t)
		r = pager_trace(group->pager, fd, &id);
	else
		close(fd);
	if (r < 0) {
		free(t);
		fail(call, -r);
		return;
	}
	log_info("group %s: being traced", group->name);
	*t = (struct trace_call){.traces = traces, .call = call, .group = group, .id = id};
	call->state = t;
	call->cancelled = on_cancelled;
	LIST_INSERT_HEAD(&traces->list, t, entry);
	if (call->more)
		varlink_reply(call, result(&(struct pager_trace_stat){0}), true);
}

bool traces_end(struct traces *traces, const struct group *group)
{
	const struct trace_call *t;

	LIST_FOREACH (t, &traces->list, entry) {
		if (t->group != group)
			continue;
		pager_trace_end(traces->pager, t->id);
		return true;
	}
	return false;
}

void traces_group_ended(struct traces *traces, const struct group *group)
{
	struct trace_call *t;

	LIST_FOREACH (t, &traces->list, entry)
		if (t->group == group)
			t->group = NULL;
}

static void log_end(const struct pager_notice *notice)
{
	const struct pager_trace_stat *stat = &notice->trace;
	char size[24];

	if (notice->value)
		log_limited(LOG_WARNING, "a trace has ended too soon: %s: %s",
			    what_failed((int)notice->value), strerror((int)notice->value));
	else
		log_info("a trace has ended: %" PRIu64 " records, %s, %" PRIu64 " dropped",
			 stat->records, size_format(stat->bytes, size), stat->dropped);
}

void traces_ended(struct traces *traces, const struct pager_notice *notice)
{
	struct trace_call *t;

	log_end(notice);
	LIST_FOREACH (t, &traces->list, entry)
		if (t->id == notice->trace.id)
			break;
	if (!t) /* nobody waits any more */
		return;
	LIST_REMOVE(t, entry);
	if (notice->value)
		fail(t->call, (int)notice->value);
	else
		varlink_reply(t->call, result(&notice->trace), false);
	free(t);
}

bool traces_are_over(const struct traces *traces)
{
	return LIST_EMPTY(&traces->list);
}
