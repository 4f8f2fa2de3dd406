#include "tier/tier.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void tier_submit(struct tier *tier, struct tier_io *io)
{
	int r;

	assert(io->finished && io->n && (uint64_t)io->slot + io->n <= tier->slots.n);
	io->tier = tier;
	io->bytes_done = io->compressed = io->parts = 0;
	io->error = 0;
	r = tier->ops->submit(tier, io);
	if (io->write)
		atomic_fetch_add(&tier->pages_out, io->n);
	else
		atomic_fetch_add(&tier->pages_in, io->n);
	if (r < 0)
		io->finished(io, r);
}

uint32_t tier_take(struct tier *tier, struct uring *uring, uint32_t want, uint32_t *ret_first)
{
	uint32_t n = slots_take(&tier->slots, want, ret_first), granted = n;

	if (n && tier->ops->reserve)
		granted = tier->ops->reserve(tier, uring, *ret_first, n);
	for (uint32_t i = granted; i < n; i++)
		slot_put(&tier->slots, *ret_first + i);
	return granted;
}

void tier_put(struct tier *tier, struct uring *uring, uint32_t slot)
{
	/* Before it is free: from then on it may be another worker's. */
	if (tier->ops->discard && slot_count(&tier->slots, slot) == 1)
		tier->ops->discard(tier, uring, slot);
	slot_put(&tier->slots, slot);
}

bool tier_is_short(const struct tier *tier, uint32_t slot)
{
	return atomic_load(&tier->slots.used) >= tier->slots.n / 2 ||
	       (tier->ops->is_short && tier->ops->is_short(tier, slot));
}

void tier_stat(const struct tier *tier, struct tier_stat *stat)
{
	*stat = (struct tier_stat){
		.size = pages_to_bytes(tier->slots.n),
		.used = pages_to_bytes(atomic_load(&tier->slots.used)),
		.pages_in = atomic_load(&tier->pages_in),
		.pages_out = atomic_load(&tier->pages_out),
		.errors = atomic_load(&tier->errors),
	};
	for (; tier; tier = tier->next)
		if (tier->ops->stat)
			tier->ops->stat(tier, stat);
}

void tier_remove(struct tier *tier)
{
	for (; tier; tier = tier->next)
		if (tier->ops->remove)
			tier->ops->remove(tier);
}

void tier_close(struct tier *tier)
{
	while (tier) {
		struct tier *next = tier->next;

		tier->ops->close(tier);
		tier = next;
	}
}

bool tier_same_detect(const void *page, uint32_t *ret_pattern)
{
	const uint64_t *words = page;
	uint64_t first = words[0];

	if ((uint32_t)first != (uint32_t)(first >> 32))
		return false;
	/* Most pages differ early; the last word catches many that only begin alike. */
	if (words[PAGE_SIZE / 8 - 1] != first || memcmp(page, words + 1, PAGE_SIZE - 8))
		return false;
	*ret_pattern = (uint32_t)first;
	return true;
}

void tier_same_fill(void *page, uint32_t pattern)
{
	uint32_t *words = page;

	for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
		words[i] = pattern;
}
