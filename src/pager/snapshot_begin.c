/*
 * The beginning of a snapshot: all is protected, and what there is is noted; snapshot.c says why that is
 * one moment.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "pager/snapshot_parts.h"
#include "sys/pagemap.h"

#define TRY_MAX    (5 * MS) /* tries in one go */
#define EVENT_WAIT (MS / 10)

/* ---- protection ---- */

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

/* ---- what there is ---- */

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

/* Evicted, if the word says so. 1: it has no content with us. */
static int note_word(struct snapshot *s, uint64_t address)
{
	word_t content = word_share(s->task, table_get(&s->task->table, address));
	int r;

	if (!content)
		return 1;
	r = note_evicted(s, address, content);
	if (r < 0)
		pager_slot_put(s->task->worker, content);
	return r;
}

/* Pages that are not present, that took the protection, and of which we have no word: the kernel has them
 * (swapped out, or being migrated), and they can be read; or there is a marker that was left behind, and
 * nothing else. Without protection only the former are still there. (Who writes to one meanwhile does so
 * before the moment.) */
static int note_wordless(struct snapshot *s, uint64_t at, uint64_t end)
{
	struct task *t = s->task;
	struct pagemap_run runs[16];
	int r = uffd_protect(t->uffd, at, end - at, false);

	while (at < end && r == 0) {
		ssize_t n = pagemap_scan(t->pagemap, at, end, PAGEMAP_CONTENT, runs,
					 ARRAY_SIZE(runs), 0, &at);

		if (n < 0)
			return (int)n;
		for (ssize_t i = 0; i < n && r == 0; i++) {
			r = uffd_protect(t->uffd, runs[i].start, runs[i].end - runs[i].start, true);
			if (r == 0)
				r = note_resident(s, runs[i].start,
						  bytes_to_pages(runs[i].end - runs[i].start));
		}
	}
	return again_if_changed(r);
}

/* A run of pages that are not present, and not empty either. What did not take the protection, and has no
 * word, is a guard. */
static int note_absent(struct snapshot *s, const struct pagemap_run *run)
{
	uint64_t wordless = run->start; /* from here on */
	int r = 0;

	for (uint64_t at = run->start; at < run->end && r >= 0; at += PAGE_SIZE) {
		r = note_word(s, at);
		if (r == 1)
			continue;
		if (r == 0 && run->protected && wordless < at)
			r = note_wordless(s, wordless, at);
		wordless = at + PAGE_SIZE;
	}
	if (r >= 0 && run->protected && wordless < run->end)
		r = note_wordless(s, wordless, run->end);
	return MIN(r, 0);
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
				r = note_absent(s, &runs[i]);
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
				r = MIN(note_word(s, address), 0);
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

/* ---- tries ---- */

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
int snapshot_try(struct snapshot *s)
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
