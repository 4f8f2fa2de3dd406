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
#include "sys/pagemap.h"

#define BEGIN_MAX (2000 * MS)
#define TRY_MAX   (5 * MS) /* of these, in one go */
#define EVENT_WAIT (MS / 10)
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

static int again_if_changed(int r)
{
	switch (uffd_classify(r)) {
	case UFFD_RETRY:
	case UFFD_CHANGED:
		return -EAGAIN;
	default:
		return r;
	}
}

/* Protects what is not; the zero page, too: it could become memory without our hearing of it. */
static int protect_range(struct snapshot *s, uint64_t at, uint64_t end)
{
	struct task *t = s->task;
	struct pagemap_run runs[64];
	int r = 0;

	while (at < end && r == 0) {
		ssize_t n = pagemap_scan(t->pagemap, at, end, PAGEMAP_WRITABLE, runs, ARRAY_SIZE(runs),
					 0, &at);

		if (n < 0)
			return (int)n;
		for (ssize_t i = 0; i < n && r == 0; i++) {
			s->protect_at = runs[i].start;
			r = uffd_protect(t->uffd, runs[i].start, runs[i].end - runs[i].start, true);
		}
	}
	return again_if_changed(r);
}

/* Reserved huge pages are protected and let go as a whole only: they are not in it. */
static bool is_in_it(const struct region *region)
{
	return region->registered && !region->hugetlb;
}

static int protect_from(struct snapshot *s, uint64_t start)
{
	const struct regions *regions = &s->task->regions;
	int r = 0;

	for (size_t i = 0; i < regions->n && r == 0; i++)
		if (is_in_it(&regions->list[i]))
			r = protect_range(s, MAX(start, regions->list[i].start),
					  MIN(s->end, regions->list[i].end));
	return r;
}

/* A try that an event cut short is taken up where it ended; then everything is looked at once more. */
static int protect_all(struct snapshot *s)
{
	int r = s->protect_at ? protect_from(s, s->protect_at) : 0;

	if (r == 0)
		r = protect_from(s, s->start);
	if (r == 0)
		s->protect_at = 0;
	return r;
}

static int note_resident(struct snapshot *s, uint64_t address, uint64_t pages)
{
	uint64_t first = s->one_piece ? bytes_to_pages(address - s->start) : s->n_resident;
	int r = runs_add(&s->runs, address, pages, first);

	s->n_resident += r == 0 ? pages : 0;
	return r;
}

static int note_evicted(struct snapshot *s, uint64_t address, word_t content)
{
	if (s->n_evicted == s->evicted_capacity) {
		size_t capacity = s->evicted_capacity ? s->evicted_capacity * 2 : 256;
		struct evicted_page *list = reallocarray(s->evicted, capacity, sizeof(*list));

		if (!list)
			return -ENOMEM;
		s->evicted = list;
		s->evicted_capacity = capacity;
	}
	s->evicted[s->n_evicted++] = (struct evicted_page){content, address};
	return 0;
}

/* A page that is not present, and not empty either: evicted if its word says so; else the kernel has it
 * (swapped out, or being migrated), and it can be read; or, if it did not take the protection, it is a
 * guard. */
static int note_absent(struct snapshot *s, uint64_t address, bool protected)
{
	word_t content = word_share(s->task, table_get(&s->task->table, address));
	int r;

	if (!content)
		return protected ? note_resident(s, address, 1) : 0;
	r = note_evicted(s, address, content);
	if (r < 0)
		pager_slot_put(s->task->worker, content);
	return r;
}

static int note_range(struct snapshot *s, uint64_t at, uint64_t end)
{
	struct pagemap_run runs[64];
	int r = 0;

	while (at < end && r == 0) {
		ssize_t n = pagemap_scan(s->task->pagemap, at, end, PAGEMAP_CONTENT, runs,
					 ARRAY_SIZE(runs), 0, &at);

		if (n < 0)
			return (int)n;
		for (ssize_t i = 0; i < n && r == 0; i++) {
			if (runs[i].present)
				r = note_resident(s, runs[i].start,
						  bytes_to_pages(runs[i].end - runs[i].start));
			else
				for (uint64_t a = runs[i].start; a < runs[i].end && r == 0;
				     a += PAGE_SIZE)
					r = note_absent(s, a, runs[i].protected);
		}
	}
	return r;
}

