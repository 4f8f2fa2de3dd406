/*
 * Pages out: victims → command to the agent → frames → slots.
 *
 * A frame has its slot from the start. So whoever takes over the content while it is under way (a
 * forked child, a moved range, limbo) simply counts the slot, and the frame is written for them;
 * a slot nobody counts any more is not written.
 */
#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/trace.h"
#include "policy/pressure.h"
#include "sys/pagemap.h"

#define BATCH        256u      /* pages of a command, unless it is a huge page */

/* ---- frames ---- */

void evict_frame_drop(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];

	record->address = 0;
	if (record->state == FRAME_STANDBY)
		frames_free(&t->frames, frame);
}

/* A standby frame is needed: its page now rests in its slot alone. */
static void reclaim(void *context, uint32_t frame)
{
	struct task *t = context;
	struct frame *record = &t->frames.records[frame];
	word_t word = table_get(&t->table, record->address);

	assert(word_tag(word) == WORD_STANDBY && word_frame(word) == frame);
	trace(t, TRACE_RECLAIM, .address = record->address, .pages = 1);
	table_set(&t->table, record->address,
		  word_of_slot(WORD_SWAP, word & WORD_UNMARKED, record->slot));
	frames_free(&t->frames, frame);
}

/* Slots for n frames from `first` on, neighbours as far as there are any. Returns how many. */
static uint32_t reserve_slots(struct worker *w, struct frame *records, uint32_t n)
{
	struct pager *p = w->pager;
	uint32_t done = 0;

	for (unsigned i = 0; i < p->n_tiers && done < n;) {
		unsigned equals = 1, turn;
		uint32_t before = done;

		while (i + equals < p->n_tiers && p->tiers[p->order[i + equals]]->priority ==
							  p->tiers[p->order[i]]->priority)
			equals++;
		turn = equals > 1 ? atomic_fetch_add(&p->next_equal, 1) : 0;
		for (unsigned k = 0; k < equals && done < n; k++) {
			struct tier *tier = p->tiers[p->order[i + (turn + k) % equals]];
			uint32_t first, got = tier_take(tier, &w->uring, n - done, &first);

			for (uint32_t s = 0; s < got; s++) {
				slot_mark(&tier->slots, first + s, SLOT_WRITING, true);
				records[done++].slot = slot_name(&tier->slots, first + s);
			}
		}
		if (done == before)
			i += equals;
	}
	return done;
}

/* ---- commands ---- */

static unsigned command_flags(const struct task *t, const struct batch *b)
{
	unsigned flags = b->exec ? EXCHANGE_EXEC : 0;

	/* Once-shared pages refuse to move until they are written: also those that were locked, or
	 * passed over, while it was known that the task had forked. */
	if (t->forked || b->refused)
		flags |= EXCHANGE_POPULATE;
	return b->huge ? flags | EXCHANGE_HUGE : flags;
}

/* The page is to leave for the frame. */
static void leaves_for(struct task *t, uint32_t frame, uint64_t address, bool by_hand)
{
	struct frame *record = &t->frames.records[frame];
	word_t old = table_get(&t->table, address);

	record->address = address;
	record->by_hand = by_hand;
	if (word_tag(old) == WORD_PRESENT && old & WORD_SLOT) {
		record->has_old = true;
		record->old = word_slot(old);
	}
	table_set(&t->table, address, word_make(WORD_EVICTING, 0, 0, frame));
}

