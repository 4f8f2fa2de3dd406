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
#include "pager/worker.h"
#include "policy/pressure.h"
#include "policy/victim.h"
#include "sys/pagemap.h"

#define LAP_REST (20 * MS) /* after a lap that found nothing */
#define SPAN     (64ull << 20) /* bytes that are looked through at a time */
#define GIANT    (1ull << 32) /* bytes of a region from which on it is not looked through whole */

/* ---- frames ---- */

static void free_frame(struct task *t, uint32_t frame)
{
	frames_free(&t->frames, frame);
}

void evict_frame_drop(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];

	record->address = 0;
	if (record->state == FRAME_STANDBY)
		free_frame(t, frame);
}

/* A standby frame is needed: its page now rests in its slot alone. */
static void reclaim(void *context, uint32_t frame)
{
	struct task *t = context;
	struct frame *record = &t->frames.records[frame];
	word_t word = table_get(&t->table, record->address);

	assert(word_tag(word) == WORD_STANDBY && word_frame(word) == frame);
	table_set(&t->table, record->address,
		  word_of_slot(WORD_SWAP, word & WORD_UNMARKED, record->slot));
	free_frame(t, frame);
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
			struct slots *slots = &p->tiers[p->order[i + (turn + k) % equals]]->slots;
			uint32_t first, got = slots_take(slots, n - done, &first);

			for (uint32_t s = 0; s < got; s++) {
				slots->records[first + s].writing = 1;
				records[done++].slot = slot_name(slots, first + s);
			}
		}
		if (done == before)
			i += equals;
	}
	return done;
}

/* ---- commands ---- */

/* What the hand has gathered for one command. */
struct batch {
	struct exchange_run runs[EXCHANGE_RUNS];
	uint32_t n, max, n_runs; /* pages, runs */
	uint64_t region; /* start of the region that the last run is in: MOVE takes no more than one */
	bool exec;
};

