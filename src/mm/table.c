#include "mm/table.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"

/* pgd, pud and pmd: the last holds leaves. */
struct table_dir {
	void *entry[512];
};
#define LEVELS 3
#define TOP    (1ull << 48)

static unsigned level_shift(unsigned level)
{
	return 39 - 9 * level;
}

int table_init(struct table *table, struct state *state)
{
	*table = (struct table){.state = state};
	table->root = calloc(1, sizeof(*table->root));
	table->dirs = 1;
	return table->root ? 0 : -ENOMEM;
}

static void free_dir(struct table_dir *dir, unsigned level)
{
	if (!dir)
		return;
	for (unsigned i = 0; i < 512; i++) {
		if (level + 1 < LEVELS)
			free_dir(dir->entry[i], level + 1);
		else
			free(dir->entry[i]);
	}
	free(dir);
}

void table_done(struct table *table)
{
	free_dir(table->root, 0);
	free(table->free_leaves);
	*table = (struct table){0};
}

static void **slot_of_leaf(struct table *table, uint64_t address, bool create)
{
	struct table_dir *dir = table->root;

	if (address >= TOP)
		return NULL;
	for (unsigned level = 0; level + 1 < LEVELS; level++) {
		void **entry = &dir->entry[(address >> level_shift(level)) & 511];

		if (!*entry) {
			if (!create)
				return NULL;
			*entry = calloc(1, sizeof(*dir));
			if (!*entry)
				return NULL;
			table->dirs++;
		}
		dir = *entry;
	}
	return &dir->entry[(address >> LEAF_SHIFT) & 511];
}

static struct leaf *leaf_new(struct table *table, uint64_t base)
{
	struct leaf *leaf = calloc(1, sizeof(*leaf));
	uint32_t index;

	if (!leaf)
		return NULL;
	if (table->n_free) {
		index = table->free_leaves[--table->n_free];
	} else if (table->n_leaves < STATE_LEAVES) {
		index = table->n_leaves++;
	} else {
		free(leaf);
		return NULL;
	}
	*leaf = (struct leaf){
		.base = base, .words = table->state->leaves[index], .index = index};
	table->state->leaf_base[index] = base + 1;
	table->n_live++;
	return leaf;
}

struct leaf *table_leaf(struct table *table, uint64_t address, bool create)
{
	void **entry = slot_of_leaf(table, address, create);

	if (!entry)
		return NULL;
	if (!*entry && create)
		*entry = leaf_new(table, address & ~(LEAF_SIZE - 1));
	return *entry;
}

/* Depth first, skipping what is empty. */
static struct leaf *next_in(struct table_dir *dir, unsigned level, uint64_t base, uint64_t at,
			    uint64_t end)
{
	uint64_t span = 1ull << level_shift(level);

	for (unsigned i = at > base ? (unsigned)((at - base) / span) : 0; i < 512; i++) {
		uint64_t start = base + i * span;
		struct leaf *leaf;

		if (start >= end)
			return NULL;
		if (!dir->entry[i])
			continue;
		leaf = level + 1 < LEVELS ? next_in(dir->entry[i], level + 1, start, at, end)
					  : dir->entry[i];
		if (leaf)
			return leaf;
	}
	return NULL;
}

struct leaf *table_next(struct table *table, uint64_t address, uint64_t end)
{
	return next_in(table->root, 0, 0, address, end);
}

void table_trim(struct table *table, struct leaf *leaf)
{
	void **entry;

	if (leaf->used)
		return;
	if (table->n_free == table->free_capacity) {
		uint32_t capacity = table->free_capacity ? table->free_capacity * 2 : 64;
		uint32_t *list = reallocarray(table->free_leaves, capacity, sizeof(*list));

		if (!list)
			return; /* kept: it costs a page, no more */
		table->free_leaves = list;
		table->free_capacity = capacity;
	}
	entry = slot_of_leaf(table, leaf->base, false);
	assert(entry && *entry == leaf);
	*entry = NULL;
	table->state->leaf_base[leaf->index] = 0;
	madvise(leaf->words, PAGE_SIZE, MADV_REMOVE);
	table->free_leaves[table->n_free++] = leaf->index;
	table->n_live--;
	free(leaf);
}

word_t table_get(struct table *table, uint64_t address)
{
	struct leaf *leaf = table_leaf(table, address, false);

	return leaf ? leaf->words[leaf_index(address)] : WORD_NONE;
}

void word_set(struct table *table, struct leaf *leaf, unsigned index, word_t word)
{
	word_t old = leaf->words[index];
	bool was_used = word_tag(old) != WORD_NONE, is_used = word_tag(word) != WORD_NONE;
	bool was_out = word_is_evicted(old), is_out = word_is_evicted(word);

	assert(word_may_become(word_tag(old), word_tag(word)));
	word = (word & ~WORD_GEN_MASK) | (old & WORD_GEN_MASK);
	if (!word_same(old, word))
		word = (word & ~WORD_GEN_MASK) |
		       ((old + (1ull << WORD_GEN_SHIFT)) & WORD_GEN_MASK);
	__atomic_store_n(&leaf->words[index], word, __ATOMIC_RELEASE);
	leaf->used = (uint16_t)(leaf->used + is_used - was_used);
	leaf->evicted = (uint16_t)(leaf->evicted + is_out - was_out);
	table->evicted += (uint64_t)is_out - (uint64_t)was_out;
}

int table_set(struct table *table, uint64_t address, word_t word)
{
	struct leaf *leaf = table_leaf(table, address, word_tag(word) != WORD_NONE);

	if (!leaf)
		return word_tag(word) != WORD_NONE ? -ENOMEM : 0;
	word_set(table, leaf, leaf_index(address), word);
	return 0;
}

uint64_t table_bytes(const struct table *table)
{
	return table->n_live * (PAGE_SIZE + sizeof(struct leaf)) +
	       table->dirs * sizeof(struct table_dir);
}