static void post(struct task *t, const struct batch *b, uint32_t first_frame)
{
	struct exchange *x = t->exchange;
	struct command *c = &t->commands[t->posted % EXCHANGE_COMMANDS];
	struct exchange_command *theirs = &x->commands[t->posted % EXCHANGE_COMMANDS];

	*c = (struct command){
		.used = true,
		.number = t->posted,
		.posted_at = t->worker->now,
		.flags = command_flags(t, b),
		.n_runs = b->n_runs,
		.n_pages = b->n,
		.first_frame = first_frame,
		.n_shared = b->n_shared,
		.by_hand = b->source == VICTIM_HAND,
	};
	memcpy(c->runs, b->runs, sizeof(c->runs));
	for (uint32_t r = 0, i = first_frame; r < b->n_runs; r++)
		for (uint32_t k = 0; k < b->runs[r].pages; k++, i++)
			leaves_for(t, i, b->runs[r].address + pages_to_bytes(k), c->by_hand);
	theirs->flags = c->flags;
	theirs->n_runs = c->n_runs;
	theirs->n_pages = c->n_pages;
	theirs->first_frame = first_frame;
	theirs->epoch = atomic_load(&x->epoch);
	memcpy(theirs->runs, c->runs, sizeof(c->runs));
	atomic_store(&theirs->settled, 0);
	memset(theirs->result, EXCHANGE_PENDING, sizeof(theirs->result));
	atomic_store(&theirs->state, EXCHANGE_POSTED);
	trace_posted(t, c);
	t->posted++;
	atomic_store(&x->posted, t->posted);
	if (atomic_load(&x->sleeping))
		syscall(SYS_futex, &x->posted, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Nothing more can leave. The group overruns its limit, or ends, as it was configured. */
static void swap_is_full(struct group *g)
{
	struct task *t = TAILQ_FIRST(&g->tasks);
	bool beyond = g->resident + g->overhead > bytes_to_pages(g->limit);

	if (g->worker->now - g->full_at > 1000 * MS)
		pager_notify(t, PAGER_NOTICE_SWAP_FULL, 0, 0);
	g->full_at = g->worker->now;
	if (beyond && g->worker->pager->config.on_full == PAGER_ON_FULL_KILL)
		TAILQ_FOREACH(t, &g->tasks, link)
			task_broken(t, ENOSPC);
}

/* One command, up to `want` pages; LEAF_WORDS for a huge page. Returns how many pages are on their
 * way. */
static uint32_t evict_batch(struct task *t, enum victim_source source, uint32_t want)
{
	struct batch b = {.source = source};
	struct worker *w = t->worker;
	uint32_t first, n;

	if (want == LEAF_WORDS && t->frames.n - t->frames.head < want)
		t->frames.head = 0; /* not in two parts */
	n = frames_take(&t->frames, want, reclaim, t, &first);
	if (!n)
		return 0;
	b.max = reserve_slots(w, &t->frames.records[first], n);
	if (!b.max)
		swap_is_full(t->group);
	b.splits = want == LEAF_WORDS && b.max < n;
	uring_flush(&w->uring); /* who waits for a read does not wait for the hand */
	if (b.splits || want < LEAF_WORDS || n == want)
		hand_gather(t, &b); /* else the frames that it needs are on their way to the tier */
	if (b.n)
		post(t, &b, first);
	for (uint32_t i = b.n; i < n; i++) {
		if (i < b.max)
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0,
						       t->frames.records[first + i].slot));
		frames_free(&t->frames, first + i);
	}
	t->frames.head = first + b.n;
	return b.n;
}

static uint32_t evict_task(struct task *t, uint32_t want)
{
	enum victim_source source;
	uint32_t n = 0;

	if (t->posted - t->reaped == EXCHANGE_COMMANDS)
		return 0;
	want = MIN(want, BATCH);
	source = policy_of(t)->source(victims_of(t), &want);
	/* Frames that are taken in vain are not on standby any more. */
	if (source == VICTIM_QUEUE)
		want = (uint32_t)MIN((uint64_t)want, queue_peek(&t->queue, EXCHANGE_RUNS));
	if (source == VICTIM_QUEUE || !t->hand.at_huge)
		n = evict_batch(t, source, want);
	return n || !t->hand.at_huge ? n : evict_batch(t, VICTIM_HAND, LEAF_WORDS);
}

static uint32_t pages_on_their_way(const struct group *g)
{
	const struct task *t;
	uint32_t n = 0;

	TAILQ_FOREACH(t, &g->tasks, link)
		for (unsigned i = 0; i < EXCHANGE_COMMANDS; i++)
			if (t->commands[i].used)
				n += t->commands[i].n_pages - t->commands[i].n_harvested;
	return n;
}

