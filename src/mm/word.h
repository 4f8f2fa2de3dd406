/*
 * The word: the state of one page, like a pte; eight bytes in the task's state file.
 *
 *   63          26 25  22 21   10 9    4 3   0
 *   payload 38     tier 4 gen 12  flags  tag
 *
 *   tag       payload                who sets it, when
 *   NONE      -                      event, fork: nothing of ours is known there
 *   PRESENT   a slot if SLOT is set  fill: the page is mapped; the slot still holds its old bytes
 *   EVICTING  frame                  evict: a command under way may move it to the frame
 *   STANDBY   frame                  evict: the page is in the frame, and nowhere in the client
 *   SWAP      slot, or a pattern     evict, fork, remap: the page rests in the tier
 *   FILLING   slot                   fill: a read is under way
 *   POISON    -                      fill: the bytes are lost
 *
 * The table is a shadow: the kernel's page table is the truth. Of it the *marker* (uffd-wp on an
 * empty pte) says "evicted, not discarded"; a word EVICTING … FILLING whose marker is gone is
 * dropped. UNMARKED words are evicted pages whose marker has not been set yet: for them the word
 * counts until an event drops it.
 * Legal moves are in word.c; word_set() in mm/table.h is the one setter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t word_t;

enum word_tag {
	WORD_NONE,
	WORD_PRESENT,
	WORD_EVICTING,
	WORD_STANDBY,
	WORD_SWAP,
	WORD_FILLING,
	WORD_POISON,
	WORD_TAGS,
};

enum word_flag {
	WORD_YOUNG = 1 << 4,    /* came in since the hand last passed; or: is on probation */
	WORD_UNMARKED = 1 << 5, /* evicted, but the kernel's marker is not set */
	WORD_SLOT = 1 << 6,     /* PRESENT: the payload is a slot with the bytes as of the fill */
	WORD_WP = 1 << 7,       /* PRESENT: write-protected, the first write will tell */
	WORD_PINNED = 1 << 8,   /* refused to leave; looked at again seldom */
	WORD_ACTIVE = 1 << 9,   /* was asked for again soon after it had left */
	WORD_FLAGS = 0x3f << 4,
};

#define WORD_GEN_SHIFT     10
#define WORD_GEN_MASK      (0xfffull << WORD_GEN_SHIFT)
#define WORD_TIER_SHIFT    22
#define WORD_PAYLOAD_SHIFT 26
#define WORD_PAYLOAD_MAX   ((1ull << 38) - 1)

#define TIER_SAME 0u /* payload = the 32-bit pattern that fills the page */
#define TIERS_MAX 16u

/* A page's place in a tier: number and generation. */
struct slot {
	uint8_t tier;
	uint8_t gen;
	uint32_t index; /* < 2^30 */
};
#define SLOT_INDEX_BITS 30

static inline enum word_tag word_tag(word_t word)
{
	return word & 0xf;
}

static inline unsigned word_tier(word_t word)
{
	return (word >> WORD_TIER_SHIFT) & 0xf;
}

static inline uint64_t word_payload(word_t word)
{
	return word >> WORD_PAYLOAD_SHIFT;
}

static inline word_t word_make(enum word_tag tag, unsigned flags, unsigned tier, uint64_t payload)
{
	return (word_t)tag | flags | (word_t)tier << WORD_TIER_SHIFT |
	       payload << WORD_PAYLOAD_SHIFT;
}

static inline word_t word_of_slot(enum word_tag tag, unsigned flags, struct slot slot)
{
	return word_make(tag, flags, slot.tier,
			 (uint64_t)slot.gen << SLOT_INDEX_BITS | slot.index);
}

/* => the word is SWAP or FILLING, or PRESENT with SLOT. */
static inline struct slot word_slot(word_t word)
{
	uint64_t payload = word_payload(word);

	return (struct slot){
		.tier = (uint8_t)word_tier(word),
		.gen = (uint8_t)(payload >> SLOT_INDEX_BITS),
		.index = (uint32_t)(payload & ((1u << SLOT_INDEX_BITS) - 1)),
	};
}

static inline uint32_t word_frame(word_t word)
{
	return (uint32_t)word_payload(word);
}

/* Does the page's content rest with us? */
static inline bool word_is_evicted(word_t word)
{
	enum word_tag tag = word_tag(word);

	return tag >= WORD_EVICTING && tag <= WORD_POISON;
}

/* pte_same(): tag, generation, tier and payload agree; flags may differ. */
static inline bool word_same(word_t a, word_t b)
{
	return ((a ^ b) & ~(word_t)WORD_FLAGS) == 0;
}

/* May a word go from one tag to the other? */
bool word_may_become(enum word_tag from, enum word_tag to);
const char *word_tag_name(enum word_tag tag);
