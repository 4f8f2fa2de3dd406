/*
 * What is resident: pages are pending until they have been copied, by the background or because
 * somebody is about to write to them. A page counts as copied if it was still protected after it had
 * been read: then nobody had written to it since the moment.
 *
 * What has been copied loses its protection at once, with its neighbours: a thread that writes page
 * after page waits once for all of them.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/snapshot_parts.h"
#include "sys/pagemap.h"

#define KEEP       16u             /* pages copied for one writer */
#define KEPT_MAX   4096u           /* such pages on their way: more writers wait */
#define SAVE_MAX   1024u           /* pages of a discarded range that are saved at once */
#define STUCK_AFTER (10000 * MS)   /* the file takes nothing any more: writers wait no longer */

/* ---- runs ---- */

int runs_add(struct runs *runs, uint64_t address, uint64_t pages, uint64_t first)
{
	struct run *last = runs->n ? &runs->list[runs->n - 1] : NULL;

	if (last && last->address + pages_to_bytes(last->pages) == address &&
	    last->first + last->pages == first) {
		last->pages += pages;
		return 0;
	}
	if (runs->n == runs->capacity) {
		size_t capacity = runs->capacity ? runs->capacity * 2 : 64;
		struct run *list = reallocarray(runs->list, capacity, sizeof(*list));

		if (!list)
			return -ENOMEM;
		runs->list = list;
		runs->capacity = capacity;
	}
	runs->list[runs->n++] = (struct run){address, pages, first};
	return 0;
}

