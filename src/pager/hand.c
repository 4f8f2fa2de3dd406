/*
 * Which resident pages leave next. The hand goes round over a task's memory by address, as the pagemap
 * shows it, and offers what it finds to the policy; or what the queue has is offered.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/util.h"
#include "pager/snapshot.h"
#include "pager/worker.h"
#include "sys/pagemap.h"

#define REST     (20 * MS) /* after a lap that found nothing, or a command of which all stayed */
#define REST_NEW 64u       /* pages that have come in meanwhile end it: they can leave */
#define SPAN     (64ull << 20) /* bytes that are looked through at a time */
#define GIANT    (1ull << 32) /* bytes of a region from which on it is not looked through whole */

void hand_rest(struct task *t)
{
	t->hand.exhausted_until = t->worker->now + REST;
	t->hand.came_in = t->came_in;
}

bool hand_rests(const struct task *t)
{
	return t->worker->now < t->hand.exhausted_until &&
	       t->came_in - t->hand.came_in < REST_NEW;
}

/* Addresses ascend: so no page is in a batch twice, of which only one could be moved. */
static bool batch_add(struct batch *b, uint64_t address, uint64_t region)
{
	struct exchange_run *last = b->n_runs ? &b->runs[b->n_runs - 1] : NULL;

	assert(!last || last->address + pages_to_bytes(last->pages) <= address);
	if (b->n == b->max)
		return false;
	if (last && b->region == region && last->address + pages_to_bytes(last->pages) == address) {
		last->pages++;
	} else if (b->n_runs < EXCHANGE_RUNS) {
		b->runs[b->n_runs++] = (struct exchange_run){address, 1};
		b->region = region;
	} else {
		return false;
	}
	b->n++;
	return true;
}

/* Offers resident pages to the policy; false when the batch is full. *ret_at: up to where.
 * A page that a fork shares must be copied before it can leave, and makes no room until all its
 * owners have let it go: so those that are the task's alone are offered first. */
static bool offer_run(struct task *t, struct batch *b, uint64_t region, uint64_t start,
		      uint64_t end, uint64_t *ret_at)
{
	bool exclusive[LEAF_WORDS];

	for (uint64_t at = start; at < end; at += PAGE_SIZE) {
		/* A word that could not be kept would lose the page: so the leaf is made first. */
		struct leaf *leaf = table_leaf(&t->table, at, true);
		word_t word = leaf ? leaf->words[leaf_index(at)] : WORD_NONE;
		size_t i = bytes_to_pages(at - start) % LEAF_WORDS;
		bool shared;

		if (t->forked && i == 0 &&
		    pagemap_exclusive(t->pagemap, at, MIN(bytes_to_pages(end - at), LEAF_WORDS),
				      exclusive) < 0)
			break;
		shared = t->forked && !exclusive[i];
		t->hand.shared_in_lap += shared;
		t->hand.own_in_lap += !shared;
		if (!leaf || (shared && !t->hand.breaks) || snapshot_needs(t, at))
			continue;
		switch (policy_of(t)->choose(word, b->source, t->hand.lap)) {
		case VICTIM_TAKE:
			if (!batch_add(b, at, region)) {
				*ret_at = at;
				return false;
			}
			b->n_shared += shared;
			b->refused = b->refused || word & WORD_PINNED;
			break;
		case VICTIM_SPARE:
			word_set(&t->table, leaf, leaf_index(at), policy_of(t)->spared(word));
			t->hand.taken_in_lap++; /* worth another lap */
			break;
		case VICTIM_SKIP:
			break;
		}
	}
	*ret_at = end;
	return true;
}

static bool region_serves(const struct task *t, const struct region *r, const struct batch *b)
{
	if (!r->registered || !r->writable || t->hand.lap < r->denied_until)
		return false;
	if (r->exec && !t->staging_rwx)
		return false;
	return !b->n || b->exec == r->exec; /* one window, one protection */
}

static bool has_living_relatives(const struct task *t)
{
	const struct task *other;

	TAILQ_FOREACH(other, &t->group->tasks, link)
		if (other != t && other->forked && !other->ended)
			return true;
	return false;
}

