/*
 * Snapshots: a task's memory as it was at one moment, written to a file while the task goes on.
 *
 *   begin    under the gate every resident page is write-protected, and the slots of those that
 *            are evicted are counted up. No fault is answered meanwhile: whoever writes to a page
 *            that is protected already waits, so what is protected last is as old as what was first.
 *   keep     a write to a protected page: its old bytes are copied, then the writer is let go
 *   copy     in between, page by page in the background
 *
 * A page that still waits to be copied (pending) is not evicted. What the task discards or unmaps
 * before it has been copied is lost to the snapshot: zeros there, and counted.
 */
#include "pager/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/worker.h"
#include "proto/snapshot.h"
#include "sys/pagemap.h"

#define CHUNK     64u  /* pages of one copy */
#define CHUNKS    8u   /* of the background, under way */
#define KEPT_MAX  512u /* pages kept for writers, under way: more of them wait */
#define TRIES_MAX 10000u

/* Neighbouring pages that lie one after the other in the file. */
struct run {
	uint64_t address; /* where they are now: mremap moves them */
	uint64_t pages, first; /* first: index of the page in the file */
};

struct runs {
	struct run *list;
	size_t n, capacity;
};

struct evicted {
	uint64_t page; /* index in the file */
	word_t word;   /* SWAP; its slot is counted */
};

struct snapshot {
	struct task *task;
	int fd;
	bool begun, refused;
	unsigned tries;
	int error;                 /* the first that came */
	struct snapshot_header header;
	struct runs runs;          /* resident at the beginning, by address */
	struct runs evicted_runs;
	uint64_t *pending;         /* a bit for each resident page */
	uint64_t n_resident, n_pending;
	size_t copied_run;         /* the background is here */
	uint64_t copied_page;
	struct evicted *evicted;
	size_t n_evicted, evicted_capacity, evicted_done;
	unsigned under_way, kept;
	unsigned finishing; /* 1: the pages are being synced, 2: the header */
	struct completion sync;
	uint64_t lost;
	void (*started)(void *context, int result, const struct pager_snapshot_stat *stat);
	void *context;
};

struct snapshot_io {
	struct tier_io tier; /* from a slot */
	struct completion completion; /* to the file */
	struct snapshot *snapshot;
	char *buffer;
	uint64_t page, done; /* index in the file; bytes written */
	uint32_t n;
	unsigned from_tier;
	bool kept;
};

/* ---- lists ---- */

static int add_run(struct runs *runs, uint64_t address, uint64_t pages, uint64_t first)
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

static int add_evicted(struct snapshot *s, uint64_t page, word_t word)
{
	if (s->n_evicted == s->evicted_capacity) {
		size_t capacity = s->evicted_capacity ? s->evicted_capacity * 2 : 256;
		struct evicted *list = reallocarray(s->evicted, capacity, sizeof(*list));

		if (!list)
			return -ENOMEM;
		s->evicted = list;
		s->evicted_capacity = capacity;
	}
	s->evicted[s->n_evicted++] = (struct evicted){page, word};
	return 0;
}