static bool batch_add(struct batch *b, uint64_t address, uint64_t region)
{
	struct exchange_run *last = b->n_runs ? &b->runs[b->n_runs - 1] : NULL;

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
 * Pages that a fork shares cannot leave: only those that are the task's alone are offered. */
static bool offer_run(struct task *t, struct batch *b, uint64_t region, uint64_t start,
		      uint64_t end, uint64_t *ret_at)
{
	bool exclusive[LEAF_WORDS];

	for (uint64_t at = start; at < end; at += PAGE_SIZE) {
		/* A word that could not be kept would lose the page: so the leaf is made first. */
		struct leaf *leaf = table_leaf(&t->table, at, true);
		word_t word = leaf ? leaf->words[leaf_index(at)] : WORD_NONE;
		size_t i = bytes_to_pages(at - start) % LEAF_WORDS;

		if (t->forked && i == 0 &&
		    pagemap_exclusive(t->pagemap, at, MIN(bytes_to_pages(end - at), LEAF_WORDS),
				      exclusive) < 0)
			break;
		if (!leaf || (t->forked && !exclusive[i]))
			continue;
		switch (victim_choose(word, t->hand.lap)) {
		case VICTIM_TAKE:
			if (!batch_add(b, at, region)) {
				*ret_at = at;
				return false;
			}
			break;
		case VICTIM_SPARE:
			word_set(&t->table, leaf, leaf_index(at), word & ~(word_t)WORD_YOUNG);
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

/* A lap without relatives in which none refused: the fork is history. */
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
	*end = *start + SPAN;
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

/* Offers a run of resident pages, region by region; what is in none, or in one that does not serve
 * now, is passed over. */
static bool offer_span(struct task *t, struct batch *b, uint64_t start, uint64_t end,
		       uint64_t *ret_at)
{
	while (start < end) {
		struct region *r = regions_find(&t->regions, start);
		uint64_t stop;

		if (!r || r->start >= end)
			break;
		stop = MIN(end, r->end);
		if (region_serves(t, r, b)) {
			uint32_t before = b->n;
			bool more;

			if (!b->n)
				b->exec = r->exec;
			more = offer_run(t, b, r->start, MAX(start, r->start), stop, ret_at);
			t->hand.taken_in_lap += b->n - before;
			if (!more)
				return false;
		}
		start = stop;
	}
	return true;
}

/* Moves the hand on until the batch is full or it has gone round once without effect. */
static void gather(struct task *t, struct batch *b)
{
	struct pagemap_run runs[64];
	unsigned laps = 0;

	while (b->n < b->max && laps < 3) {
		struct region *r = regions_find(&t->regions, t->hand.at);
		uint64_t at, stop, end;
		ssize_t n;

		if (!r) {
			if (!t->hand.taken_in_lap)
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
		t->hand.at = n < 0 ? stop : end;
		for (ssize_t i = 0; i < n; i++)
			if (!offer_span(t, b, runs[i].start, runs[i].end, &t->hand.at))
				return;
	}
	if (!b->n && !t->hand.taken_in_lap) {
		lap_ends(t);
		t->hand.exhausted_until = t->worker->now + LAP_REST;
	}
}

static unsigned command_flags(const struct task *t, const struct batch *b)
{
	unsigned flags = b->exec ? EXCHANGE_EXEC : 0;

	if (!t->features.move)
		flags |= EXCHANGE_NO_MOVE;
	if (!t->features.wp_unpopulated)
		flags |= EXCHANGE_NO_MARK;
	/* Once-shared pages refuse to move until they are written. */
	if (t->forked)
		flags |= EXCHANGE_POPULATE;
	return flags;
}

/* The page is to leave for the frame. */
static void leaves_for(struct task *t, uint32_t frame, uint64_t address)
{
	struct frame *record = &t->frames.records[frame];
	word_t old = table_get(&t->table, address);

	record->address = address;
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
		.posted_at = t->worker->now,
		.flags = command_flags(t, b),
		.n_runs = b->n_runs,
		.n_pages = b->n,
		.first_frame = first_frame,
	};
	memcpy(c->runs, b->runs, sizeof(c->runs));
	for (uint32_t r = 0, i = first_frame; r < b->n_runs; r++)
		for (uint32_t k = 0; k < b->runs[r].pages; k++, i++)
			leaves_for(t, i, b->runs[r].address + pages_to_bytes(k));
	theirs->flags = c->flags;
	theirs->n_runs = c->n_runs;
	theirs->n_pages = c->n_pages;
	theirs->first_frame = first_frame;
	theirs->epoch = atomic_load(&x->epoch);
	memcpy(theirs->runs, c->runs, sizeof(c->runs));
	memset(theirs->result, EXCHANGE_PENDING, sizeof(theirs->result));
	atomic_store(&theirs->state, EXCHANGE_POSTED);
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

/* One command, up to `want` pages. Returns how many pages are on their way. */
static uint32_t evict_task(struct task *t, uint32_t want)
{
	struct batch b = {.max = MIN(want, EXCHANGE_BATCH)};
	struct worker *w = t->worker;
	uint32_t first, n;

	if (t->posted - t->reaped == EXCHANGE_COMMANDS)
		return 0;
	n = frames_take(&t->frames, b.max, reclaim, t, &first);
	if (!n)
		return 0;
	b.max = reserve_slots(w, &t->frames.records[first], n);
	if (!b.max)
		swap_is_full(t->group);
	gather(t, &b);
	if (b.n)
		post(t, &b, first);
	for (uint32_t i = b.n; i < n; i++) {
		if (i < b.max)
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0,
						       t->frames.records[first + i].slot));
		free_frame(t, first + i);
	}
	t->frames.head = first + b.n;
	return b.n;
}

static uint32_t pages_on_their_way(const struct group *g)
{
	const struct task *t;
	uint32_t n = 0;

	TAILQ_FOREACH(t, &g->tasks, link)
		for (unsigned i = 0; i < EXCHANGE_COMMANDS; i++)
			if (t->commands[i].used && !t->commands[i].harvested)
				n += t->commands[i].n_pages;
	return n;
}

static struct task *choose_task(struct group *g)
{
	struct task *t, *best = NULL;
	uint64_t best_weight = 0;

	TAILQ_FOREACH(t, &g->tasks, link) {
		uint64_t weight = victim_weight(t->adopt.anonymous, t->refaults);

		if (!t->evictable || t->ended || t->posted - t->reaped == EXCHANGE_COMMANDS ||
		    g->worker->now < t->hand.exhausted_until)
			continue;
		if (weight > best_weight) {
			best = t;
			best_weight = weight;
		}
	}
	return best;
}

void evict_group(struct group *g)
{
	struct pressure p = pressure_of(bytes_to_pages(g->limit), g->overhead);
	uint64_t away = pages_on_their_way(g);

	if (!g->armed)
		return;
	while (g->resident > p.low + away) {
		struct task *t = choose_task(g);
		uint32_t n;

		if (!t)
			return;
		n = evict_task(t, (uint32_t)MIN(MAX(g->resident - p.low - away, 32ull),
						(uint64_t)EXCHANGE_BATCH));
		if (!n) {
			/* Frames are on their way to the tier, or nothing may leave. */
			if (g->worker->now >= t->hand.exhausted_until)
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
	free_frame(t, frame);
	if (wanted)
		uffd_wake(t->uffd, address, PAGE_SIZE);
}

static void deny(struct task *t, uint64_t address)
{
	struct region *r = regions_find(&t->regions, address);

	if (r && r->start <= address)
		r->denied_until = t->hand.lap + 16;
}

static void harvest(struct task *t, struct command *c, const struct exchange_command *theirs)
{
	uint32_t moved = 0;
	bool stale = false;

	for (uint32_t i = 0; i < c->n_pages; i++) {
		uint32_t frame = c->first_frame + i;
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
			moved++;
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
			stale = stale || result == EXCHANGE_STALE;
			stays(t, frame, result);
			break;
		}
	}
	if (stale)
		count(&t->counters, stale);
	/* Nothing but refusals: what is left is pinned or shared, and trying costs time. */
	else if (!moved)
		t->hand.exhausted_until = t->worker->now + LAP_REST;
	count_add(&t->counters, evicted, moved);
	task_charge(t, -(int64_t)moved);
	c->harvested = true;
}

void evict_harvest(struct task *t)
{
	for (uint32_t n = t->reaped; n != t->posted; n++) {
		struct command *c = &t->commands[n % EXCHANGE_COMMANDS];
		const struct exchange_command *theirs = &t->exchange->commands[n % EXCHANGE_COMMANDS];
		uint32_t state = atomic_load(&theirs->state);

		if (state != EXCHANGE_MOVED && state != EXCHANGE_COPIED)
			return;
		if (!c->harvested)
			harvest(t, c, theirs);
	}
}

/* ---- from frames to slots ---- */

struct write {
	struct tier_io io;
	struct task *task;
	uint32_t first_frame, attempts;
};

static void write_start(struct write *write, struct slot slot);
static void write_frames(struct task *t, uint32_t first, uint32_t n);

static void write_settled(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];
	struct slots *slots = &tier_of(t->worker, record->slot.tier)->slots;

	slots->records[record->slot.index].writing = 0;
	pager_slot_put(t->worker, word_of_slot(WORD_SWAP, 0, record->slot));
	record->state = FRAME_STANDBY;
	if (!record->address)
		free_frame(t, frame);
}

/* The device refuses the slot. What can be given back is; readers of the slot will find that its
 * bytes do not match. */
static void write_lost(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];
	struct slots *slots = &tier_of(t->worker, record->slot.tier)->slots;
	uint64_t address = record->address;
	int ours;

	slots->records[record->slot.index].bad = 1;
	if (t->ended || !address) {
		write_settled(t, frame);
		return;
	}
	ours = fill_is_ours(t, address, table_get(&t->table, address));
	if (ours == 1 && fill_put_back(t, frame)) {
		count(&t->counters, put_back);
	} else if (ours == 0) {
		event_drop_word(t, table_leaf(&t->table, address, false), leaf_index(address));
	} else {
		/* An event is pending: by the time another attempt has failed it may have passed. */
		write_frames(t, frame, 1);
		return;
	}
	write_settled(t, frame);
}

static void write_done(struct tier_io *io, int error)
{
	struct write *write = container_of(io, struct write, io);
	struct task *t = write->task;
	struct slot slot = t->frames.records[write->first_frame].slot;

	if (error) {
		pager_notify(t, PAGER_NOTICE_IO_ERROR,
			     t->frames.records[write->first_frame].address, (uint64_t)-error);
		if (write->attempts++ < 3) {
			write_start(write, slot);
			return;
		}
	} else {
		count_add(&t->counters, pages_out, io->n);
	}
	for (uint32_t i = 0; i < io->n; i++) {
		if (error)
			write_lost(t, write->first_frame + i);
		else
			write_settled(t, write->first_frame + i);
	}
	t->under_way--;
	free(write);
	worker_queue(t);
}

static void write_start(struct write *write, struct slot slot)
{
	struct task *t = write->task;

	write->io.uring = &t->worker->uring;
	write->io.buffer = t->frame_memory + pages_to_bytes(write->first_frame);
	write->io.buffer_index = t->buffer_index;
	write->io.slot = slot.index;
	write->io.write = true;
	write->io.finished = write_done;
	tier_submit(tier_of(t->worker, slot.tier), &write->io);
}

/* Writes frames [first, first + n), whose slots are neighbours. */
static void write_frames(struct task *t, uint32_t first, uint32_t n)
{
	struct write *write = calloc(1, sizeof(*write));

	if (!write)
		abort(); /* a hundred bytes: nothing could go on */
	*write = (struct write){.task = t, .first_frame = first};
	write->io.n = n;
	t->under_way++;
	write_start(write, t->frames.records[first].slot);
}

/* Its own word still names the frame. */
static bool owns_word(struct task *t, uint32_t frame, word_t *ret_word)
{
	uint64_t address = t->frames.records[frame].address;

	*ret_word = address ? table_get(&t->table, address) : WORD_NONE;
	return word_tag(*ret_word) == WORD_EVICTING && word_frame(*ret_word) == frame;
}

/* The page needs no slot, or is still in its old one: no write. */
static bool settles_without_write(struct task *t, uint32_t frame, struct slot_sum sum)
{
	struct frame *record = &t->frames.records[frame];
	struct worker *w = t->worker;
	const void *page = t->frame_memory + pages_to_bytes(frame);
	word_t word;
	uint32_t pattern;

	if (!owns_word(t, frame, &word) ||
	    tier_of(w, record->slot.tier)->slots.records[record->slot.index].count > 1)
		return false;
	if (tier_same_detect(page, &pattern)) {
		pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->slot));
		if (record->has_old)
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->old));
		table_set(&t->table, record->address,
			  word_make(WORD_SWAP, word & WORD_UNMARKED, TIER_SAME, pattern));
		free_frame(t, frame);
		count(&t->counters, same);
		return true;
	}
	if (!record->has_old ||
	    !slot_sum_equal(sum, tier_of(w, record->old.tier)->slots.records[record->old.index].sum))
		return false;
	pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->slot));
	record->slot = record->old;
	record->has_old = false;
	table_set(&t->table, record->address,
		  word_make(WORD_STANDBY, word & WORD_UNMARKED, 0, frame));
	record->state = FRAME_STANDBY;
	count(&t->counters, clean);
	return true;
}

