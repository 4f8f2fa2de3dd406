/*
 * Snapshots: a task's memory as it was at one moment, written to a file while the task goes on.
 *
 *   begin    Under the gate every page is write-protected, and the slots of those that are evicted
 *            are counted up. From the first protection on nobody who writes to a protected page is
 *            answered. So what was protected first is as old as what was protected last: the moment
 *            is when the last was, and no event, no new mapping has come in between.
 *   keep     A write to a protected page: its old bytes are copied, then the writer is let go.
 *   copy     In between, chunk by chunk, in the background.
 *
 * If an event does come in between, it is read as ever, and what it has left unprotected is protected in
 * another try; writers wait on. Threads that write, as all do sooner or later, stop changing their memory,
 * so that this ends; if not, the snapshot fails after BEGIN_MAX.
 *
 * A page that is to be copied (pending) is not evicted. What the task discards or unmaps before it has
 * been copied is lost to the snapshot: zeros there, counted, and noted in the file. What a device writes
 * to a pinned page meanwhile is told by nobody, and may be in it.
 *
 * The file is written through the ring alone: its disk, and whatever else it lies on, may be slow.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/snapshot_parts.h"

#define BEGIN_MAX (2000 * MS)
#define CHUNKS    8u /* under way in the background */
#define RANGE_MAX (1ull << 40) /* bytes: as large as the files that can be mapped */

void snapshot_fail(struct snapshot *s, int error)
{
	if (!s->error)
		s->error = error;
}

static void set_impatient(struct snapshot *s, bool impatient)
{
	if (impatient != s->impatient)
		s->task->worker->n_snapshots += impatient ? 1u : -1u;
	s->impatient = impatient;
}

static void snapshot_free(struct snapshot *s)
{
	struct task *t = s->task;

	set_impatient(s, false);
	snapshot_put_evicted(s);
	t->snapshot = NULL;
	close(s->fd);
	pager_notify_snapshot(t, PAGER_NOTICE_SNAPSHOT, &s->stat, s->error);
	free(s->runs.list);
	free(s->table.list);
	free(s->lost.list);
	free(s->evicted);
	free(s->copied);
	free(s);
}

/* ---- begin ---- */

static void begun(struct snapshot *s)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	s->header.time = now.tv_sec * 1000000000ll + now.tv_nsec;
	s->progress_at = now_ns();
	s->phase = SNAPSHOT_COPIES;
	s->stat.resident = pages_to_bytes(s->n_resident);
	s->stat.evicted = pages_to_bytes(s->n_evicted);
	s->stat.stall_ns = now_ns() - s->stalled_at;
	pager_notify_snapshot(s->task, PAGER_NOTICE_SNAPSHOT_BEGUN, &s->stat, 0);
}

static void begin(struct snapshot *s)
{
	struct task *t = s->task;
	int r = s->error;

	if (r == 0 && !t->evictable)
		r = -EAGAIN; /* its agents are on their way */
	if (r == 0) {
		group_arm(t->group);
		r = snapshot_try(s);
	}
	if (t->ended) /* and the snapshot with it */
		return;
	if (r == -EAGAIN && now_ns() - s->asked_at < BEGIN_MAX)
		return;
	set_impatient(s, false);
	if (r == -EAGAIN && !t->evictable)
		r = -EOPNOTSUPP;
	if (r == 0)
		r = snapshot_lay_out(s);
	if (r == 0) {
		begun(s);
	} else {
		snapshot_fail(s, r);
		s->phase = SNAPSHOT_FINISHES;
	}
}

/* ---- copy ---- */

/* One chunk in each pass: whoever faults waits no longer than for that. */
static void go_on(struct snapshot *s)
{
	bool more = false;

	if (s->error)
		snapshot_put_evicted(s);
	if (s->error || s->under_way < CHUNKS)
		more = snapshot_copy_next(s) || (!s->error && snapshot_read_next(s));
	if (more)
		worker_queue(s->task);
	else if (!s->n_pending && s->evicted_done == s->n_evicted)
		s->phase = SNAPSHOT_FINISHES;
	/* A slot that is still being written: perhaps by a relative. */
	set_impatient(s, !more && !s->under_way && s->phase == SNAPSHOT_COPIES);
}

void snapshot_serve(struct task *t)
{
	if (t->snapshot && t->snapshot->phase == SNAPSHOT_BEGINS)
		begin(t->snapshot);
	if (t->snapshot && t->snapshot->phase == SNAPSHOT_COPIES)
		go_on(t->snapshot);
	if (t->snapshot && t->snapshot->phase == SNAPSHOT_FINISHES && snapshot_finish(t->snapshot))
		snapshot_free(t->snapshot);
}

/* ---- life ---- */

struct start {
	const struct pager_range *range;
	int fd;
	uint64_t id;
};

static int start(struct task *t, void *context)
{
	const struct start *start = context;
	const struct pager_range *range = start->range;
	struct snapshot *s;

	if (t->snapshot)
		return -EBUSY;
	if (!t->evictable && (!t->features.evict || t->staging)) /* it has lost its agents */
		return -EOPNOTSUPP;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct snapshot){
		.task = t,
		.fd = start->fd,
		.start = range ? range->address : 0,
		.end = range ? page_up(range->address + range->length) : UINT64_MAX,
		.one_piece = range,
		.stat.id = start->id,
		.asked_at = now_ns(),
	};
	t->snapshot = s;
	set_impatient(s, true);
	worker_queue(t);
	return 0;
}

static int check_range(const struct pager_range *range)
{
	if (!range)
		return 0;
	if (range->address % PAGE_SIZE || !range->length || range->address > UINT64_MAX / 2)
		return -EINVAL;
	return range->length > RANGE_MAX ? -EFBIG : 0;
}

int pager_snapshot(struct pager *p, pager_task_id id, const struct pager_range *range, int fd,
		   uint64_t *ret_id)
{
	struct start what = {range, fd, atomic_fetch_add(&p->next_id, 1)};
	int r = check_range(range);

	if (r == 0)
		r = pager_ask(p, id, start, &what);
	if (r < 0)
		close(fd);
	else
		*ret_id = what.id;
	return r;
}

static int look(struct task *t, void *context)
{
	const struct snapshot *s = t->snapshot;
	struct pager_snapshot_stat *ret = context;

	if (!s || s->phase == SNAPSHOT_BEGINS)
		return -ESRCH;
	*ret = s->stat;
	ret->copied = pages_to_bytes(s->n_resident - s->n_pending + s->evicted_done);
	return 0;
}

int pager_snapshot_stat(struct pager *p, pager_task_id id, struct pager_snapshot_stat *ret)
{
	return pager_ask(p, id, look, ret);
}

static int cancel(struct task *t, void *context)
{
	const uint64_t *id = context;

	if (!t->snapshot || t->snapshot->stat.id != *id)
		return -ESRCH;
	snapshot_fail(t->snapshot, -ECANCELED);
	worker_queue(t);
	return 0;
}

void pager_snapshot_cancel(struct pager *p, pager_task_id id, uint64_t snapshot)
{
	pager_ask(p, id, cancel, &snapshot);
}

void snapshot_end(struct task *t)
{
	struct snapshot *s = t->snapshot;

	if (!s)
		return;
	snapshot_fail(s, -ESRCH);
	s->n_pending = 0;
	s->phase = SNAPSHOT_FINISHES;
	if (!s->under_way)
		snapshot_free(s);
}
