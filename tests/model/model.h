/*
 * The model: what a page must read as, and in which states the pager and the kernel may have it.
 * Pure: no clock, no I/O, no pager.
 *
 * A page's state is what the pager's word and the kernel's page table say together. An operation
 * takes the states that were seen before it to the states that are allowed after it, and says which
 * outcomes its messages may have.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mm/counters.h"
#include "mm/word.h"
#include "ops.h"

/* name, page table, word */
#define PAGE_STATES(X)                                                                             \
	X(UNMAPPED)   /* no mapping; NONE */                                                       \
	X(UNTOUCHED)  /* nothing; NONE, or PRESENT */                                              \
	X(ZERO)	      /* the zero page; NONE, or PRESENT */                                        \
	X(ZERO_WP)    /* the same, protected; NONE, or PRESENT */                                  \
	X(PRESENT)    /* present; NONE, PRESENT */                                                 \
	X(PRESENT_WP) /* present, protected; NONE, PRESENT */                                      \
	X(CLEAN)      /* present; PRESENT with its slot */                                         \
	X(CLEAN_WP)   /* present, protected; PRESENT with its slot */                              \
	X(SAME)	      /* marker; SWAP, same-filled */                                              \
	X(STANDBY)    /* marker; STANDBY */                                                        \
	X(SWAPPED)    /* marker; SWAP in a slot */                                                 \
	X(LOST)	      /* marker; POISON */                                                         \
	X(ORPHAN)     /* marker; NONE: discarded, reads as zeros */                                \
	X(STALE)      /* nothing; evicted: discarded without an event */                           \
	X(GUARDED)    /* guard; any */                                                             \
	X(POISONED)   /* poison; POISON */

enum page_state {
#define X(name) STATE_##name,
	PAGE_STATES(X)
#undef X
	    STATES,
};
#define BIT(state) (1u << STATE_##state)
const char *state_name(enum page_state state);

/* What the kernel says of a page. */
struct kernel_page {
	bool mapped, present, zero, protected, swapped, guard, registered;
};
/* The state that the two make, or -1: no such thing may be. */
int state_of(const struct kernel_page *kernel, word_t word);

enum outcome_name {
#define X(name, text) OUTCOME_##name,
	COUNTER_OUTCOMES(X)
#undef X
	    OUTCOMES,
};
extern const char *const outcome_names[OUTCOMES];

/* What was seen of a process. */
struct seen_page {
	enum page_state state;
	bool registered;
	bool kept; /* the word names a slot, whatever the page table says */
	bool lost; /* it rests in a slot whose bytes were spoiled */
};
struct seen {
	bool alive;
	struct seen_page page[ARENA_PAGES];
	uint64_t outcome[OUTCOMES], messages, readahead, evicted;
};

struct model_page {
	bool mapped, locked, guard;
	bool two;     /* after MADV_FREE: either content, until it is written */
	bool written; /* it was: what is seen next settles it */
	unsigned char prot;
	_Alignas(8) unsigned char bytes[PAGE];
	_Alignas(8) unsigned char other[PAGE];
};
struct model {
	bool alive[PROCESSES];
	bool shared;  /* a living child may have pages too */
	bool pressed; /* the limit hurts: pages may leave at any time */
	bool clean_wp, errors;
	bool reads_ahead; /* a page's bytes may have been read before its slot was spoiled */
	struct model_page page[PROCESSES][ARENA_PAGES];
};

struct expected {
	uint32_t states[PROCESSES][ARENA_PAGES]; /* masks of enum page_state */
	uint64_t least[OUTCOMES], most[OUTCOMES];
	bool balanced; /* as many pages came in as fills and readahead say */
};

/* Is the whole range mapped alike, so that it may be one VMA? */
bool model_alike(const struct model *model, const struct op *op);
/* Can the operation be tried at all? Pure guesswork is not: it would test the kernel. */
bool model_possible(const struct model *model, const struct op *op);

/* Applies an operation that had this outcome. `before` is what was seen of each process. NULL, or
 * why the outcome cannot be; then nothing else is said. `file` is what OP_DIRECT read. */
const char *model_step(struct model *model, const struct op *op, const struct outcome *outcome,
		       const struct seen before[PROCESSES], const void *file, struct expected *ret);

/* Holds what was seen against what is expected. NULL, or what is wrong, in `text`. */
const char *model_compare(const struct model *model, const struct op *op,
			  const struct expected *expected, const struct seen before[PROCESSES],
			  const struct seen after[PROCESSES], char text[256]);

/* May the page's content be this? What MADV_FREE left open is settled by it. */
bool model_content(struct model_page *page, const void *bytes);
