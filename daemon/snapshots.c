#include "snapshots.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "log.h"
#include "varlink.h"

struct snapshot_call {
	struct snapshot_caller caller;
	struct snapshots *snapshots;
	struct varlink_call *call;
};

void snapshots_init(struct snapshots *snapshots, struct pager *pager)
{
	snapshots->pager = pager;
	LIST_INIT(&snapshots->list);
}

static const char *what_failed(int error)
{
	switch (error) {
	case EBUSY:
		return "another snapshot of the process is being made";
	case ESRCH:
		return "the process has ended";
	case EOPNOTSUPP:
		return "the process is not evictable";
	case EFAULT:
		return "not all of the range is memory that is paged";
	case EAGAIN:
		return "its memory did not stand still for a moment";
	case ETIMEDOUT:
		return "the file takes nothing any more";
	default:
		return "writing the snapshot";
	}
}

static void log_end(const struct pager_notice *notice)
{
	const struct pager_snapshot_stat *stat = &notice->snapshot;
	char size[24], lost[24];

	if (notice->value == 0)
		log_info("pid %d: a snapshot of %s, %s lost; writers waited %" PRIu64 " us at most",
			 (int)notice->pid, size_format(stat->resident + stat->evicted, size),
			 size_format(stat->lost, lost), stat->stall_ns / 1000);
	else if (notice->value != ECANCELED && notice->value != ESRCH)
		log_limited(LOG_WARNING, "pid %d: no snapshot: %s: %s", (int)notice->pid,
			    what_failed((int)notice->value), strerror((int)notice->value));
}

/* ---- who is told ---- */

int snapshots_begin(struct snapshots *snapshots, struct snapshot_caller *caller, pager_task_id task,
		    const struct pager_range *range, int fd)
{
	uint64_t id;
	int r = pager_snapshot(snapshots->pager, task, range, fd, &id);

	if (r < 0)
		return r;
	caller->task = task;
	caller->id = id;
	LIST_INSERT_HEAD(&snapshots->list, caller, entry);
	return 0;
}

static void release(struct snapshot_caller *caller)
{
	LIST_REMOVE(caller, entry);
	caller->id = 0;
}

void snapshots_drop(struct snapshots *snapshots, struct snapshot_caller *caller)
{
	pager_snapshot_cancel(snapshots->pager, caller->task, caller->id);
	release(caller);
}

void snapshots_notice(struct snapshots *snapshots, const struct pager_notice *notice)
{
	bool ended = notice->kind == PAGER_NOTICE_SNAPSHOT;
	struct snapshot_caller *caller;

	if (ended)
		log_end(notice);
	LIST_FOREACH (caller, &snapshots->list, entry)
		if (caller->id == notice->snapshot.id)
			break;
	if (!caller) /* nobody waits any more */
		return;
	if (ended)
		release(caller);
	caller->told(caller->context, notice);
}

/* ---- the control method ---- */

static void fail(struct varlink_call *call, int error)
{
	varlink_error(call, "io.upager.Pager.Failed",
		      json_pack("{s:s,s:i}", "what", what_failed(error), "errno", error));
}

static json_t *result(const struct pager_snapshot_stat *stat)
{
	return json_pack("{s:I,s:I,s:I,s:I}", "resident", (json_int_t)stat->resident, "evicted",
			 (json_int_t)stat->evicted, "lost", (json_int_t)stat->lost, "stall_us",
			 (json_int_t)(stat->stall_ns / 1000));
}

static void on_told(void *context, const struct pager_notice *notice)
{
	struct snapshot_call *s = context;

	if (notice->kind == PAGER_NOTICE_SNAPSHOT_BEGUN) {
		if (s->call->more)
			varlink_reply(s->call, result(&notice->snapshot), true);
		return;
	}
	if (notice->value)
		fail(s->call, (int)notice->value);
	else
		varlink_reply(s->call, result(&notice->snapshot), false);
	free(s);
}

static void on_cancelled(struct varlink_call *call)
{
	struct snapshot_call *s = call->state;

	snapshots_drop(s->snapshots, &s->caller);
	free(s);
}

void snapshots_call(struct snapshots *snapshots, pager_task_id task, int fd, struct varlink_call *call)
{
	struct snapshot_call *s = calloc(1, sizeof(*s));
	int r = -ENOMEM;

	if (s) {
		*s = (struct snapshot_call){
			{.told = on_told, .context = s}, snapshots, call};
		r = snapshots_begin(snapshots, &s->caller, task, NULL, fd);
	} else {
		close(fd);
	}
	if (r < 0) {
		free(s);
		fail(call, -r);
		return;
	}
	call->state = s;
	call->cancelled = on_cancelled;
}
