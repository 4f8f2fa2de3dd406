/*
 * The slots of one tier: counted, generation-stamped, checksummed; records live in a file.
 *
 *   header | records
 *
 * Records are the one thing that workers share. A slot in use is one worker's: whoever has taken it from
 * 0 to 1, or holds the only count. The others merely look for free ones, and a compare-and-swap of the
 * whole state takes one. So its worker changes the state by loading and storing it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mm/word.h"

#define SLOTS_MAGIC   0x73746f6c73677075ull
#define SLOTS_VERSION 1u

/* gen 8, flags 3, count 21. The count is of words, writes under way and limbo entries that refer to the
 * slot. One that has reached SLOT_COUNT stays there: nobody knows any more when the last lets go, so the
 * slot is never free again. */
enum slot_state {
	SLOT_COUNT = (1 << 21) - 1,
	SLOT_WRITING = 1 << 21, /* its bytes are not in the tier yet: readers wait */
	SLOT_BAD = 1 << 22,     /* the device refused it: never used again */
	SLOT_BY_HAND = 1 << 23, /* the hand had taken the page, not the queue (policy/victim.h) */
};
#define SLOT_GEN_SHIFT 24

struct slot_record {
	uint64_t sum;    /* slot_sum() of the page */
	uint32_t shadow; /* the group's evictions when the page left (policy/refault.h) */
	_Atomic uint32_t state;
};

struct slots_header {
	uint64_t magic;
	uint32_t version, n;
	uint64_t seed;
};

struct slots {
	struct slots_header *header;
	struct slot_record *records;
	uint32_t n;
	uint8_t tier;
	_Atomic uint32_t used;
	_Atomic uint32_t cursor;
	_Atomic uint32_t spare;       /* one part in so many is: how far the cursor goes */
	_Atomic uint32_t taken, runs; /* by it, since it last turned round: slots; runs that were cut short */
};

/* Makes the records file `name` for n slots in directory dir_fd. seed: of the sums, a secret; tiers that
 * pages may go between share it. */
int slots_init(struct slots *slots, int dir_fd, const char *name, unsigned tier, uint32_t n,
	       uint64_t seed);
void slots_done(struct slots *slots, int dir_fd, const char *name);

/* Takes up to `want` neighbouring slots, each counted once; returns how many (0: full) and the
 * first. */
uint32_t slots_take(struct slots *slots, uint32_t want, uint32_t *ret_first);

void slot_get(struct slots *slots, uint32_t index);
/* Lets go; true when that was the last count: the slot is free and has a new generation. */
bool slot_put(struct slots *slots, uint32_t index);

/* => the slot is in use by the caller's worker. */
void slot_mark(struct slots *slots, uint32_t index, enum slot_state flag, bool on);

static inline uint32_t slot_count(const struct slots *slots, uint32_t index)
{
	return atomic_load(&slots->records[index].state) & SLOT_COUNT;
}

static inline bool slot_is(const struct slots *slots, uint32_t index, enum slot_state flag)
{
	return atomic_load(&slots->records[index].state) & flag;
}

static inline struct slot slot_name(const struct slots *slots, uint32_t index)
{
	uint32_t state = atomic_load(&slots->records[index].state);

	return (struct slot){.tier = slots->tier, .gen = (uint8_t)(state >> SLOT_GEN_SHIFT),
			     .index = index};
}

/* XXH3 of the page: 64 bits, seeded, so that pages with the same sum can't be looked for beforehand. */
uint64_t slot_sum(const struct slots *slots, const void *page);