/* One page whose bytes have arrived in its frame. True: it must be written. */
static bool settle(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];
	struct worker *w = t->worker;
	struct slot_record *slot = &tier_of(w, record->slot.tier)->slots.records[record->slot.index];
	struct slot_sum sum = slot_sum_of(t->frame_memory + pages_to_bytes(frame));
	word_t word;

	if (settles_without_write(t, frame, sum))
		return false;
	if (record->has_old) {
		pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->old));
		record->has_old = false;
	}
	slot->sum = sum;
	if (owns_word(t, frame, &word)) {
		table_set(&t->table, record->address,
			  word_make(WORD_STANDBY, word & WORD_UNMARKED, 0, frame));
		pager_slot_get(w, word_of_slot(WORD_SWAP, 0, record->slot));
	} else {
		record->address = 0;
		if (slot->count == 1) { /* our own reservation: nobody wants it */
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->slot));
			free_frame(t, frame);
			return false;
		}
	}
	record->state = FRAME_WRITING; /* the write holds a count of its own */
	return true;
}

static void complete(struct task *t, const struct command *c)
{
	uint64_t wanted[EXCHANGE_BATCH];
	bool write[EXCHANGE_BATCH] = {false};
	uint32_t n_wanted = 0;

	for (uint32_t i = 0; i < c->n_runs; i++)
		/* Writers that were blocked by the protection come back as missing faults. */
		uffd_wake(t->uffd, c->runs[i].address, pages_to_bytes(c->runs[i].pages));
	for (uint32_t i = 0; i < c->n_pages; i++) {
		struct frame *record = &t->frames.records[c->first_frame + i];

		if (!c->out[i])
			continue;
		if (record->wanted && record->address)
			wanted[n_wanted++] = record->address;
		write[i] = settle(t, c->first_frame + i);
	}
	for (uint32_t i = 0, n; i < c->n_pages; i += n) {
		const struct frame *record = &t->frames.records[c->first_frame + i];

		for (n = write[i]; n && i + n < c->n_pages && write[i + n] &&
				   record[n].slot.tier == record->slot.tier &&
				   record[n].slot.index == record->slot.index + n;)
			n++;
		if (n)
			write_frames(t, c->first_frame + i, n);
		else
			n = 1;
	}
	for (uint32_t i = 0; i < n_wanted; i++)
		uffd_wake(t->uffd, wanted[i], PAGE_SIZE);
}

void evict_complete(struct task *t)
{
	while (t->reaped != t->posted) {
		struct command *c = &t->commands[t->reaped % EXCHANGE_COMMANDS];
		struct exchange_command *theirs =
			&t->exchange->commands[t->reaped % EXCHANGE_COMMANDS];

		if (atomic_load(&theirs->state) != EXCHANGE_COPIED)
			return;
		if (!c->harvested)
			harvest(t, c, theirs);
		complete(t, c);
		c->used = false;
		atomic_store(&theirs->state, EXCHANGE_EMPTY);
		t->reaped++;
	}
}

/* ---- markers that came too late ---- */

bool evict_retry_marks(struct task *t)
{
	bool all = true;

	if (!t->features.wp_unpopulated)
		return true;
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
