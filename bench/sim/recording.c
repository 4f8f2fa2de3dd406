#include "recording.h"

#include <errno.h>

#include "base/util.h"
#include "history.h"
#include "trace_file.h"

#define RUN_MAX (1ull << 20) /* pages: more than come in at once */
#define AGENT   UINT64_MAX   /* asked: by it, which is no touch of the program's */

struct replay {
	struct history *history;
	struct recording *recording;
};

/* Files that are mapped have memory of their own, and reserved huge pages never leave. */
static bool is_paged(unsigned leaf)
{
	return leaf != TRACE_LEAF_file && leaf != TRACE_LEAF_hugetlb && leaf != TRACE_LEAF_sentinel;
}

static struct known_page *page_at(struct history *h, uint32_t task, uint64_t number, unsigned leaf)
{
	uint32_t known = h->n_pages;
	struct known_page *page = history_page(h, task, number);

	if (h->n_pages > known)
		page->before = leaf != TRACE_LEAF_none;
	return page;
}

/* The stream that they came along with goes on here: so it has passed over them. */
static void pass(struct replay *replay, uint32_t task, uint64_t number, int64_t step)
{
	struct history *h = replay->history;
	struct known_page *page;
	uint64_t n = 0;

	while ((page = history_known(h, task, number + step * (n + 1))) && page->along)
		n++;
	for (; n; n--) {
		page = history_known(h, task, number + step * n);
		page->along = false;
		history_touch(h, page, false);
		replay->recording->along++;
	}
}

/* Whoever else asks for a page before it has come in, and a thread that a signal took out of its fault and
 * that asks again, do so for the same touch. */
static void fault(struct replay *replay, const struct trace_record *r)
{
	struct history *h = replay->history;
	bool write = r->a & TRACE_WRITES;
	uint64_t number = bytes_to_pages(r->address);
	struct known_page *page;
	uint32_t task;

	if (!is_paged(r->how))
		return;
	task = history_task(h, r->task);
	page = page_at(h, task, number, r->how);
	if (r->a & TRACE_BY_AGENT) {
		page->asked = page->asked ? page->asked : AGENT;
	} else if (page->asked && page->asked != AGENT) {
		if (write)
			trace_write(&h->raw, page->asked - 1);
	} else {
		pass(replay, task, number, -1);
		pass(replay, task, number, 1);
		history_touch(h, page, write);
		page->asked = h->raw.n;
		page->along = false;
		replay->recording->faults++;
	}
}

/* The thread goes on, and its page need not have come in. */
static void decided(struct replay *replay, const struct trace_record *r)
{
	struct history *h = replay->history;
	struct known_page *page;

	if (r->how == TRACE_OUTCOME_major || r->how == TRACE_OUTCOME_parked ||
	    r->how == TRACE_OUTCOME_none)
		return;
	page = history_known(h, history_task(h, r->task), bytes_to_pages(r->address));
	if (page)
		page->asked = 0;
}

static int came_in(struct replay *replay, const struct trace_record *r)
{
	struct history *h = replay->history;
	uint32_t task = history_task(h, r->task);

	if (r->pages > RUN_MAX)
		return -EBADMSG;
	for (uint64_t i = 0; is_paged(r->how) && i < r->pages; i++) {
		struct known_page *page = page_at(h, task, bytes_to_pages(r->address) + i, r->how);

		page->along = !page->asked;
		page->asked = 0;
	}
	return 0;
}

static void discard(struct replay *replay, uint64_t task, uint64_t first, uint64_t n)
{
	struct history *h = replay->history;

	replay->recording->discarded += history_discard(h, history_task(h, task), first, n);
}

static int replay_record(struct replay *replay, const struct trace_record *r)
{
	struct recording *recording = replay->recording;
	uint64_t number = bytes_to_pages(r->address);

	switch (r->kind) {
	case TRACE_FAULT:
		fault(replay, r);
		return 0;
	case TRACE_OUTCOME:
		decided(replay, r);
		return 0;
	case TRACE_IN:
		return came_in(replay, r);
	case TRACE_EVICTED:
		if (r->b)
			history_left(replay->history, history_task(replay->history, r->task), number,
				     r->pages);
		return 0;
	case TRACE_REMOVE:
		if (!r->how) /* else the agent's window */
			discard(replay, r->task, number, r->pages);
		return 0;
	case TRACE_UNMAP:
		discard(replay, r->task, number, r->pages);
		return 0;
	case TRACE_GONE:
		discard(replay, r->task, 0, UINT64_MAX);
		return 0;
	case TRACE_REMAP:
		history_move(replay->history, history_task(replay->history, r->task), number, r->a,
			     r->pages);
		return 0;
	case TRACE_LIMIT:
		recording->limit = MAX(recording->limit, r->a);
		return 0;
	case TRACE_LOST:
		recording->lost += r->a;
		return 0;
	default:
		return 0;
	}
}

int recording_read(const char *path, struct history *h, struct recording *ret)
{
	struct replay replay = {h, ret};
	struct trace_record record;
	struct trace_file file;
	int r = trace_file_open(&file, path);

	*ret = (struct recording){0};
	while (r == 0) {
		ret->offset = file.offset;
		r = trace_file_next(&file, &record);
		if (r <= 0)
			break;
		r = replay_record(&replay, &record);
	}
	ret->whole = file.whole;
	ret->tasks = h->n_inhabited;
	trace_file_close(&file);
	return r;
}
