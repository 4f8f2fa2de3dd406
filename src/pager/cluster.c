/*
 * Clusters: huge pages of the client, 2 MiB that leave and come back together.
 *
 * On the way out a huge page moves as one page table entry, if it is taken whole and alone: a tenth
 * of what 512 small pages cost, where a part of it would first be split. On the way in there is no
 * huge page (COPY makes small ones, khugepaged joins them later), but while memory is not short the
 * neighbours come along: each would be a fault of its own.
 */
#include "base/util.h"
#include "pager/snapshot.h"
#include "pager/worker.h"
#include "sys/pagemap.h"

#define PIECE 32u /* pages that are brought in at a time */

/* ---- out ---- */

/* Pages that a fork shares leave singly; where frames are few, a huge page would take them all. */
bool cluster_serves(const struct task *t, const struct batch *b)
{
	return !t->forked && t->frames.n >= 2 * LEAF_WORDS && !b->splits;
}

uint64_t cluster_next(const struct task *t, const struct batch *b, uint64_t start, uint64_t end)
{
	uint64_t from = (start + LEAF_SIZE - 1) & ~(LEAF_SIZE - 1), to = end & ~(LEAF_SIZE - 1), at;
	struct pagemap_run run;

	if (from >= to || !cluster_serves(t, b) ||
	    pagemap_scan(t->pagemap, from, to, PAGEMAP_HUGE, &run, 1, LEAF_WORDS, &at) != 1 ||
	    run.start % LEAF_SIZE || run.end - run.start < LEAF_SIZE)
		return end;
	return run.start;
}

/* Is the whole of it to leave? Spared are all pages, if one is. */
static bool choose(struct task *t, struct leaf *leaf)
{
	bool take = true, spare = false;

	for (unsigned i = 0; i < LEAF_WORDS; i++) {
		enum victim_choice choice =
			policy_of(t)->choose(leaf->words[i], VICTIM_HAND, t->hand.lap);

		take = take && choice == VICTIM_TAKE &&
		       !snapshot_needs(t, leaf->base + pages_to_bytes(i));
		spare = spare || choice == VICTIM_SPARE;
	}
	for (unsigned i = 0; i < LEAF_WORDS && spare; i++)
		word_set(&t->table, leaf, i, policy_of(t)->spared(leaf->words[i]));
	t->hand.taken_in_lap += spare; /* worth another lap */
	return take;
}

bool cluster_offer(struct task *t, struct batch *b, uint64_t region, uint64_t address,
		   uint64_t *ret_at)
{
	struct leaf *leaf = table_leaf(&t->table, address, true);

	*ret_at = address + LEAF_SIZE;
	if (!leaf || !choose(t, leaf))
		return true;
	if (b->n || b->max < LEAF_WORDS) {
		*ret_at = address;
		t->hand.at_huge = true; /* it takes a command of its own */
		return false;
	}
	b->runs[0] = (struct exchange_run){address, LEAF_WORDS};
	b->n = LEAF_WORDS;
	b->n_runs = 1;
	b->region = region;
	b->huge = true;
	return false;
}

void cluster_left(struct task *t, const struct command *c, uint32_t moved)
{
	struct leaf *leaf = table_leaf(&t->table, c->runs[0].address, false);

	if (!(c->flags & EXCHANGE_HUGE) || moved < LEAF_WORDS || !leaf)
		return;
	leaf->huge = true;
	count(&t->counters, huge_out);
}

/* ---- in ---- */

bool cluster_fits(const struct fault *f, const struct leaf *leaf)
{
	return !f->by_agent && f->task->pagemap >= 0 && group_is_easy(f->task->group, leaf->evicted);
}

/* One piece, from word i on: as far as it is of one kind. *ret_n: how many pages need no more looking
 * at. false: there is no memory to read into, or an event is pending. */
static bool fill_piece(struct fault *f, struct leaf *leaf, unsigned i, uint32_t *brought,
		       uint32_t *ret_n)
{
	uint64_t address = leaf->base + pages_to_bytes(i);
	uint32_t most = MIN(PIECE, LEAF_WORDS - i), n;
	word_t word = leaf->words[i];

	*ret_n = 1;
	if (word_tag(word) == WORD_STANDBY)
		n = fill_frames(f->task, address, most, fill_protects(f) | FILL_STREAM);
	else if (word_tag(word) == WORD_SWAP && word_tier(word) != TIER_SAME)
		n = fill_slots(f->task, address, most, fill_protects(f) | FILL_STREAM);
	else
		return true; /* same-filled is cheap when it is asked for, and perhaps it never is */
	*brought += n;
	*ret_n = n;
	return n;
}

void cluster_fill(struct fault *f, struct leaf *leaf)
{
	uint32_t brought = 0, n;
	unsigned i = 0;

	while (i < LEAF_WORDS && fill_piece(f, leaf, i, &brought, &n))
		i += n;
	leaf->huge = i < LEAF_WORDS; /* else the next fault goes on */
	if (!leaf->huge)
		count(&f->task->counters, huge_in);
	count_add(&f->task->counters, readahead, brought);
}