static struct task *choose_task(struct group *g)
{
	struct task *t, *best = NULL;
	uint64_t best_weight = 0;

	TAILQ_FOREACH(t, &g->tasks, link) {
		uint64_t weight = victim_weight(t->adopt.anonymous, t->refaults);

		if (!t->evictable || t->ended || t->posted - t->reaped == EXCHANGE_COMMANDS ||
		    hand_rests(t))
			continue;
		if (weight > best_weight) {
			best = t;
			best_weight = weight;
		}
	}
	return best;
}

/* What may stay: less than the limit allows where the machine has not even that. *ret_slack: what may
 * come in beyond that before anything leaves, so that it leaves in large batches. */
static uint64_t pages_to_keep(const struct group *g, uint64_t *ret_slack)
{
	struct pressure p = pressure_of(bytes_to_pages(g->limit), g->reserved);
	uint64_t less = g->resident > g->reclaim ? g->resident - g->reclaim : 0;

	*ret_slack = g->reclaim ? 0 : p.slack;
	return MIN(p.low, less);
}

void evict_group(struct group *g)
{
	uint64_t away = pages_on_their_way(g), keep, slack;

	if (!g->armed)
		return;
	keep = pages_to_keep(g, &slack);
	if (g->resident <= keep + away + slack)
		return;
	while (keep = pages_to_keep(g, &slack), g->resident > keep + away) {
		struct task *t = choose_task(g);
		uint32_t n;

		if (!t)
			return;
		n = evict_task(t, (uint32_t)MIN(MAX(g->resident - keep - away, 32ull),
						(uint64_t)BATCH));
		g->reclaim -= MIN(n, g->reclaim);
		if (!n) {
			/* Frames are on their way to the tier, or nothing may leave. */
			if (!hand_rests(t))
				return;
			continue;
		}
		away += n;
	}
}

/* ---- results ---- */

/* The page is still where it was: the word says so again. */
static void stays(struct task *t, uint32_t frame, uint8_t result)
{
	struct frame *record = &t->frames.records[frame];
	word_t word = record->address ? table_get(&t->table, record->address) : WORD_NONE;
	unsigned flags = result == EXCHANGE_BUSY ? WORD_PINNED : 0;
	bool wanted = record->wanted;
	uint64_t address = record->address;

	pager_slot_put(t->worker, word_of_slot(WORD_SWAP, 0, record->slot));
	if (word_tag(word) == WORD_EVICTING && word_frame(word) == frame) {
		if (record->has_old)
			word = word_of_slot(WORD_PRESENT, flags | WORD_SLOT, record->old);
		else
			word = word_make(WORD_PRESENT, flags, 0, 0);
		table_set(&t->table, address, word);
	} else if (record->has_old) {
		pager_slot_put(t->worker, word_of_slot(WORD_SWAP, 0, record->old));
	}
	frames_free(&t->frames, frame);
	if (wanted) {
		trace(t, TRACE_WOKEN, .address = address, .pages = 1);
		uffd_wake(t->uffd, address, PAGE_SIZE);
	}
}

static void deny(struct task *t, uint64_t address)
{
	struct region *r = regions_find(&t->regions, address);

	if (r && r->start <= address)
		r->denied_until = t->hand.lap + 16;
}

/* All results of a command are known. */
static void harvested(struct task *t, const struct command *c)
{
	if (c->stale)
		count(&t->counters, stale);
	/* Nothing but refusals: what is left is pinned or shared, and trying costs time. */
	else if (!c->moved)
		hand_rest(t);
	group_unshare(t->group, MIN(c->moved, c->n_shared));
	cluster_left(t, c, c->moved);
}

