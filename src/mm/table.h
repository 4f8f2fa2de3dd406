/*
 * The page table of a task: directories as x86-64 has them (9 + 9 + 9 bits) over leaves of 512
 * words. Directories are ours and can be built again; leaves live in the state file.
 *
 * One thread: the owner of the task.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mm/state.h"
#include "mm/word.h"

#define LEAF_SHIFT 21
#define LEAF_SIZE  (1ull << LEAF_SHIFT)

struct leaf {
	uint64_t base;  /* address, LEAF_SIZE aligned */
	word_t *words;  /* LEAF_WORDS of them, in the state file */
	uint16_t used;  /* words that are not NONE */
	uint16_t evicted;
	uint32_t index; /* in the state file */
	bool huge;      /* a hint: it left as one huge page, and has not come back whole */
};

struct table_dir;

struct table {
	struct state *state;
	struct table_dir *root;
	uint32_t *free_leaves; /* indices given back */
	uint32_t n_free, free_capacity;
	uint32_t n_leaves;     /* ever used in the file */
	uint64_t evicted;      /* pages: words EVICTING … FILLING that hold content with us */
	uint64_t n_live;       /* leaves in use */
	uint64_t dirs;         /* directories, 4 KiB each */
};

int table_init(struct table *table, struct state *state);
void table_done(struct table *table);

/* The leaf of an address, or NULL; with create it is made: NULL means no memory. */
struct leaf *table_leaf(struct table *table, uint64_t address, bool create);
/* The first leaf that ends above `address` and begins below `end`, or NULL. */
struct leaf *table_next(struct table *table, uint64_t address, uint64_t end);
/* Gives a leaf without used words back. */
void table_trim(struct table *table, struct leaf *leaf);

/* NONE where there is no leaf. */
word_t table_get(struct table *table, uint64_t address);
/* The one setter: one 8-byte store, with a new generation if more than flags changed. Asserts that
 * the move is legal. Makes the leaf if need be: -ENOMEM. */
int table_set(struct table *table, uint64_t address, word_t word);
void word_set(struct table *table, struct leaf *leaf, unsigned index, word_t word);

/* Bytes that the table costs. */
uint64_t table_bytes(const struct table *table);

static inline unsigned leaf_index(uint64_t address)
{
	return (unsigned)(address >> 12) & (LEAF_WORDS - 1);
}