/* Evicted pages that have no marker yet: only the table knows of them. */
static int note_unmarked(struct snapshot *s)
{
	struct table *table = &s->task->table;
	int r = 0;

	for (struct leaf *leaf = table_next(table, s->start, s->end);
	     leaf && s->task->unmarked && r == 0;
	     leaf = table_next(table, leaf->base + LEAF_SIZE, s->end))
		for (unsigned i = 0; leaf->evicted && i < LEAF_WORDS && r == 0; i++) {
			uint64_t address = leaf->base + i * (uint64_t)PAGE_SIZE;

			if (word_is_evicted(leaf->words[i]) && leaf->words[i] & WORD_UNMARKED &&
			    address >= s->start && address < s->end)
				r = note_absent(s, address, false);
		}
	return r;
}

static void forget(struct snapshot *s)
{
	snapshot_put_evicted(s);
	s->n_evicted = s->evicted_done = 0;
	s->runs.n = 0;
	s->n_resident = 0;
}

static int note_all(struct snapshot *s)
{
	const struct regions *regions = &s->task->regions;
	uint64_t noted = s->start;
	int r = 0;

	for (size_t i = 0; i < regions->n && r == 0; i++) {
		const struct region *region = &regions->list[i];

		/* A VMA that grew while they were looked for may be there twice. */
		if (is_in_it(region))
			r = note_range(s, MAX(noted, region->start), MIN(s->end, region->end));
		noted = MAX(noted, region->end);
	}
	return r == 0 ? note_unmarked(s) : r;
}

/* A range is wanted as a whole, and what is not paged would be zeros. */
static bool is_covered(const struct snapshot *s)
{
	for (uint64_t at = s->start; s->one_piece && at < s->end;) {
		const struct region *region = regions_find(&s->task->regions, at);

		if (!region || region->start > at || !is_in_it(region))
			return false;
		at = region->end;
	}
	return true;
}

/* One try. -EAGAIN: an event has come in between, there is memory that we did not know, or the agent has
 * the gate. */
static int try_begin(struct snapshot *s)
{
	struct task *t = s->task;
	int r;

	if (!gate_take(t))
		return -EAGAIN;
	if (!s->stalled_at)
		s->stalled_at = now_ns();
	t->snapped = true;
	evict_harvest(t);
	forget(s);
	r = protect_all(s);
	if (r == 0)
		r = note_all(s);
	if (r == 0 && !adopt_complete(t, s->start, s->end)) {
		t->adopt.wanted = true;
		r = -EAGAIN;
	}
	if (r == 0 && !is_covered(s))
		r = -EFAULT;
	if (r == 0) /* refused while an event waits */
		r = again_if_changed(uffd_protect(t->uffd, t->sentinel, PAGE_SIZE, false));
	gate_release(t, true); /* commands that wait would take the protection off */
	return r;
}

/* Tries in a row. While a thread raises an event, and until it has gone on after that has been read, all
 * protection is refused. It may need our processor for that, so we sleep; and then it must not be given
 * the time for the next. */
static int try_some(struct snapshot *s)
{
	struct task *t = s->task;
	uint64_t started = now_ns();
	int r;

	if (!s->stalled_at && !adopt_complete(t, s->start, s->end)) {
		t->adopt.wanted = true; /* nobody needs to wait for that */
		return -EAGAIN;
	}
	while ((r = try_begin(s)) == -EAGAIN && now_ns() - started < TRY_MAX && !t->gate_wanted) {
		uffd_wait(t->uffd, EVENT_WAIT);
		task_messages(t);
		if (t->ended)
			return -EAGAIN;
	}
	return r;
}

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
		r = try_some(s);
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
