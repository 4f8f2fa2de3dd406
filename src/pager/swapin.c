/* From a tier: pages are read, checked, and installed where their markers still want them. */
#include <stdlib.h>

#include "base/util.h"
#include "pager/worker.h"
#include "sys/pagemap.h"

#define PIECE 32u /* pages of one read */

struct fill {
	struct tier_io io;
	struct task *task;
	uint64_t address;
	uint32_t n, attempts;
	unsigned flags;  /* WORD_WP, WORD_ACTIVE: the latter of the first page alone */
	word_t words[]; /* as they were when the read began: FILLING */
};

static void fill_free(struct fill *fill)
{
	struct task *t = fill->task;

	bounce_give(t->worker, fill->io.buffer, fill->n);
	t->under_way--;
	free(fill);
	worker_queue(t); /* others may have waited for bounce memory */
}

/* The read was in vain for this page: it rests where it was, and whoever waits looks again. */
static void unfill(struct fill *fill, uint32_t i)
{
	struct task *t = fill->task;
	uint64_t address = fill->address + pages_to_bytes(i);
	word_t word = table_get(&t->table, address);

	task_charge(t, -1);
	if (word_same(word, fill->words[i])) {
		table_set(&t->table, address,
			  word_of_slot(WORD_SWAP, fill->words[i] & WORD_UNMARKED,
				       word_slot(fill->words[i])));
	}
	uffd_wake(t->uffd, address, PAGE_SIZE);
}

/* Which pages of the fill still want what was read? Sets take[i]. */
static void select_pages(const struct fill *fill, bool *take)
{
	struct task *t = fill->task;
	uint64_t end = fill->address + pages_to_bytes(fill->n), at = fill->address;

	for (uint32_t i = 0; i < fill->n; i++)
		take[i] = fill->words[i] & WORD_UNMARKED;
	if (t->pagemap < 0) {
		take[0] = take[0] || fill_is_ours(t, fill->address, fill->words[0]) == 1;
	} else {
		while (at < end) {
			struct pagemap_run runs[32];
			ssize_t n = pagemap_scan(t->pagemap, at, end, PAGEMAP_MARKER, runs,
						 ARRAY_SIZE(runs), 0, &at);

			if (n < 0)
				break;
			for (ssize_t r = 0; r < n; r++)
				for (uint64_t a = runs[r].start; a < runs[r].end; a += PAGE_SIZE)
					take[bytes_to_pages(a - fill->address)] = true;
		}
	}
	for (uint32_t i = 0; i < fill->n; i++)
		take[i] = take[i] && word_same(table_get(&t->table, fill->address +
								    pages_to_bytes(i)),
					       fill->words[i]);
}

static void lose_page(struct fill *fill, uint32_t i)
{
	struct task *t = fill->task;
	uint64_t address = fill->address + pages_to_bytes(i);

	task_charge(t, -1);
	pager_slot_put(t->worker, fill->words[i]);
	table_set(&t->table, address,
		  word_make(WORD_POISON, fill->words[i] & WORD_UNMARKED, 0, 0));
	uffd_wake(t->uffd, address, PAGE_SIZE); /* faults again, and finds POISON */
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
			    k ? fill->flags & WORD_WP : fill->flags);
	return n;
}

static void fill_pages(struct fill *fill)
{
	struct task *t = fill->task;
	const struct slots *slots = &tier_of(t->worker, word_tier(fill->words[0]))->slots;
	bool take[PIECE] = {false};
	uint32_t i = 0;

	select_pages(fill, take);
	while (i < fill->n) {
		uint32_t n = 0;

		while (i + n < fill->n && take[i + n] &&
		       slot_sum_equal(slots->records[fill->io.slot + i + n].sum,
				      slot_sum_of((char *)fill->io.buffer + pages_to_bytes(i + n))))
			n++;
		if (n)
			i += install(fill, i, n);
		else if (take[i])
			lose_page(fill, i++);
		else
			unfill(fill, i++);
	}
}

static void fill_start(struct fill *fill);

