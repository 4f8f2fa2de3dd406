/*
 * From a tier: pages are read, checked, and installed where their markers still want them.
 *
 * What is read because a page was asked for is claimed: its words are FILLING, and it is installed as
 * soon as it is there. What is read ahead of a stream is not: its words go on saying SWAP, and the
 * bytes wait in bounce memory, until a fault claims them or somebody needs the memory. So readahead
 * costs the program no room, and the reader's next fault tells how far it has come.
 */
#include <stdlib.h>

#include "base/util.h"
#include "pager/trace.h"
#include "sys/pagemap.h"

#define PIECE 64u        /* pages of one read */
#define AHEAD_MIN 16u    /* pages: the window from which on a stream is read ahead of */
#define SLOW  (10 * MS)   /* after which what was read ahead gives way to another stream … */
#define STALE (2000 * MS) /* … and in any case: nobody will come for it */

/* It is read, or waits in the worker's list. */
struct fill {
	TAILQ_ENTRY(fill) link; /* of the worker's `ahead`, oldest first, while it is not claimed */
	struct tier_io io;
	struct task *task;
	struct tier *tier;
	uint64_t address, began; /* ns */
	uint32_t n, attempts, asked; /* the page that was asked for */
	bool claimed, read;
	unsigned flags;  /* WORD_WP, FILL_STREAM; FILL_ASKED: of that page alone */
	word_t words[]; /* FILLING if it is claimed, else as they were: SWAP; 0: not wanted any more */
};

static void fill_free(struct fill *fill)
{
	struct worker *w = fill->task->worker;

	if (!fill->claimed)
		TAILQ_REMOVE(&w->ahead, fill, link);
	bounce_give(w, fill->io.buffer, fill->n);
	free(fill);
}

static uint8_t fill_tier(const struct fill *fill)
{
	return slot_name(&fill->tier->slots, fill->io.slot).tier;
}

/* The page does not come in; whoever waits for it looks again, and finds its word as it is by now. */
static void let_go(struct fill *fill, uint32_t i)
{
	struct task *t = fill->task;
	uint64_t address = fill->address + pages_to_bytes(i);

	task_charge(t, -1);
	trace(t, TRACE_WOKEN, .address = address, .pages = 1);
	uffd_wake(t->uffd, address, PAGE_SIZE);
}

/* The read was in vain for this page: it rests where it was. */
static void unfill(struct fill *fill, uint32_t i)
{
	struct task *t = fill->task;
	uint64_t address = fill->address + pages_to_bytes(i);

	if (fill->words[i] && word_same(table_get(&t->table, address), fill->words[i]))
		table_set(&t->table, address,
			  word_of_slot(WORD_SWAP, fill->words[i] & WORD_UNMARKED,
				       word_slot(fill->words[i])));
	let_go(fill, i);
}

/* The client has discarded the page meanwhile: whoever waits for it gets zeros. */
static void forget_page(struct fill *fill, uint32_t i)
{
	uint64_t address = fill->address + pages_to_bytes(i);

	event_drop_word(fill->task, table_leaf(&fill->task->table, address, false),
			leaf_index(address));
	let_go(fill, i);
}

enum verdict {
	UNWANTED, /* by now; or nobody can tell */
	WANTED,
	DISCARDED,
};

/* Which pages of the fill have their markers? False: that could not be found out. */
static bool find_markers(const struct fill *fill, bool *marked)
{
	struct task *t = fill->task;
	uint64_t end = fill->address + pages_to_bytes(fill->n), at = fill->address;
	struct pagemap_run runs[32];

	if (t->pagemap < 0) { /* one page, of a child that has not said hello */
		int ours = fill_is_ours(t, fill->address, fill->words[0]);

		marked[0] = ours == 1;
		return ours >= 0;
	}
	while (at < end) {
		ssize_t n = pagemap_scan(t->pagemap, at, end, PAGEMAP_MARKER, runs, ARRAY_SIZE(runs), 0,
					 &at);

		if (n < 0)
			return false;
		for (ssize_t r = 0; r < n; r++)
			for (uint64_t a = runs[r].start; a < runs[r].end; a += PAGE_SIZE)
				marked[bytes_to_pages(a - fill->address)] = true;
	}
	return true;
}

