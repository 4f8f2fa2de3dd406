/* The pager's tiers: opened from the configuration, found by the words that name their slots. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/util.h"
#include "pager/worker.h"
#include "tier/zpool.h"

/* NULL: there is no slot. */
static struct tier *tier_of_word(struct worker *w, word_t word)
{
	enum word_tag tag = word_tag(word);

	if (tag == WORD_POISON || word_tier(word) == TIER_SAME)
		return NULL;
	return tier_of(w, word_tier(word));
}

void pager_slot_get(struct worker *w, word_t word)
{
	struct tier *tier = tier_of_word(w, word);

	if (tier)
		slot_get(&tier->slots, word_slot(word).index);
}

void pager_slot_put(struct worker *w, word_t word)
{
	struct tier *tier = tier_of_word(w, word);

	if (tier)
		tier_put(tier, &w->uring, word_slot(word).index);
}

static int add_tier(struct pager *p, struct tier *tier, unsigned number, uint32_t n_slots)
{
	char name[32];
	int r;

	snprintf(name, sizeof(name), "slots-%u", number);
	r = slots_init(&tier->slots, p->state_dir, name, number, n_slots, p->seed);
	if (r < 0)
		return r;
	p->tiers[number] = tier;
	p->order[p->n_tiers++] = number;
	return 0;
}

static int open_swap(struct pager *p, const struct pager_swap *swap, unsigned number)
{
	const struct tier_file_options options = {
		.path = swap->path,
		.size = swap->size,
		.preallocate = swap->preallocate,
		.direct = swap->direct,
		.create = swap->create,
	};
	struct tier *tier;
	uint32_t n;
	int r = tier_file_open(&options, &tier, &n);

	if (r < 0)
		return r;
	tier->priority = swap->priority;
	if (swap->delay_us)
		r = tier_delay_open(swap->delay_us, tier, &tier);
	if (r == 0 && swap->error_every)
		r = tier_error_open(swap->error_every, tier, &tier);
	if (r == 0 && p->zpool)
		r = tier_zpool_open(p->zpool, number, n, tier, &tier);
	snprintf(tier->name, sizeof(tier->name), "swap%u", number - 1);
	if (r == 0)
		r = add_tier(p, tier, number, n);
	if (r < 0)
		tier_close(tier);
	return r;
}

static int open_zpool(struct pager *p)
{
	const struct zpool_options options = {
		.size = p->config.compressed.size,
		.algorithm = p->config.compressed.algorithm == PAGER_ZSTD ? CODEC_ZSTD : CODEC_LZ4,
		.level = p->config.compressed.level,
		.workers = p->config.workers,
		.dir = p->state_dir,
	};
	struct tier *tier = NULL;
	int r = zpool_open(&options, &p->zpool);

	if (r < 0 || p->config.n_swaps)
		return r;
	r = tier_zpool_open(p->zpool, 1, zpool_slots(p->zpool), NULL, &tier);
	if (r == 0)
		r = add_tier(p, tier, 1, zpool_slots(p->zpool));
	if (r < 0)
		tier_close(tier);
	return r;
}

static int by_priority(const void *a, const void *b, void *context)
{
	struct pager *p = context;
	int pa = p->tiers[*(const unsigned *)a]->priority;
	int pb = p->tiers[*(const unsigned *)b]->priority;

	return pa != pb ? (pa < pb) - (pa > pb) : 0;
}

static struct pager_tier_stat stat_of_zpool(const struct pager *p)
{
	struct zpool_stat stat;

	zpool_stat(p->zpool, &stat);
	return (struct pager_tier_stat){
		.name = "compressed",
		.priority = 32767,
		.size = stat.size,
		.used = stat.used,
		.pages_in = stat.pages_in,
		.pages_out = stat.pages_out,
		.errors = stat.errors,
		.compressed = true,
		.peak = stat.peak,
		.pages = stat.pages,
		.bytes_out = stat.bytes_out,
		.written_back = stat.written_back,
		.rejected = stat.rejected,
	};
}

static struct pager_tier_stat stat_of_tier(const struct pager *p, const struct tier *tier)
{
	struct pager_tier_stat ret;
	struct tier_stat stat;

	tier_stat(tier, &stat);
	ret = (struct pager_tier_stat){
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
	memcpy(ret.name, tier->name, sizeof(ret.name));
	memcpy(ret.path, tier->path, sizeof(ret.path));
	return ret;
}

size_t pager_tiers(const struct pager *p, struct pager_tier_stat *ret, size_t max)
{
	size_t n = 0;

	if (max)
		ret[0] = (struct pager_tier_stat){.name = "same", .priority = 32767};
	n++;
	if (p->zpool && n++ < max)
		ret[1] = stat_of_zpool(p);
	for (unsigned i = 0; p->config.n_swaps && i < p->n_tiers; i++, n++)
		if (n < max)
			ret[n] = stat_of_tier(p, p->tiers[p->order[i]]);
	return n;
}

int tiers_open(struct pager *p, const char **ret_error_on)
{
	int r;

	if (getrandom(&p->seed, sizeof(p->seed), 0) < 0)
		return -errno;
	if (p->config.compressed.size) {
		*ret_error_on = "compressed memory";
		r = open_zpool(p);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < p->config.n_swaps && i + 1 < TIERS_MAX; i++) {
		*ret_error_on = p->config.swaps[i].path;
		r = open_swap(p, &p->config.swaps[i], (unsigned)i + 1);
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
	zpool_close(p->zpool);
}
