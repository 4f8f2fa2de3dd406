/* The pager's tiers: opened from the configuration, found by the words that name their slots. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pager/worker.h"

static struct slots *slots_of(struct worker *w, word_t word)
{
	enum word_tag tag = word_tag(word);

	if (tag == WORD_POISON || word_tier(word) == TIER_SAME)
		return NULL;
	return &tier_of(w, word_tier(word))->slots;
}

void pager_slot_get(struct worker *w, word_t word)
{
	struct slots *slots = slots_of(w, word);

	if (slots)
		slot_get(slots, word_slot(word).index);
}

void pager_slot_put(struct worker *w, word_t word)
{
	struct slots *slots = slots_of(w, word);

	if (slots)
		slot_put(slots, word_slot(word).index);
}

static int open_tier(struct pager *p, const struct pager_swap *swap, unsigned number)
{
	const struct tier_file_options options = {
		.path = swap->path,
		.size = swap->size,
		.preallocate = swap->preallocate,
		.direct = swap->direct,
		.create = swap->create,
	};
	struct tier *tier;
	char name[32];
	uint32_t n;
	int r = tier_file_open(&options, &tier, &n);

	if (r < 0)
		return r;
	tier->priority = swap->priority;
	if (swap->delay_us)
		r = tier_delay_open(swap->delay_us, tier, &tier);
	if (r == 0 && swap->error_every)
		r = tier_error_open(swap->error_every, tier, &tier);
	snprintf(tier->name, sizeof(tier->name), "swap%u", number - 1);
	snprintf(name, sizeof(name), "slots-%u", number);
	if (r == 0)
		r = slots_init(&tier->slots, p->state_dir, name, number, n);
	if (r < 0) {
		tier_close(tier);
		return r;
	}
	p->tiers[number] = tier;
	p->order[p->n_tiers++] = number;
	return 0;
}

static int by_priority(const void *a, const void *b, void *context)
{
	struct pager *p = context;
	int pa = p->tiers[*(const unsigned *)a]->priority;
	int pb = p->tiers[*(const unsigned *)b]->priority;

	return pa != pb ? (pa < pb) - (pa > pb) : 0;
}

size_t pager_tiers(const struct pager *p, struct pager_tier_stat *ret, size_t max)
{
	size_t n = 0;

	if (max)
		ret[0] = (struct pager_tier_stat){.name = "same", .priority = 32767};
	n++;
	for (unsigned i = 0; i < p->n_tiers; i++, n++) {
		const struct tier *tier = p->tiers[p->order[i]];
		struct tier_stat stat;

		if (n >= max)
			continue;
		tier_stat(tier, &stat);
		ret[n] = (struct pager_tier_stat){
			.priority = tier->priority,
			.size = stat.size,
			.used = stat.used,
			.pages_in = stat.pages_in,
			.pages_out = stat.pages_out,
			.errors = stat.errors,
			.direct = stat.direct,
			.preallocated = stat.preallocated,
			.registered_buffers = p->n_workers && p->workers[0].bounce_index >= 0,
		};
		memcpy(ret[n].name, tier->name, sizeof(ret[n].name));
		memcpy(ret[n].path, tier->path, sizeof(ret[n].path));
	}
	return n;
}

int tiers_open(struct pager *p, const char **ret_error_on)
{
	int r;

	for (size_t i = 0; i < p->config.n_swaps && i + 1 < TIERS_MAX; i++) {
		*ret_error_on = p->config.swaps[i].path;
		r = open_tier(p, &p->config.swaps[i], (unsigned)i + 1);
		if (r < 0)
			return r;
	}
	qsort_r(p->order, p->n_tiers, sizeof(*p->order), by_priority, p);
	return 0;
}

void tiers_remove(struct pager *p)
{
	for (unsigned i = 1; i < TIERS_MAX; i++)
		tier_remove(p->tiers[i]);
}

void tiers_close(struct pager *p)
{
	char name[32];

	for (unsigned i = 1; i < TIERS_MAX; i++) {
		if (!p->tiers[i])
			continue;
		snprintf(name, sizeof(name), "slots-%u", i);
		slots_done(&p->tiers[i]->slots, p->state_dir, name);
		tier_close(p->tiers[i]);
	}
}
