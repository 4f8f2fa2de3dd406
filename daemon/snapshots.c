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
	LIST_ENTRY(snapshot_call) entry;
	struct snapshots *snapshots;
	struct varlink_call *call;
	pager_task_id task;
	uint64_t id;
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
	case EAGAIN:
		return "its memory did not stand still for a moment";
	case ETIMEDOUT:
		return "the file takes nothing any more";
	default:
		return "writing the snapshot";
	}
}

static void fail(struct varlink_call *call, int error)
{
	varlink_error(call, "io.upager.Pager.Failed",
		      json_pack("{s:s,s:i}", "what", what_failed(error), "errno", error));
}

static void on_cancelled(struct varlink_call *call)
{
	struct snapshot_call *s = call->state;

	LIST_REMOVE(s, entry);
	pager_snapshot_cancel(s->snapshots->pager, s->task, s->id);
	free(s);
}

void snapshots_start(struct snapshots *snapshots, pager_task_id task, int fd, struct varlink_call *call)
{
	struct snapshot_call *s = malloc(sizeof(*s));
	uint64_t id = 0;
	int r = -ENOMEM;

	if (s)
		r = pager_snapshot(snapshots->pager, task, fd, &id);
	else
		close(fd);
	if (r < 0) {
		free(s);
		fail(call, -r);
		return;
	}
	*s = (struct snapshot_call){.snapshots = snapshots, .call = call, .task = task, .id = id};
	call->state = s;
	call->cancelled = on_cancelled;
	LIST_INSERT_HEAD(&snapshots->list, s, entry);
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

static json_t *result(const struct pager_snapshot_stat *stat)
{
	return json_pack("{s:I,s:I,s:I,s:I}", "resident", (json_int_t)stat->resident, "evicted",
			 (json_int_t)stat->evicted, "lost", (json_int_t)stat->lost, "stall_us",
			 (json_int_t)(stat->stall_ns / 1000));
}

void snapshots_ended(struct snapshots *snapshots, const struct pager_notice *notice)
{
	struct snapshot_call *s;

	log_end(notice);
	LIST_FOREACH (s, &snapshots->list, entry)
		if (s->id == notice->snapshot.id)
			break;
	if (!s) /* nobody waits any more */
		return;
	LIST_REMOVE(s, entry);
	if (notice->value)
		fail(s->call, (int)notice->value);
	else
		varlink_reply(s->call, result(&notice->snapshot), false);
	free(s);
}
