/*
 * Where a task has mapped images. Sorted, disjoint; each entry holds a use of its image.
 * One thread: the owner of the task.
 *
 * A shadow, as regions are: the client's map is the truth, and says so when it is asked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mm/image.h"

enum mapping_advice { MAPPING_NORMAL, MAPPING_SEQUENTIAL, MAPPING_RANDOM };

struct mapping {
	uint64_t start, end;
	struct image *image;
	uint64_t page;   /* of the image, at `start` */
	bool shared;     /* its writes are the file's */
	uint8_t advice;  /* enum mapping_advice */
	uint16_t unit;   /* pages that are read together, a power of two */
};

struct mappings {
	struct mapping *list; /* owned */
	size_t n, capacity;
	/* Entries that an event took away, until no event can still claim them (see limbo). */
	struct mapping *old;
	size_t n_old, old_capacity;
	bool used; /* there has been one */
};

/* The mapping that covers the address, or NULL. */
struct mapping *mappings_find(const struct mappings *mappings, uint64_t address);
/* => none covers the address. Cuts [start, end) to what of it, around the address, none covers. */
void mappings_gap(const struct mappings *mappings, uint64_t address, uint64_t *start, uint64_t *end);
/* Adds one in place of whatever overlaps it, and takes another use of its image; nothing is done if
 * it is known already. -ENOMEM. */
int mappings_add(struct mappings *mappings, const struct mapping *mapping);
/* Forgets [start, end), trimming or splitting what overlaps; the parts are kept as old ones. */
int mappings_remove(struct mappings *mappings, uint64_t start, uint64_t end);
/* What was at [from, from + length) is at `to` now. */
int mappings_move(struct mappings *mappings, uint64_t from, uint64_t to, uint64_t length);
/* What a forked child may have: what is mapped, and what was until just now. */
int mappings_clone(const struct mappings *from, struct mappings *to);
void mappings_forget_old(struct mappings *mappings);
void mappings_done(struct mappings *mappings);

static inline uint64_t mapping_page(const struct mapping *mapping, uint64_t address)
{
	return mapping->page + (address - mapping->start) / 4096;
}