/* Which pages of the fill still want what was read? */
static void select_pages(const struct fill *fill, enum verdict *verdicts)
{
	bool marked[PIECE] = {false}, found = find_markers(fill, marked);

	for (uint32_t i = 0; i < fill->n; i++) {
		word_t word = table_get(&fill->task->table, fill->address + pages_to_bytes(i));

		if (!fill->words[i] || !word_same(word, fill->words[i]))
			verdicts[i] = UNWANTED;
		else if (marked[i] || word & WORD_UNMARKED)
			verdicts[i] = WANTED;
		else
			verdicts[i] = found ? DISCARDED : UNWANTED;
	}
}

static void lose_page(struct fill *fill, uint32_t i)
{
	struct task *t = fill->task;

	pager_slot_put(t->worker, fill->words[i]);
	table_set(&t->table, fill->address + pages_to_bytes(i),
		  word_make(WORD_POISON, fill->words[i] & WORD_UNMARKED, 0, 0));
	let_go(fill, i);
}

/* Installs pages [i, i + n) of a fill; returns how many were settled, at least one. */
static uint32_t install(struct fill *fill, uint32_t i, uint32_t n)
{
	struct task *t = fill->task;
	uint64_t address = fill->address + pages_to_bytes(i);
	ssize_t r = uffd_copy(t->uffd, address, (char *)fill->io.buffer + pages_to_bytes(i),
			      pages_to_bytes(n), fill->flags & WORD_WP);

	if (n > 1 && uffd_classify(r) == UFFD_CHANGED) {
		t->adopt.wanted = true; /* a seam in the middle: one by one */
		return install(fill, i, 1);
	}
	if (r <= 0) {
		unfill(fill, i);
		if (uffd_classify(r) == UFFD_SHORT)
			fill_short(t);
		if (uffd_classify(r) != UFFD_EXISTS)
			return 1;
		/* Something is there already: then ours is history. */
		count(&t->counters, race);
		if (t->pagemap >= 0 && pagemap_is(t->pagemap, address, PAGEMAP_PRESENT) == 1)
			event_drop_word(t, table_leaf(&t->table, address, false),
					leaf_index(address));
		return 1;
	}
	n = (uint32_t)bytes_to_pages((uint64_t)r);
	for (uint32_t k = i; k < i + n; k++)
		fill_commit(t, fill->address + pages_to_bytes(k), word_slot(fill->words[k]),
			    k == fill->asked ? fill->flags : fill->flags & ~FILL_ASKED);
	return n;
}

static void fill_pages(struct fill *fill)
{
	const struct slots *slots = &fill->tier->slots;
	enum verdict verdicts[PIECE];
	uint32_t i = 0;

	select_pages(fill, verdicts);
	while (i < fill->n) {
		uint32_t n = 0;

		while (i + n < fill->n && verdicts[i + n] == WANTED &&
		       slots->records[fill->io.slot + i + n].sum ==
			       slot_sum(slots, (char *)fill->io.buffer + pages_to_bytes(i + n)))
			n++;
		if (n)
			i += install(fill, i, n);
		else if (verdicts[i] == WANTED)
			lose_page(fill, i++);
		else if (verdicts[i] == DISCARDED)
			forget_page(fill, i++);
		else
			unfill(fill, i++);
	}
}

/* The device has refused, and again: one page at a time says which is lost. */
static void fill_failed(struct fill *fill)
{
	struct task *t = fill->task;

	for (uint32_t i = 0; i < fill->n; i++) {
		if (fill->n == 1 && fill->words[0] &&
		    word_same(table_get(&t->table, fill->address), fill->words[0]))
			lose_page(fill, i);
		else
			unfill(fill, i);
	}
	streams_forget(t->streams);
}

static void fill_start(struct fill *fill);

static void fill_done(struct tier_io *io, int error)
{
	struct fill *fill = container_of(io, struct fill, io);
	struct task *t = fill->task;

	count_add(&t->counters, pages_in, fill->n);
	count_add(&t->counters, compressed_in, io->compressed);
	trace(t, TRACE_READ_DONE, .address = fill->address, .pages = fill->n,
	      .how = fill_tier(fill), .a = io->slot, .b = (uint64_t)-error);
	if (error && !t->ended)
		pager_notify(t, PAGER_NOTICE_IO_ERROR, fill->address, (uint64_t)-error);
	if (error && !t->ended && fill->claimed && fill->attempts++ < 2) {
		fill_start(fill);
		return;
	}
	t->under_way--;
	worker_queue(t); /* others may have waited for bounce memory, or for its end */
	if (!fill->claimed && !error && !t->ended) {
		fill->read = true;
		return;
	}
	if (fill->claimed) {
		t->worker->n_awaited--;
		poll_read_ends(&t->worker->poll, now_ns() - fill->began);
		if (t->ended)
			for (uint32_t i = 0; i < fill->n; i++)
				unfill(fill, i);
		else if (error)
			fill_failed(fill);
		else
			fill_pages(fill);
	}
	fill_free(fill);
}