/* The run that covers the address, or the next one above. */
static size_t find_run(const struct snapshot *s, uint64_t address)
{
	size_t low = 0, high = s->runs.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct run *r = &s->runs.list[middle];

		if (r->address + pages_to_bytes(r->pages) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_pending(const struct snapshot *s, uint64_t page)
{
	return s->pending[page / 64] >> page % 64 & 1;
}

static void no_longer_pending(struct snapshot *s, uint64_t page)
{
	s->pending[page / 64] &= ~(1ull << page % 64);
	s->n_pending--;
}

/* The page of the file that the address stands for, if it is pending. */
static bool find_pending(const struct snapshot *s, uint64_t address, uint64_t *ret_page)
{
	size_t i = find_run(s, address);
	const struct run *r = &s->runs.list[i];

	if (i == s->runs.n || r->address > address)
		return false;
	*ret_page = r->first + bytes_to_pages(address - r->address);
	return is_pending(s, *ret_page);
}

bool snapshot_needs(const struct task *t, uint64_t address)
{
	uint64_t page;

	return t->snapshot && t->snapshot->begun && find_pending(t->snapshot, address, &page);
}

/* ---- to the file ---- */

static void fail_with(struct snapshot *s, int error)
{
	if (!s->error)
		s->error = error;
}

static void io_free(struct snapshot_io *io)
{
	struct snapshot *s = io->snapshot;

	s->under_way--;
	s->kept -= io->kept;
	s->task->under_way--;
	worker_queue(s->task);
	free(io->buffer);
	free(io);
}

static struct snapshot_io *io_new(struct snapshot *s, uint32_t n)
{
	struct snapshot_io *io = calloc(1, sizeof(*io));

	if (!io || posix_memalign((void **)&io->buffer, PAGE_SIZE, pages_to_bytes(n))) {
		free(io);
		return NULL;
	}
	io->snapshot = s;
	io->n = n;
	s->under_way++;
	s->task->under_way++;
	return io;
}

static void write_on(struct snapshot_io *io);

static void written(struct completion *completion, int result)
{
	struct snapshot_io *io = container_of(completion, struct snapshot_io, completion);

	if (result > 0) {
		io->done += (uint64_t)result;
		if (io->done < pages_to_bytes(io->n)) {
			write_on(io);
			return;
		}
	} else {
		fail_with(io->snapshot, result < 0 ? result : -EIO);
	}
	io_free(io);
}

static void write_on(struct snapshot_io *io)
{
	struct snapshot *s = io->snapshot;
	uint64_t offset = s->header.data + pages_to_bytes(io->page) + io->done;
	int r;

	io->completion.done = written;
	r = uring_write(&s->task->worker->uring, s->fd, io->buffer + io->done,
			(unsigned)(pages_to_bytes(io->n) - io->done), offset, -1, &io->completion);
	if (r < 0)
		written(&io->completion, r);
}

/* Copies up to `max` pending pages from `address` on, which stand for `page` … of the file. A page
 * counts as copied if it is protected still afterwards: then nobody has written to it since the
 * beginning. Returns how many have been dealt with; 0: no memory. */
static uint32_t copy_pages(struct snapshot *s, uint64_t address, uint64_t page, uint32_t max, bool kept)
{
	struct task *t = s->task;
	struct snapshot_io *io;
	bool unchanged[CHUNK];
	uint32_t n = 0;
	ssize_t got;

	while (n < max && is_pending(s, page + n))
		n++;
	io = io_new(s, n);
	if (!io)
		return 0;
	io->page = page;
	io->kept = kept;
	s->kept += kept;
	got = pread(t->mem, io->buffer, pages_to_bytes(n), (off_t)address);
	if (pagemap_protected(t->pagemap, address, n, unchanged) < 0)
		got = 0;
	for (uint32_t i = 0; i < n; i++) {
		no_longer_pending(s, page + i);
		if (got >= (ssize_t)pages_to_bytes(i + 1) && unchanged[i])
			continue;
		memset(io->buffer + pages_to_bytes(i), 0, PAGE_SIZE);
		s->lost++;
	}
	write_on(io);
	return n;
}

bool snapshot_keep(struct task *t, uint64_t address)
{
	struct snapshot *s = t->snapshot;
	uint64_t page;

	if (!s || !s->begun || s->error || !find_pending(s, address, &page))
		return true;
	return s->kept < KEPT_MAX && copy_pages(s, address, page, 1, true);
}

void snapshot_discard(struct task *t, uint64_t start, uint64_t end)
{
	struct snapshot *s = t->snapshot;

	if (!s || !s->begun || !s->n_pending)
		return;
	/* The event comes before or just after the change: what is still there is saved. */
	for (size_t i = find_run(s, start); i < s->runs.n && s->runs.list[i].address < end; i++) {
		const struct run *r = &s->runs.list[i];
		uint64_t at = MAX(start, r->address);
		uint64_t stop = MIN(end, r->address + pages_to_bytes(r->pages));

		while (at < stop) {
			uint64_t page = r->first + bytes_to_pages(at - r->address);
			uint32_t n = 1;

			if (is_pending(s, page)) {
				uint64_t left = bytes_to_pages(stop - at);

				n = copy_pages(s, at, page, (uint32_t)MIN(left, (uint64_t)CHUNK), false);
				if (!n) {
					fail_with(s, -ENOMEM);
					return;
				}
			}
			at += pages_to_bytes(n);
		}
	}
}

static int by_address(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

/* Splits the run that goes across the address. */
static int split_at(struct snapshot *s, uint64_t address)
{
	size_t i = find_run(s, address);
	struct run *r = &s->runs.list[i];
	uint64_t pages;

	if (i == s->runs.n || r->address >= address)
		return 0;
	pages = bytes_to_pages(address - r->address);
	if (add_run(&s->runs, 0, 0, 0) < 0)
		return -ENOMEM;
	memmove(&s->runs.list[i + 1], &s->runs.list[i], (s->runs.n - 1 - i) * sizeof(*r));
	s->runs.list[i].pages = pages;
	s->runs.list[i + 1].address = address;
	s->runs.list[i + 1].pages -= pages;
	s->runs.list[i + 1].first += pages;
	return 0;
}

void snapshot_moved(struct task *t, uint64_t from, uint64_t to, uint64_t length)
{
	struct snapshot *s = t->snapshot;
	size_t i;

	if (!s || !s->begun || !s->n_pending)
		return;
	snapshot_discard(t, to, to + length); /* what was there is gone */
	if (split_at(s, from) < 0 || split_at(s, from + length) < 0) {
		fail_with(s, -ENOMEM);
		return;
	}
	for (i = find_run(s, from); i < s->runs.n && s->runs.list[i].address < from + length; i++)
		s->runs.list[i].address += to - from;
	qsort(s->runs.list, s->runs.n, sizeof(*s->runs.list), by_address);
	s->copied_run = s->copied_page = 0;
}

/* ---- the beginning ---- */

static int protect_region(struct snapshot *s, const struct region *region)
{
	struct task *t = s->task;
	struct pagemap_run runs[64];
	uint64_t at = region->start;

	while (at < region->end) {
		ssize_t n = pagemap_scan(t->pagemap, at, region->end, PAGEMAP_RESIDENT, runs,
					 ARRAY_SIZE(runs), 0, &at);

		if (n < 0)
			return (int)n;
		for (ssize_t i = 0; i < n; i++) {
			uint64_t length = runs[i].end - runs[i].start;
			int r = uffd_protect(t->uffd, runs[i].start, length, true);

			if (r < 0)
				return r;
			if (add_run(&s->runs, runs[i].start, bytes_to_pages(length),
				    s->n_resident) < 0)
				return -ENOMEM;
			s->n_resident += bytes_to_pages(length);
		}
	}
	return 0;
}

/* The evicted pages of a leaf that the client has not discarded. */
static int count_leaf(struct snapshot *s, const struct leaf *leaf)
{
	struct task *t = s->task;
	bool marked[LEAF_WORDS] = {false};
	struct pagemap_run runs[64];
	uint64_t at = leaf->base, end = leaf->base + LEAF_SIZE;

	while (at < end) {
		ssize_t n = pagemap_scan(t->pagemap, at, end, PAGEMAP_MARKER, runs, ARRAY_SIZE(runs), 0,
					 &at);

		if (n < 0)
			return (int)n;
		for (ssize_t i = 0; i < n; i++)
			for (uint64_t a = runs[i].start; a < runs[i].end; a += PAGE_SIZE)
				marked[leaf_index(a)] = true;
	}
	for (unsigned i = 0; i < LEAF_WORDS; i++) {
		uint64_t page = s->n_resident + s->n_evicted;
		word_t word = leaf->words[i], content;

		if (!word_is_evicted(word) || !(marked[i] || word & WORD_UNMARKED))
			continue;
		content = word_share(t, word);
		if (!content)
			continue; /* refused: it is resident, and seen as such */
		if (add_evicted(s, page, content) < 0 ||
		    add_run(&s->evicted_runs, leaf->base + i * (uint64_t)PAGE_SIZE, 1, page) < 0)
			return -ENOMEM;
	}
	return 0;
}

static void forget_beginning(struct snapshot *s)
{
	for (size_t i = s->evicted_done; i < s->n_evicted; i++)
		pager_slot_put(s->task->worker, s->evicted[i].word);
	s->n_evicted = s->evicted_done = 0;
	s->runs.n = s->evicted_runs.n = 0;
	s->n_resident = 0;
}

/* => gate held, events read. -EAGAIN: an event came in between. */
static int protect_all(struct snapshot *s)
{
	struct task *t = s->task;
	int r = 0;

	for (size_t i = 0; i < t->regions.n && r == 0; i++)
		if (t->regions.list[i].registered)
			r = protect_region(s, &t->regions.list[i]);
	for (struct leaf *leaf = table_next(&t->table, 0, UINT64_MAX); leaf && r == 0;
	     leaf = table_next(&t->table, leaf->base + LEAF_SIZE, UINT64_MAX))
		if (leaf->evicted)
			r = count_leaf(s, leaf);
	if (r == 0) /* still as it was when we began? */
		r = uffd_protect(t->uffd, t->sentinel, PAGE_SIZE, false);
	return r;
}

static int write_table(struct snapshot *s)
{
	const struct runs *parts[] = {&s->runs, &s->evicted_runs};
	uint64_t offset = sizeof(s->header);

	s->header = (struct snapshot_header){
		.version = SNAPSHOT_VERSION,
		.pid = s->task->pid,
		.n_runs = s->runs.n + s->evicted_runs.n,
		.n_pages = s->n_resident + s->n_evicted,
	};
	s->header.data = page_up(sizeof(s->header) + s->header.n_runs * sizeof(struct snapshot_run));
	for (unsigned p = 0; p < 2; p++) {
		for (size_t i = 0; i < parts[p]->n; i++) {
			const struct run *r = &parts[p]->list[i];
			struct snapshot_run run = {
				.address = r->address,
				.length = pages_to_bytes(r->pages),
				.offset = s->header.data + pages_to_bytes(r->first),
			};

			if (pwrite(s->fd, &run, sizeof(run), (off_t)offset) != sizeof(run))
				return errno ? -errno : -EIO;
			offset += sizeof(run);
		}
	}
	return 0;
}

static void begin(struct snapshot *s)
{
	struct task *t = s->task;
	struct pager_snapshot_stat stat = {0};
	int r;

	if (t->adopt.wanted || !t->regions.n) {
		t->adopt.wanted = true;
		adopt_scan(t);
	}
	if (t->adopt.wanted) {
		r = -EAGAIN;
	} else if (!gate_take(t)) {
		return; /* the doorbell brings us back */
	} else {
		stat.stall_ns = now_ns();
		evict_harvest(t);
		r = protect_all(s);
		gate_release(t, true); /* commands that wait would take the protection off */
		stat.stall_ns = now_ns() - stat.stall_ns;
	}
	if (r == -EAGAIN && s->tries++ < TRIES_MAX) {
		forget_beginning(s);
		return;
	}
	s->pending = calloc(s->n_resident / 64 + 1, sizeof(*s->pending));
	if (r == 0 && !s->pending)
		r = -ENOMEM;
	if (r == 0) {
		for (uint64_t page = 0; page < s->n_resident; page++)
			s->pending[page / 64] |= 1ull << page % 64;
		s->n_pending = s->n_resident;
		r = write_table(s);
	}
	stat.resident = pages_to_bytes(s->n_resident);
	stat.evicted = pages_to_bytes(s->n_evicted);
	s->begun = true;
	s->refused = r < 0;
	if (r < 0)
		fail_with(s, r);
	s->started(s->context, r, &stat);
}

/* ---- the background ---- */

/* Goes on from where it was; false: everything has been copied. */
static bool copy_next(struct snapshot *s)
{
	while (s->copied_run < s->runs.n) {
		const struct run *r = &s->runs.list[s->copied_run];

		while (s->copied_page < r->pages) {
			uint64_t at = s->copied_page, left = r->pages - at;
			uint32_t n;

			if (!is_pending(s, r->first + at)) {
				s->copied_page++;
				continue;
			}
			n = copy_pages(s, r->address + pages_to_bytes(at), r->first + at,
				       (uint32_t)MIN(left, (uint64_t)CHUNK), false);
			if (!n)
				fail_with(s, -ENOMEM);
			s->copied_page += n;
			return true;
		}
		s->copied_run++;
		s->copied_page = 0;
	}
	return false;
}

static void slot_read(struct tier_io *tier, int error)
{
	struct snapshot_io *io = container_of(tier, struct snapshot_io, tier);
	struct snapshot *s = io->snapshot;
	struct worker *w = s->task->worker;
	const struct slots *slots = &tier_of(w, io->from_tier)->slots;

	for (uint32_t i = 0; i < io->n; i++) {
		char *page = io->buffer + pages_to_bytes(i);
		const struct slot_record *record = &slots->records[io->tier.slot + i];

		if (error || !slot_sum_equal(record->sum, slot_sum_of(page))) {
			memset(page, 0, PAGE_SIZE);
			s->lost++;
		}
		pager_slot_put(w, word_of_slot(WORD_SWAP, 0, slot_name(slots, io->tier.slot + i)));
	}
	write_on(io);
}

/* How many of the evicted pages from i on lie in neighbouring slots that can be read? 0: not yet. */
static uint32_t cluster(const struct snapshot *s, size_t i)
{
	struct slot first = word_slot(s->evicted[i].word);
	const struct slots *slots = &tier_of(s->task->worker, first.tier)->slots;
	uint32_t n = 0;

	while (n < CHUNK && i + n < s->n_evicted) {
		word_t word = s->evicted[i + n].word;
		struct slot slot = word_slot(word);

		if (word_tag(word) != WORD_SWAP || slot.tier != first.tier ||
		    slot.index != first.index + n || slots->records[slot.index].writing)
			break;
		n++;
	}
	return n;
}

/* One evicted page that needs no reading. */
static bool write_at_hand(struct snapshot *s, const struct evicted *e)
{
	struct snapshot_io *io = io_new(s, 1);

	if (!io)
		return false;
	io->page = e->page;
	if (word_tag(e->word) == WORD_SWAP) {
		tier_same_fill(io->buffer, (uint32_t)word_payload(e->word));
	} else { /* POISON */
		memset(io->buffer, 0, PAGE_SIZE);
		s->lost++;
	}
	write_on(io);
	return true;
}

/* false: nothing is left, or what is next is on its way to its slot. */
static bool read_next(struct snapshot *s)
{
	const struct evicted *e = &s->evicted[s->evicted_done];
	struct snapshot_io *io;
	uint32_t n = 1;

	if (s->evicted_done == s->n_evicted)
		return false;
	if (word_tag(e->word) != WORD_SWAP || word_tier(e->word) == TIER_SAME) {
		if (!write_at_hand(s, e))
			return false;
	} else {
		n = cluster(s, s->evicted_done);
		io = n ? io_new(s, n) : NULL;
		if (!io)
			return false;
		io->page = e->page;
		io->from_tier = word_tier(e->word);
		io->tier.uring = &s->task->worker->uring;
		io->tier.buffer = io->buffer;
		io->tier.buffer_index = -1;
		io->tier.slot = word_slot(e->word).index;
		io->tier.n = n;
		io->tier.finished = slot_read;
		tier_submit(tier_of(s->task->worker, word_tier(e->word)), &io->tier);
	}
	s->evicted_done += n;
	return true;
}

/* ---- the end ---- */

static void snapshot_free(struct snapshot *s)
{
	struct task *t = s->task;

	forget_beginning(s);
	t->snapshot = NULL;
	t->worker->n_snapshots--;
	if (!s->refused)
		pager_notify(t, PAGER_NOTICE_SNAPSHOT, pages_to_bytes(s->lost), (uint64_t)-s->error);
	close(s->fd);
	free(s->runs.list);
	free(s->evicted_runs.list);
	free(s->evicted);
	free(s->pending);
	free(s);
}

static void synced(struct completion *completion, int result)
{
	struct snapshot *s = container_of(completion, struct snapshot, sync);

	if (result < 0)
		fail_with(s, result);
	s->under_way--;
	s->task->under_way--;
	worker_queue(s->task);
}

static void sync_file(struct snapshot *s)
{
	int r;

	s->sync.done = synced;
	s->under_way++;
	s->task->under_way++;
	r = uring_sync(&s->task->worker->uring, s->fd, &s->sync);
	if (r < 0)
		synced(&s->sync, r);
}

/* The header comes when the pages are safe: a file without it is no snapshot. */
static void finish(struct snapshot *s)
{
	if (s->error || s->finishing == 2) {
		snapshot_free(s);
		return;
	}
	if (s->finishing++ == 0) {
		if (ftruncate(s->fd, (off_t)(s->header.data + pages_to_bytes(s->header.n_pages))) < 0)
			fail_with(s, -errno);
	} else {
		s->header.magic = SNAPSHOT_MAGIC;
		s->header.lost = s->lost;
		if (pwrite(s->fd, &s->header, sizeof(s->header), 0) != sizeof(s->header))
			fail_with(s, -EIO);
	}
	sync_file(s);
}

void snapshot_serve(struct task *t)
{
	struct snapshot *s = t->snapshot;

	if (!s->begun) {
		begin(s);
		return;
	}
	while (!s->error && !s->finishing && s->under_way - s->kept < CHUNKS &&
	       (copy_next(s) || read_next(s)))
		;
	if (!s->under_way && (s->error || (!s->n_pending && s->evicted_done == s->n_evicted)))
		finish(s);
}

void snapshot_end(struct task *t)
{
	struct snapshot *s = t->snapshot;

	if (!s)
		return;
	fail_with(s, -ESRCH);
	if (!s->begun)
		s->started(s->context, -ESRCH, &(struct pager_snapshot_stat){0});
	s->refused = s->refused || !s->begun;
	s->begun = true;
	if (!s->under_way)
		snapshot_free(s);
}

int snapshot_start(struct task *t, int fd,
		   void (*started)(void *context, int result, const struct pager_snapshot_stat *stat),
		   void *context)
{
	struct snapshot *s = t->snapshot ? NULL : calloc(1, sizeof(*s));
	int r = t->snapshot ? -EBUSY : !s ? -ENOMEM : !t->evictable ? -EOPNOTSUPP : 0;

	if (r < 0) {
		free(s);
		close(fd);
		return r;
	}
	*s = (struct snapshot){.task = t, .fd = fd, .started = started, .context = context};
	t->snapshot = s;
	t->worker->n_snapshots++;
	worker_queue(t);
	return 0;
}