static void fill_done(struct tier_io *io, int error)
{
	struct fill *fill = container_of(io, struct fill, io);
	struct task *t = fill->task;

	count_add(&t->counters, pages_in, fill->n);
	if (t->ended) {
		for (uint32_t i = 0; i < fill->n; i++)
			unfill(fill, i);
	} else if (error && fill->attempts++ < 2) {
		pager_notify(t, PAGER_NOTICE_IO_ERROR, fill->address, (uint64_t)-error);
		fill_start(fill);
		return;
	} else if (error) {
		/* One page at a time says which is lost. */
		pager_notify(t, PAGER_NOTICE_IO_ERROR, fill->address, (uint64_t)-error);
		for (uint32_t i = 0; i < fill->n; i++) {
			if (fill->n == 1 && word_same(table_get(&t->table, fill->address),
						      fill->words[0]))
				lose_page(fill, i);
			else
				unfill(fill, i);
		}
		*t->streams = (struct streams){0};
	} else {
		fill_pages(fill);
	}
	fill_free(fill);
}

static void fill_start(struct fill *fill)
{
	struct slot slot = word_slot(fill->words[0]);

	fill->io.slot = slot.index;
	fill->io.n = fill->n;
	fill->io.write = false;
	fill->io.finished = fill_done;
	tier_submit(tier_of(fill->task->worker, slot.tier), &fill->io);
}

/* How many pages from `address` on lie in neighbouring slots of one tier and can be read? */
static uint32_t neighbours(struct task *t, uint64_t address, uint32_t max)
{
	struct slot first = word_slot(table_get(&t->table, address));
	uint32_t n;

	for (n = 0; n < max; n++) {
		word_t word = table_get(&t->table, address + pages_to_bytes(n));
		struct slot slot = word_slot(word);

		if (word_tag(word) != WORD_SWAP || slot.tier == TIER_SAME ||
		    slot.tier != first.tier || slot.index != first.index + n ||
		    tier_of(t->worker, slot.tier)->slots.records[slot.index].writing)
			break;
	}
	return n;
}

uint32_t fill_slots(struct task *t, uint64_t address, uint32_t max, unsigned flags)
{
	struct worker *w = t->worker;
	struct fill *fill;
	char *bounce;
	uint32_t n = bounce_take(w, neighbours(t, address, max), &bounce);

	if (!n)
		return 0;
	fill = malloc(sizeof(*fill) + n * sizeof(*fill->words));
	if (!fill) {
		bounce_give(w, bounce, n);
		return 0;
	}
	*fill = (struct fill){.task = t, .address = address, .n = n, .flags = flags};
	fill->io.uring = &w->uring;
	fill->io.buffer = bounce;
	fill->io.buffer_index = w->bounce_index;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t at = address + pages_to_bytes(i);
		word_t word = table_get(&t->table, at);

		table_set(&t->table, at,
			  word_of_slot(WORD_FILLING, word & WORD_UNMARKED, word_slot(word)));
		fill->words[i] = table_get(&t->table, at);
	}
	task_charge(t, n);
	t->under_way++;
	fill_start(fill);
	return n;
}

/* A stream's window is read in pieces, so that the reader goes on with the first while the others
 * come. */
enum fault_result fill_read(struct fault *f)
{
	struct task *t = f->task;
	struct stream *stream;
	uint32_t window, done, n;

	if (!f->by_agent && !f->overrun && group_room(t->group) < 1)
		return FAULT_NO_ROOM;
	window = fill_clip(f, stream_window(t->streams, f->address,
				       t->worker->pager->config.readahead_pages, &stream));
	if (t->pagemap < 0)
		window = 1; /* markers are probed one by one */
	done = fill_slots(t, f->address, MIN(window, PIECE), fill_protects(f) | f->active);
	if (!done)
		return FAULT_RETRY; /* a sibling's frame is on its way there, or memory is short */
	while (done < window) {
		n = fill_slots(t, f->address + pages_to_bytes(done), MIN(window - done, PIECE),
				 fill_protects(f));
		if (!n)
			break;
		done += n;
	}
	stream_advance(stream, f->address + pages_to_bytes(done));
	count(&t->counters, major);
	count_add(&t->counters, activate, f->active != 0);
	t->refaults++;
	count_add(&t->counters, readahead, done - 1);
	return FAULT_DONE;
}
