/*
 * Compressed memory before a tier: what compresses well rests in memory, the rest in the tier behind.
 *
 * It is a filter with the slot numbers of the tier behind it, so no word changes when a page goes
 * from the one place to the other: a list by slot says where in memory its bytes are, or that they are
 * not. All tiers share one pool; each worker has a log of its own in it (tier/arena.h). As the
 * pool fills up, the oldest pages are written to the tiers behind, many at once, and leave the pool
 * when that has succeeded. Checksums are those of the page, and belong to who reads it: what
 * can't be decompressed reads as zeros, which no checksum of a slot matches but that of zeros.
 *
 * Compressing and decompressing takes microseconds, on the worker's thread: a few pages in each
 * turn, reads before writes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tier/codec.h"
#include "tier/tier.h"

struct zpool;

struct zpool_options {
	uint64_t size; /* bytes of memory, ZPOOL_SIZE_MIN … ARENA_SIZE_MAX */
	enum codec_kind algorithm;
	int level;
	unsigned workers; /* whose rings have numbers below */
	int dir;          /* of the file that the memory is; stays open as long as the pool */
};

#define ZPOOL_SIZE_MIN (1u << 20)

struct zpool_stat {
	uint64_t size, used, peak; /* bytes of memory: the bound, what is taken, and was at most */
	uint64_t pages;            /* that are there */
	uint64_t pages_in, pages_out;
	uint64_t bytes_out;    /* what the pages out have become */
	uint64_t written_back; /* pages that went to the tier behind */
	uint64_t rejected;     /* pages that did not compress */
	uint64_t errors;       /* pages that could not be decompressed */
};

/* -EINVAL: size or level. */
int zpool_open(const struct zpool_options *options, struct zpool **ret);
/* => the tiers are closed. NULL is fine. */
void zpool_close(struct zpool *pool);
void zpool_stat(const struct zpool *pool, struct zpool_stat *ret);

/* A tier of n slots before `next`, which it takes; number: as in words. NULL: there is nothing behind, so pages
 * that don't compress are kept as they are, and the tier is full when the memory is. */
int tier_zpool_open(struct zpool *pool, unsigned number, uint32_t n, struct tier *next,
		    struct tier **ret);
/* How many slots such a tier without another behind it should have. */
uint32_t zpool_slots(const struct zpool *pool);
