/*
 * The slots of one tier: counted, generation-stamped, checksummed; records live in a file.
 *
 * Records are the one thing that workers share: counts are atomic, and a slot's other fields are
 * written by whoever has just taken it from 0 to 1 or holds the only count.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mm/word.h"

struct slot_sum {
	uint64_t low, high; /* XXH3, 128 bits, of the page */
};

struct slot_record {
	_Atomic uint32_t count;   /* words, writes under way and limbo entries that refer to it */
	uint8_t gen;
	_Atomic uint8_t writing;  /* its bytes are not in the tier yet: readers wait */
	uint8_t bad;              /* the device refused it: never used again */
	uint8_t by_hand;          /* the hand had taken the page, not the queue (policy/victim.h) */
	uint32_t shadow;          /* the group's evictions when the page left (policy/refault.h) */
	struct slot_sum sum;
};

struct slots {
	struct slot_record *records;
	uint32_t n;
	uint8_t tier;
	_Atomic uint32_t used;
	_Atomic uint32_t cursor;
};

/* Makes the records file `name` for n slots in directory dir_fd. */
int slots_init(struct slots *slots, int dir_fd, const char *name, unsigned tier, uint32_t n);
void slots_done(struct slots *slots, int dir_fd, const char *name);

/* Takes up to `want` neighbouring slots, each counted once; returns how many (0: full) and the
 * first. */
uint32_t slots_take(struct slots *slots, uint32_t want, uint32_t *ret_first);

void slot_get(struct slots *slots, uint32_t index);
/* Lets go; true when that was the last count: the slot is free and has a new generation. */
bool slot_put(struct slots *slots, uint32_t index);

static inline struct slot slot_name(const struct slots *slots, uint32_t index)
{
	return (struct slot){.tier = slots->tier, .gen = slots->records[index].gen, .index = index};
}

struct slot_sum slot_sum_of(const void *page);
bool slot_sum_equal(struct slot_sum a, struct slot_sum b);
