/*
 * The operations: what the model decides on, the client does, and the pager must cope with.
 *
 * A small arena of pages at a fixed address, in the program and in a child that it may have forked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARENA	    0x600000000000ull
#define ARENA_PAGES 192u
#define PROCESSES   2u /* the program, and a child of it */
#define PAGE	    4096u
#define PAGE_WORDS  (PAGE / 8)
#define FILE_PAGES  8u /* of the file that is read with O_DIRECT */

/* name, how often it is chosen */
#define MODEL_OPS(X)                                                                               \
	X(READ, 20)                                                                                \
	X(WRITE, 14)                                                                               \
	X(POKE, 12)    /* one word */                                                              \
	X(SAME, 5)     /* a page of one 32-bit pattern */                                          \
	X(COPY_OUT, 4) /* process_vm_readv */                                                      \
	X(DIRECT, 3)   /* O_DIRECT read into a page */                                             \
	X(POPULATE_READ, 2)                                                                        \
	X(POPULATE_WRITE, 2)                                                                       \
	X(DISCARD, 5) /* MADV_DONTNEED */                                                          \
	X(FREE, 3)    /* MADV_FREE */                                                              \
	X(PAGEOUT, 1)                                                                              \
	X(UNMAP, 4)                                                                                \
	X(MAP, 6)	/* where nothing is */                                                     \
	X(MAP_OVER, 2)	/* MAP_FIXED */                                                            \
	X(MOVE, 6)	/* mremap to where nothing is */                                           \
	X(MOVE_OVER, 2) /* mremap, over what is there */                                           \
	X(LEAVE, 2)	/* mremap with MREMAP_DONTUNMAP */                                         \
	X(SHRINK, 2)                                                                               \
	X(GROW, 2)                                                                                 \
	X(PROTECT, 4)                                                                              \
	X(LOCK, 2)                                                                                 \
	X(UNLOCK, 2)                                                                               \
	X(GUARD, 2)                                                                                \
	X(UNGUARD, 2)                                                                              \
	X(FORK, 3)                                                                                 \
	X(EXIT, 2)  /* of the child */                                                             \
	X(PUSH, 12) /* the limit: all that can leaves, then there is room again */                 \
	X(NUDGE, 8) /* the limit: a few pages leave */                                             \
	X(PRESS, 1) /* the limit stays where it hurts, from here on */                             \
	X(RELEASE, 3)                                                                              \
	X(SPOIL, 2) /* a slot's bytes change on the disk */

enum op_kind {
#define X(name, weight) OP_##name,
	MODEL_OPS(X)
#undef X
	    OP_KINDS,
};

struct op {
	uint32_t kind, process;
	uint32_t page, n; /* the range */
	uint32_t to;	  /* its new place, or its new length */
	uint32_t arg;	  /* protection, pattern, page of the file */
	uint64_t seed;	  /* of what is written */
};

struct outcome {
	int64_t result; /* pages done, for those that touch; else 0 or -errno */
	int32_t signal; /* that ended a touch */
	uint64_t sum;	/* of what was read */
};

/* Shared with the client; one for each process. */
struct board {
	struct op op;
	struct outcome outcome;
};

/* Descriptors that the client finds open: two eventfds for each process, the boards, the file. */
enum { FD_BOARDS = 20, FD_FILE, FD_GO, FD_DONE = FD_GO + PROCESSES };

static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t content_word(uint64_t seed, unsigned i)
{
	return mix(seed * 0x9e3779b97f4a7c15ull + i + 1);
}

static inline void content_fill(void *page, uint64_t seed)
{
	uint64_t *words = page;

	for (unsigned i = 0; i < PAGE_WORDS; i++)
		words[i] = content_word(seed, i);
}

static inline void content_same(void *page, uint32_t pattern)
{
	uint64_t *words = page;

	for (unsigned i = 0; i < PAGE_WORDS; i++)
		words[i] = (uint64_t)pattern << 32 | pattern;
}

/* One word of a page, from a seed that says which and what. */
static inline void content_poke(void *page, uint64_t seed)
{
	((uint64_t *)page)[seed % PAGE_WORDS] = mix(seed);
}

static inline uint64_t content_sum(uint64_t sum, const void *page)
{
	const uint64_t *words = page;

	for (unsigned i = 0; i < PAGE_WORDS; i++)
		sum = (sum ^ words[i]) * 0x100000001b3ull + (sum >> 47);
	return sum;
}