static void fill_start(struct fill *fill)
{
	fill->io.write = false;
	fill->io.finished = fill_done;
	trace(fill->task, TRACE_READ, .address = fill->address, .pages = fill->n,
	      .how = fill_tier(fill), .a = fill->io.slot, .b = !fill->claimed);
	tier_submit(fill->tier, &fill->io);
}

/* How many pages from `address` on, at that step, lie in neighbouring slots of one tier and can be read?
 * At other steps than a page's there are no neighbours. */
static uint32_t neighbours(struct task *t, uint64_t address, int64_t step, uint32_t max)
{
	struct slot first = word_slot(table_get(&t->table, address));
	uint32_t n;

	if (step != PAGE_SIZE && step != -(int64_t)PAGE_SIZE)
		max = MIN(max, 1u);
	for (n = 0; n < max; n++) {
		word_t word = table_get(&t->table, address + n * (uint64_t)step);
		struct slot slot = word_slot(word);

		if (word_tag(word) != WORD_SWAP || slot.tier == TIER_SAME ||
		    slot.tier != first.tier ||
		    slot.index != first.index + (step > 0 ? n : -n) ||
		    slot_is(&tier_of(t->worker, slot.tier)->slots, slot.index, SLOT_WRITING))
			break;
	}
	return n;
}

/* Begins to read n pages that are neighbours, from `address` on at that step. Unclaimed. NULL: there is
 * no memory to read into. */
static struct fill *fill_new(struct task *t, uint64_t address, int64_t step, uint32_t n)
{
	struct worker *w = t->worker;
	struct slot slot;
	struct fill *fill;
	char *bounce;

	n = bounce_take(w, n, &bounce);
	if (!n)
		return NULL;
	if (step < 0)
		address += (n - 1) * (uint64_t)step;
	slot = word_slot(table_get(&t->table, address));
	fill = malloc(sizeof(*fill) + n * sizeof(*fill->words));
	if (!fill) {
		bounce_give(w, bounce, n);
		return NULL;
	}
	*fill = (struct fill){
		.task = t,
		.tier = tier_of(w, slot.tier),
		.address = address,
		.n = n,
		.began = w->now,
		.io = {
			.uring = &w->uring,
			.buffer = bounce,
			.buffer_index = w->bounce_index,
			.slot = slot.index,
			.n = n,
		},
	};
	for (uint32_t i = 0; i < n; i++)
		fill->words[i] = table_get(&t->table, address + pages_to_bytes(i));
	TAILQ_INSERT_TAIL(&w->ahead, fill, link);
	t->under_way++;
	return fill;
}

/* Somebody waits for the page at `address`: from there on, at that step, what still is as it was comes in,
 * now or when it has been read. Returns how many pages that is at most. */
static uint32_t claim(struct fill *fill, uint64_t address, int64_t step, unsigned flags)
{
	struct task *t = fill->task;
	uint32_t asked = (uint32_t)bytes_to_pages(address - fill->address);
	uint32_t first = step > 0 ? asked : 0, end = step > 0 ? fill->n : asked + 1;

	TAILQ_REMOVE(&t->worker->ahead, fill, link);
	fill->claimed = true;
	fill->flags = flags;
	fill->asked = asked;
	task_charge(t, fill->n);
	for (uint32_t i = 0; i < fill->n; i++) {
		uint64_t at = fill->address + pages_to_bytes(i);
		word_t word = table_get(&t->table, at);

		if (i < first || i >= end || !word_same(word, fill->words[i])) {
			fill->words[i] = WORD_NONE;
			continue;
		}
		table_set(&t->table, at,
			  word_of_slot(WORD_FILLING, word & WORD_UNMARKED, word_slot(word)));
		fill->words[i] = table_get(&t->table, at);
	}
	if (fill->read) {
		fill_pages(fill);
		fill_free(fill);
	} else {
		t->worker->n_awaited++;
		fill->began = now_ns();
		poll_read_begins(&t->worker->poll, fill->began);
	}
	return end - first;
}

/* ---- ahead of streams ---- */

/* The oldest that has been read and that nobody has come for is given up, if it began before that time. */
static bool ahead_drop(struct worker *w, uint64_t before)
{
	struct fill *fill;

	TAILQ_FOREACH(fill, &w->ahead, link) {
		if (fill->began > before)
			return false;
		if (!fill->read)
			continue;
		trace(fill->task, TRACE_READ_LOST, .address = fill->address, .pages = fill->n);
		count_add(&fill->task->counters, readahead_lost, fill->n);
		fill_free(fill);
		return true;
	}
	return false;
}

