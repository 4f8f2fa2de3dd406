/*
 * Writeback: the oldest pages in compressed memory go to the tiers behind it.
 *
 *   oldest segments held, their slots counted → decompressed, in the order of the slots → written →
 *   what has been written is forgotten, slots let go → segments that are empty are free
 *
 * One batch at a time. Until its write has succeeded a page is read from memory, and where it fails
 * it stays there. The count keeps a slot from being free, and thus from being written again, while
 * a write to it is under way.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/util.h"
#include "tier/zpool_parts.h"

#define TURN_PAGES 16u
#define REST       (100 * MS) /* after a failure */

int drain_init(struct drain *drain, struct zpool_worker *w)
{
	drain->worker = w;
	drain->buffer = mmap(NULL, pages_to_bytes(DRAIN_PAGES), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (drain->buffer == MAP_FAILED)
		drain->buffer = NULL;
	return drain->buffer ? 0 : -ENOMEM;
}

void drain_done(struct drain *drain)
{
	if (drain->buffer)
		munmap(drain->buffer, pages_to_bytes(DRAIN_PAGES));
}

static struct zpool_tier *tier_of(const struct drain *drain, const struct drained *page)
{
	return drain->worker->pool->tiers[page->tier];
}

/* ---- which pages ---- */

static int by_slot(const void *a, const void *b)
{
	const struct drained *x = a, *y = b;

	if (x->tier != y->tier)
		return x->tier < y->tier ? -1 : 1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static void gather(struct drain *drain, struct segment *segment)
{
	const struct object *object;
	uint32_t at = 0, place;

	segment->held = true;
	drain->held[drain->n_held++] = segment;
	while (drain->n < DRAIN_PAGES && (object = segment_next(segment, &at, &place))) {
		struct drained *page = &drain->pages[drain->n++];

		*page = (struct drained){
			.tier = object->tier, .slot = object->slot, .place = place};
		slot_get(&tier_of(drain, page)->tier.slots, page->slot);
	}
}

void drain_start(struct drain *drain)
{
	struct zpool_worker *w = drain->worker;
	unsigned most = MIN(DRAIN_SEGMENTS, MAX(w->pool->arena.n / 8, 1u));
	struct segment *segment;

	if (drain->busy || !w->pool->backed || now_ns() < drain->again_at)
		return;
	drain->n_held = drain->n = drain->done = 0;
	drain->failed = false;
	while (drain->n_held < most && drain->n < DRAIN_PAGES && (segment = zlog_oldest(&w->log)))
		gather(drain, segment);
	if (!drain->n_held)
		return;
	qsort(drain->pages, drain->n, sizeof(*drain->pages), by_slot);
	drain->busy = true;
	zpool_wake(w);
}

/* ---- the end ---- */

static void batch_ended(struct drain *drain)
{
	drain->busy = false;
	for (unsigned i = 0; i < drain->n_held; i++)
		segment_release(drain->held[i], drain->failed);
	if (drain->failed)
		drain->again_at = now_ns() + REST;
	else if (zpool_is_tight(drain->worker))
		drain_start(drain);
}

static void settle(struct drain *drain, const struct drained *page, bool written)
{
	struct zpool_worker *w = drain->worker;
	struct zpool_tier *z = tier_of(drain, page);

	/* What is counted is not forgotten, and what is held is not moved. */
	assert(!page->place || atomic_load(&z->places[page->slot]) == page->place);
	if (written) {
		zpool_forget(w, z, page->slot);
		w->written_back++;
	}
	tier_put(&z->tier, w->uring, page->slot);
}

static void run_ended(struct tier_io *io, int error)
{
	struct drain_run *run = container_of(io, struct drain_run, io);
	struct drain *drain = run->drain;

	drain->failed = drain->failed || error;
	for (uint32_t i = 0; i < io->n; i++)
		settle(drain, &drain->pages[run->first + i], !error);
	if (--drain->under_way == 0)
		batch_ended(drain);
}

/* ---- writing ---- */

static void write_run(struct drain *drain, unsigned first, uint32_t n)
{
	const struct drained *page = &drain->pages[first];
	struct tier *next = tier_of(drain, page)->tier.next;
	struct drain_run *run = &drain->runs[first];
	int r;

	*run = (struct drain_run){
		.drain = drain,
		.first = first,
		.io = {.uring = drain->worker->uring,
		       .buffer = drain->buffer + pages_to_bytes(first),
		       .buffer_index = -1,
		       .slot = page->slot,
		       .n = n,
		       .write = true,
		       .finished = run_ended},
	};
	drain->under_way++;
	atomic_fetch_add(&next->pages_out, n);
	r = next->ops->submit(next, &run->io);
	if (r < 0)
		run_ended(&run->io, r);
}

static bool follows(const struct drained *page, const struct drained *before)
{
	return page->place && page->tier == before->tier && page->slot == before->slot + 1;
}

static void write_all(struct drain *drain)
{
	drain->under_way = 1; /* until all have been begun */
	for (unsigned i = 0, n; i < drain->n; i += n) {
		n = 1;
		if (!drain->pages[i].place) {
			drain->failed = true;
			settle(drain, &drain->pages[i], false);
			continue;
		}
		while (i + n < drain->n && follows(&drain->pages[i + n], &drain->pages[i + n - 1]))
			n++;
		write_run(drain, i, n);
	}
	if (--drain->under_way == 0)
		batch_ended(drain);
}

bool drain_go_on(struct drain *drain)
{
	if (!drain->busy || drain->under_way)
		return false;
	for (unsigned n = 0; n < TURN_PAGES && drain->done < drain->n; n++, drain->done++) {
		struct drained *page = &drain->pages[drain->done];
		struct zpool_tier *z = tier_of(drain, page);

		if (!zpool_load(drain->worker, z, page->slot,
				drain->buffer + pages_to_bytes(drain->done)))
			page->place = 0;
	}
	if (drain->done < drain->n)
		return true;
	write_all(drain);
	return false;
}