/* The run that covers the address, or the next one above. */
static size_t find_run(const struct runs *runs, uint64_t address)
{
	size_t low = 0, high = runs->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct run *r = &runs->list[middle];

		if (r->address + pages_to_bytes(r->pages) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Splits the run that goes across the address; returns the index of what begins there, or above. */
static ssize_t split_at(struct runs *runs, uint64_t address)
{
	size_t i = find_run(runs, address);
	struct run *r = &runs->list[i], upper;

	if (i == runs->n || r->address >= address)
		return (ssize_t)i;
	upper = *r;
	upper.pages -= bytes_to_pages(address - r->address);
	upper.first += bytes_to_pages(address - r->address);
	upper.address = address;
	if (runs_add(runs, 0, 0, 0) < 0) /* makes room */
		return -ENOMEM;
	r = &runs->list[i];
	memmove(r + 2, r + 1, (runs->n - i - 2) * sizeof(*r));
	r->pages -= upper.pages;
	r[1] = upper;
	return (ssize_t)i + 1;
}

static int by_address(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

void runs_sort(struct runs *runs)
{
	if (runs->n)
		qsort(runs->list, runs->n, sizeof(*runs->list), by_address);
}

/* ---- which pages are pending ---- */

static bool is_pending(const struct snapshot *s, uint64_t page)
{
	return !(s->copied[page / 64] >> page % 64 & 1);
}

static void no_longer_pending(struct snapshot *s, uint64_t page)
{
	s->copied[page / 64] |= 1ull << page % 64;
	s->n_pending--;
}

/* The page of the file that the address stands for, if it is pending; and how many of those that
 * follow it may be, in its run. */
static bool find_pending(const struct snapshot *s, uint64_t address, uint64_t *ret_page,
			 uint64_t *ret_left)
{
	size_t i = s->n_pending ? find_run(&s->runs, address) : s->runs.n;
	const struct run *r = &s->runs.list[i];

	if (i == s->runs.n || r->address > address)
		return false;
	*ret_page = r->first + bytes_to_pages(address - r->address);
	*ret_left = r->first + r->pages - *ret_page;
	return is_pending(s, *ret_page);
}

bool snapshot_needs(const struct task *t, uint64_t address)
{
	const struct snapshot *s = t->snapshot;
	uint64_t page, left;

	return s && s->phase == SNAPSHOT_COPIES && find_pending(s, address, &page, &left);
}

/* ---- copying ---- */

/* What cannot be read is zeros. -ESRCH: the memory is gone. */
static int read_pages(struct task *t, uint64_t address, uint32_t n, char *to)
{
	for (uint32_t i = 0; i < n;) {
		ssize_t got = pread(t->mem, to + pages_to_bytes(i), pages_to_bytes(n - i),
				    (off_t)(address + pages_to_bytes(i)));

		if (got == 0)
			return -ESRCH;
		i += got > 0 ? (uint32_t)bytes_to_pages((uint64_t)got) : 0;
		if (i < n)
			memset(to + pages_to_bytes(i++), 0, PAGE_SIZE);
	}
	return 0;
}

/* Takes the protection off what has been copied, except where the first write must be told for other
 * reasons. Where an event is pending it stays: it costs its writer a fault, no more. */
static void unprotect(struct task *t, uint64_t address, uint32_t n, const bool *protected)
{
	for (uint32_t i = 0, from; i < n; i++) {
		for (from = i; i < n && protected[i]; i++) {
			word_t word = table_get(&t->table, address + pages_to_bytes(i));

			if (word_is_evicted(word) || word & WORD_WP)
				break;
		}
		if (i > from)
			uffd_protect(t->uffd, address + pages_to_bytes(from),
				     pages_to_bytes(i - from), false);
	}
}

/* Not all of them are where we believe: because they are lost, or because the client has just moved them,
 * and we have not heard of it. Returns how many of the first n can be told about. */
static uint32_t settled(struct task *t, const bool *protected, uint32_t n)
{
	uint32_t first = 0;

	while (first < n && protected[first])
		first++;
	if (first < n && uffd_protect(t->uffd, t->sentinel, PAGE_SIZE, false) == -EAGAIN)
		return first;
	return n;
}

enum copy_for {
	FOR_NOBODY, /* in the background */
	FOR_WRITER,
	FOR_EVENT, /* the pages go: now or never */
};

/* Copies up to `max` pending pages from `address` on, which stand for `page` … of the file; if the
 * snapshot has failed, they are merely let go. Returns how many these were. */
static uint32_t copy_pages(struct snapshot *s, uint64_t address, uint64_t page, uint64_t max,
			   enum copy_for whom)
{
	struct task *t = s->task;
	struct snapshot_io *io = NULL;
	bool protected[SNAPSHOT_CHUNK] = {false};
	uint32_t n = 0;
	int r = 0;

	while (n < MIN(max, (uint64_t)SNAPSHOT_CHUNK) && is_pending(s, page + n))
		n++;
	if (!s->error)
		io = snapshot_io_new(s, snapshot_offset(s, page), pages_to_bytes(n));
	if (io)
		r = read_pages(t, address, n, io->buffer);
	if (r == 0)
		r = pagemap_protected(t->pagemap, address, n, protected);
	if (r < 0)
		snapshot_fail(s, r);
	else if (whom != FOR_EVENT && !s->error)
		n = settled(t, protected, n);
	for (uint32_t i = 0; i < n; i++) {
		no_longer_pending(s, page + i);
		if (!io || protected[i])
			continue;
		memset(io->buffer + pages_to_bytes(i), 0, PAGE_SIZE);
		snapshot_lose(s, page + i, 1);
	}
	if (io && whom != FOR_NOBODY) {
		io->kept = n;
		s->kept += n;
	}
	if (io) {
		io->length = pages_to_bytes(n);
		snapshot_io_write(io);
	}
	unprotect(t, address, n, protected);
	return n;
}

bool snapshot_keep(struct task *t, uint64_t address, bool by_agent)
{
	struct snapshot *s = t->snapshot;
	uint64_t page, left;

	if (!s || s->phase == SNAPSHOT_FINISHES)
		return true;
	if (s->phase == SNAPSHOT_BEGINS)
		return by_agent || !s->stalled_at;
	if (s->error || !find_pending(s, address, &page, &left))
		return true;
	if (s->kept >= KEPT_MAX && !by_agent) {
		if (t->worker->now - MIN(t->worker->now, s->progress_at) < STUCK_AFTER)
			return false;
		snapshot_fail(s, -ETIMEDOUT);
		return true;
	}
	copy_pages(s, address, page, MIN(left, (uint64_t)KEEP), FOR_WRITER);
	return true;
}

bool snapshot_copy_next(struct snapshot *s)
{
	for (bool again = false; s->n_pending; s->at_run++, s->at_page = 0) {
		const struct run *r;
		uint32_t n;

		if (s->at_run >= s->runs.n) { /* something has been moved to where we had been */
			assert(!again && s->runs.n);
			again = true;
			s->at_run = 0;
		}
		r = &s->runs.list[s->at_run];
		while (s->at_page < r->pages && !is_pending(s, r->first + s->at_page))
			s->at_page++;
		if (s->at_page >= r->pages)
			continue;
		n = copy_pages(s, r->address + pages_to_bytes(s->at_page), r->first + s->at_page,
			       r->pages - s->at_page, FOR_NOBODY);
		s->at_page += MAX(n, 1u);
		return true;
	}
	return false;
}

/* ---- what the client does meanwhile ---- */

/* A REMOVE is read just before the pages go: what is still there is saved, as far as that does not
 * take long. */
void snapshot_discard(struct task *t, uint64_t start, uint64_t end, bool there)
{
	struct snapshot *s = t->snapshot;
	uint32_t budget = there ? SAVE_MAX : 0;

	if (!s || s->phase != SNAPSHOT_COPIES || !s->n_pending)
		return;
	for (size_t i = find_run(&s->runs, start); i < s->runs.n && s->runs.list[i].address < end; i++) {
		const struct run *r = &s->runs.list[i];
		uint64_t at = MAX(start, r->address);
		uint64_t stop = MIN(end, r->address + pages_to_bytes(r->pages));
		uint64_t page = r->first + bytes_to_pages(at - r->address);
		uint64_t last = page + bytes_to_pages(stop - at);

		while (page < last && s->n_pending) {
			uint32_t n = 1;

			if (is_pending(s, page) && budget && s->kept < KEPT_MAX) {
				n = copy_pages(s, r->address + pages_to_bytes(page - r->first), page,
					       last - page, FOR_EVENT);
				budget -= MIN(n, budget);
			} else if (is_pending(s, page)) {
				no_longer_pending(s, page);
				snapshot_lose(s, page, 1);
			}
			page += n;
		}
	}
}

/* Forgets runs of a range in which nothing is pending. */
static int cut(struct runs *runs, uint64_t start, uint64_t end)
{
	ssize_t from = split_at(runs, start), to = split_at(runs, end);

	if (from < 0 || to < 0)
		return -ENOMEM;
	memmove(runs->list + from, runs->list + to, (runs->n - (size_t)to) * sizeof(*runs->list));
	runs->n -= (size_t)(to - from);
	return 0;
}

static int move(struct runs *runs, uint64_t from, uint64_t to, uint64_t length)
{
	ssize_t first = split_at(runs, from), stop = split_at(runs, from + length);

	if (first < 0 || stop < 0)
		return -ENOMEM;
	for (ssize_t i = first; i < stop; i++)
		runs->list[i].address += to - from;
	if (first < stop)
		runs_sort(runs);
	return 0;
}

void snapshot_moved(struct task *t, uint64_t from, uint64_t to, uint64_t length)
{
	struct snapshot *s = t->snapshot;

	if (!s || s->phase != SNAPSHOT_COPIES || !s->n_pending)
		return;
	snapshot_discard(t, to, to + length, false); /* what was there is gone */
	if (cut(&s->runs, to, to + length) < 0 || move(&s->runs, from, to, length) < 0)
		snapshot_fail(s, -ENOMEM);
}