uint64_t ahead_due(const struct worker *w)
{
	const struct fill *first = TAILQ_FIRST(&w->ahead);

	return first && first->read ? first->began + STALE : UINT64_MAX;
}

void ahead_serve(struct worker *w)
{
	while (ahead_due(w) <= w->now)
		ahead_drop(w, w->now);
}

void ahead_forget(struct task *t)
{
	struct fill *fill, *next;

	for (fill = TAILQ_FIRST(&t->worker->ahead); fill; fill = next) {
		next = TAILQ_NEXT(fill, link);
		if (fill->task == t)
			fill_free(fill);
	}
}

static struct fill *ahead_find(struct task *t, uint64_t address, word_t word)
{
	struct fill *fill;

	TAILQ_FOREACH(fill, &t->worker->ahead, link)
		if (fill->task == t && address >= fill->address &&
		    address - fill->address < pages_to_bytes(fill->n) &&
		    word_same(fill->words[bytes_to_pages(address - fill->address)], word))
			return fill;
	return NULL;
}

/* Goes on reading for a stream whose reader will next fault where it says. */
static void read_ahead(struct fault *f, struct stream *stream, uint32_t window)
{
	struct task *t = f->task;
	const struct region *region = regions_find(&t->regions, f->address);
	int64_t done = stream_steps(stream, stream->next, stream->ahead, window);
	uint32_t i = done > 0 ? (uint32_t)done : 0, n;

	for (; region && i < window; i += n) {
		uint64_t at = stream->next + i * (uint64_t)stream->step;
		struct fill *fill;

		if (at < region->start || at >= region->end)
			break;
		n = neighbours(t, at, stream->step, MIN(window - i, PIECE));
		if (!n) {
			n = 1; /* resident, or not there: the reader will not stop at it */
			continue;
		}
		/* Reads cost by the number: a short one is better a full one later. */
		if (i + n == window && n < PIECE && window > 2 * PIECE)
			break;
		while (!(fill = fill_new(t, at, stream->step, n)) &&
		       ahead_drop(t->worker, t->worker->now - SLOW))
			;
		if (!fill)
			break;
		n = fill->n;
		fill_start(fill);
	}
	stream->ahead = stream->next + i * (uint64_t)stream->step;
}

/* ---- what is asked for ---- */

static uint32_t read_now(struct task *t, uint64_t address, int64_t step, uint32_t max,
			 unsigned flags)
{
	uint32_t n = neighbours(t, address, step, MIN(max, PIECE));
	struct fill *fill = NULL;

	while (n && !(fill = fill_new(t, address, step, n)) && ahead_drop(t->worker, t->worker->now))
		;
	if (!fill)
		return 0;
	n = claim(fill, address, step, flags);
	fill_start(fill);
	return n;
}

uint32_t fill_slots(struct task *t, uint64_t address, uint32_t max, unsigned flags)
{
	return read_now(t, address, PAGE_SIZE, max, flags);
}

enum fault_result fill_read(struct fault *f)
{
	struct task *t = f->task;
	struct stream *stream;
	struct fill *fill;
	uint32_t window, n;
	unsigned flags;

	if (!f->by_agent && !f->overrun && group_room(t->group) < 1)
		return FAULT_NO_ROOM;
	window = stream_window(t->streams, f->ptid, f->address,
			       t->worker->pager->config.readahead_pages, &stream);
	if (t->pagemap < 0)
		window = 1; /* markers of a child that has not said hello are probed one by one */
	flags = fill_protects(f) | fill_streams(stream, window) | FILL_ASKED;
	fill = ahead_find(t, f->address, f->word);
	if (fill) {
		if (fill->read)
			count(&t->counters, minor);
		else
			count(&t->counters, major);
		n = claim(fill, f->address, stream->step, flags);
	} else {
		n = read_now(t, f->address, stream->step, fill_clip(f, window), flags);
		if (!n)
			return FAULT_RETRY; /* a sibling's frame is on its way there, or memory is short */
		count(&t->counters, major);
	}
	stream_advance(stream, f->address + n * (uint64_t)stream->step);
	t->refaults++;
	count_add(&t->counters, readahead, n - 1);
	if (window >= AHEAD_MIN || (window > 1 && !stream_is_dense(stream)))
		read_ahead(f, stream, window);
	return FAULT_DONE;
}