/* A lap without relatives in which none refused: the fork is history. And while most of what is
 * there is shared, the rest alone would be evicted over and over. */
static void lap_ends(struct task *t)
{
	bool alone = t->forked && !has_living_relatives(t);

	if (alone && t->hand.alone_since && t->hand.lap > t->hand.alone_since &&
	    !t->hand.busy_in_lap)
		t->forked = false;
	if (!alone)
		t->hand.alone_since = 0;
	else if (!t->hand.alone_since)
		t->hand.alone_since = t->hand.lap + 1;
	t->hand.breaks = t->hand.shared_in_lap > t->hand.own_in_lap;
	t->hand.own_in_lap = t->hand.shared_in_lap = 0;
	t->hand.busy_in_lap = 0;
	t->hand.at = 0;
	t->hand.lap++;
	t->hand.taken_in_lap = 0;
}

/* Where the hand looks next, from region r on: a span that may hold many small regions, or, in the
 * sparse giants that some programs reserve, a leaf, which every fill and the first full look make.
 * Returns false when the giant has no further leaf. */
static bool window(struct task *t, struct region *r, uint64_t *start, uint64_t *end)
{
	struct leaf *leaf;

	*start = MAX(t->hand.at, r->start);
	*end = (*start + SPAN) & ~(LEAF_SIZE - 1); /* no huge page is looked at in part */
	if (r->end - r->start < GIANT)
		return true;
	*end = r->end;
	if (!r->looked) {
		r->looked = *start == r->start;
		return true;
	}
	leaf = table_next(&t->table, *start, r->end);
	if (!leaf)
		return false;
	*start = MAX(*start, leaf->base);
	*end = MIN(r->end, leaf->base + LEAF_SIZE);
	return true;
}

/* Offers what of a run lies in one region: huge pages whole, the rest page by page. */
static bool offer_part(struct task *t, struct batch *b, uint64_t region, uint64_t start,
		       uint64_t end, uint64_t *ret_at)
{
	*ret_at = end;
	while (start < end) {
		uint64_t huge = cluster_next(t, b, start, end);

		if (!offer_run(t, b, region, start, huge, ret_at))
			return false;
		if (huge < end && !cluster_offer(t, b, region, huge, ret_at))
			return false;
		start = *ret_at;
	}
	return true;
}

/* Where of a region offering ends. Linux serves no fault of a thread that is ending, but clears a word of
 * its own for whoever joins it: if that had left, the join would wait for ever. The C library keeps it at
 * the top of the thread's stack, which lies above a guard: that page stays. */
static uint64_t region_top(const struct task *t, const struct region *r)
{
	const struct region *below = regions_find(&t->regions, r->start - PAGE_SIZE);

	return below && below->end == r->start && !below->writable ? r->end - PAGE_SIZE : r->end;
}

/* Offers a run of resident pages, region by region; what is in none, or in one that does not serve
 * now, is passed over. */
static bool offer_span(struct task *t, struct batch *b, uint64_t start, uint64_t end,
		       uint64_t *ret_at)
{
	while (start < end) {
		struct region *r = regions_find(&t->regions, start);
		uint64_t stop, top;

		if (!r || r->start >= end)
			break;
		stop = MIN(end, r->end);
		top = MIN(end, region_top(t, r));
		if (top > start && region_serves(t, r, b)) {
			uint32_t before = b->n;
			bool more;

			if (!b->n)
				b->exec = r->exec;
			more = offer_part(t, b, r->start, MAX(start, r->start), top, ret_at);
			t->hand.taken_in_lap += b->n - before;
			if (!more)
				return false;
		}
		start = stop;
	}
	return true;
}

/* A scan of [at, stop) has ended at `end`. If that is within a huge page, perhaps, what was begun is
 * left to the next look. Returns how many runs remain. */
static ssize_t leave_begun(const struct task *t, const struct batch *b, struct pagemap_run *runs,
			   ssize_t n, uint64_t at, uint64_t stop, uint64_t *end)
{
	struct pagemap_run *last = n > 0 ? &runs[n - 1] : NULL;
	uint64_t cut = *end & ~(LEAF_SIZE - 1);

	if (!last || *end == stop || last->end != *end || last->start > cut || cut <= at ||
	    !cluster_serves(t, b))
		return n;
	*end = last->end = cut;
	return last->start < cut ? n : n - 1;
}