/* Takes the results of pages up to `end`. */
static void harvest(struct task *t, struct command *c, const struct exchange_command *theirs,
		    uint32_t end)
{
	uint32_t before = c->moved, from = c->n_harvested;

	for (; c->n_harvested < end; c->n_harvested++) {
		uint32_t i = c->n_harvested, frame = c->first_frame + i;
		struct frame *record = &t->frames.records[frame];
		uint8_t result = __atomic_load_n(&theirs->result[i], __ATOMIC_RELAXED);
		word_t word = record->address ? table_get(&t->table, record->address) : WORD_NONE;

		switch (result) {
		case EXCHANGE_OUT_UNMARKED:
			count(&t->counters, unmarked);
			t->unmarked = true;
			if (word_tag(word) == WORD_EVICTING && word_frame(word) == frame)
				table_set(&t->table, record->address, word | WORD_UNMARKED);
			__attribute__((fallthrough));
		case EXCHANGE_OUT:
			record->moved = true;
			c->out[i] = true;
			c->moved++;
			break;
		case EXCHANGE_DENIED:
			deny(t, record->address);
			stays(t, frame, result);
			break;
		case EXCHANGE_BUSY:
			count(&t->counters, busy);
			t->hand.busy_in_lap++;
			stays(t, frame, result);
			break;
		default:
			c->stale = c->stale || result == EXCHANGE_STALE;
			stays(t, frame, result);
			break;
		}
	}
	trace_harvested(t, c, theirs, from);
	count_add(&t->counters, evicted, c->moved - before);
	policy_of(t)->left(victims_of(t), c->by_hand ? VICTIM_HAND : VICTIM_QUEUE, c->moved - before);
	t->group->evictions += c->moved - before;
	task_charge(t, -(int64_t)(c->moved - before));
	if (end == c->n_pages)
		harvested(t, c);
}

/* Returns whether all results of the command are there. */
static bool harvest_command(struct task *t, uint32_t number)
{
	struct command *c = &t->commands[number % EXCHANGE_COMMANDS];
	const struct exchange_command *theirs = &t->exchange->commands[number % EXCHANGE_COMMANDS];
	uint32_t state = atomic_load(&theirs->state), end = c->n_pages;

	if (state != EXCHANGE_MOVED && state != EXCHANGE_COPIED)
		end = state == EXCHANGE_TAKEN ? MIN(atomic_load(&theirs->settled), end) : 0;
	if (end > c->n_harvested)
		harvest(t, c, theirs, end);
	return end == c->n_pages;
}

void evict_harvest(struct task *t)
{
	for (uint32_t n = t->reaped; n != t->posted && harvest_command(t, n); n++)
		;
}

void evict_complete(struct task *t)
{
	while (t->reaped != t->posted) {
		struct command *c = &t->commands[t->reaped % EXCHANGE_COMMANDS];
		struct exchange_command *theirs =
			&t->exchange->commands[t->reaped % EXCHANGE_COMMANDS];

		if (atomic_load(&theirs->state) != EXCHANGE_COPIED)
			return;
		harvest_command(t, t->reaped);
		writeback_command(t, c);
		c->used = false;
		atomic_store(&theirs->state, EXCHANGE_EMPTY);
		t->reaped++;
	}
}

/* ---- markers that came too late ---- */

bool evict_retry_marks(struct task *t)
{
	bool all = true;

	for (struct leaf *leaf = table_next(&t->table, 0, UINT64_MAX); leaf;
	     leaf = table_next(&t->table, leaf->base + LEAF_SIZE, UINT64_MAX)) {
		for (unsigned i = 0; leaf->evicted && i < LEAF_WORDS; i++) {
			uint64_t address = leaf->base + i * (uint64_t)PAGE_SIZE;
			word_t word = leaf->words[i];

			if (!(word & WORD_UNMARKED) || !word_is_evicted(word))
				continue;
			if (word_tag(word) == WORD_EVICTING || word_tag(word) == WORD_FILLING ||
			    uffd_protect(t->uffd, address, PAGE_SIZE, true) < 0)
				all = false;
			else
				word_set(&t->table, leaf, i, word & ~(word_t)WORD_UNMARKED);
		}
	}
	return all;
}