static int by_address(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* What has come in lately and has a word is there, unless it was discarded without an event: then the
 * agent will find nothing to move. */
static bool has_just_come(struct task *t, uint64_t start, uint64_t end)
{
	const struct leaf *leaf = table_leaf(&t->table, start, false);

	if (!leaf || leaf->huge || end > leaf->base + LEAF_SIZE)
		return false;
	for (; start < end; start += PAGE_SIZE) {
		word_t word = leaf->words[leaf_index(start)];

		if (word_tag(word) != WORD_PRESENT || !(word & WORD_YOUNG))
			return false;
	}
	return true;
}

/* Offers the oldest of the queue: what of it is still there, by address, so that neighbours leave as
 * one run, and once, since a page that was discarded and came in again is in the queue twice. What
 * does not fit is the hand's from now on. */
static void gather_queue(struct task *t, struct batch *b)
{
	uint64_t taken[EXCHANGE_RUNS], wanted = 0, at, end, stop, passed, done = 0;
	unsigned n = 0;

	while (n < EXCHANGE_RUNS && wanted < b->max) {
		uint32_t pages = queue_take(&t->queue, b->max - (uint32_t)wanted, &at);

		if (!pages)
			break;
		taken[n++] = at | (pages - 1);
		wanted += pages;
	}
	qsort(taken, n, sizeof(*taken), by_address);
	for (unsigned i = 0; i < n; i++) {
		struct pagemap_run runs[16];
		ssize_t found;

		at = page_down(taken[i]);
		stop = at + pages_to_bytes(taken[i] - at + 1);
		at = MAX(at, done);
		if (at < stop && has_just_come(t, at, stop)) {
			if (!offer_span(t, b, at, stop, &passed))
				return;
			at = stop;
		}
		for (; at < stop; at = end) {
			found = pagemap_scan(t->pagemap, at, stop, PAGEMAP_RESIDENT, runs,
					     ARRAY_SIZE(runs), 0, &end);
			if (found < 0)
				break;
			for (ssize_t k = 0; k < found; k++)
				if (!offer_span(t, b, runs[k].start, runs[k].end, &passed))
					return;
		}
		done = MAX(done, stop);
	}
}

/* Moves the hand on until the batch is full or it has gone round once without effect. */
static void gather_lap(struct task *t, struct batch *b)
{
	struct pagemap_run runs[64];
	unsigned laps = 0;

	t->hand.at_huge = false;
	while (b->n < b->max && laps < 3) {
		struct region *r = regions_find(&t->regions, t->hand.at);
		uint64_t at, stop, end;
		ssize_t n;

		if (!r) {
			if (!t->hand.taken_in_lap && (t->hand.breaks || !t->hand.shared_in_lap))
				break;
			lap_ends(t);
			laps++;
			if (b->n)
				return; /* a second lap could meet the same pages */
			continue;
		}
		if (!region_serves(t, r, b) || !window(t, r, &at, &stop)) {
			t->hand.at = r->end;
			continue;
		}
		n = pagemap_scan(t->pagemap, at, stop, PAGEMAP_RESIDENT, runs, ARRAY_SIZE(runs),
				 1024, &end);
		n = leave_begun(t, b, runs, n, at, stop, &end);
		t->hand.at = n < 0 ? stop : end;
		for (ssize_t i = 0; i < n; i++)
			if (!offer_span(t, b, runs[i].start, runs[i].end, &t->hand.at))
				return;
	}
	if (!b->n && !t->hand.taken_in_lap) {
		lap_ends(t);
		hand_rest(t);
	}
}

void hand_gather(struct task *t, struct batch *b)
{
	/* Not for ever: much of it may have been discarded. */
	for (unsigned i = 0; i < 16 && b->source == VICTIM_QUEUE && !b->n && b->max; i++)
		gather_queue(t, b);
	if (b->n)
		return;
	b->source = VICTIM_HAND;
	gather_lap(t, b);
}
