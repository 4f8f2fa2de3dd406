/*
 * Which pages leave. A clock: the hand walks over a task's resident pages by address; what came in
 * since it last passed is spared once. Contiguous victims cost a tenth of single ones, so the hand
 * takes neighbours together.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mm/word.h"

enum victim_choice {
	VICTIM_TAKE,
	VICTIM_SPARE, /* victim_spared(), come back in the next lap */
	VICTIM_SKIP,  /* not evictable now */
};

/* The word of a page that has been spared: next time it is not, or, if it is active, once more. */
word_t victim_spared(word_t word);

/* lap: how often the hand has gone round; pages that refused to leave are tried in every 8th. */
enum victim_choice victim_choose(word_t word, uint64_t lap);

/* Of several tasks under one limit: how much does this one deserve to be taken from? Who has much
 * and does not ask for it back. refaults: pages that lately had to come back, decaying. */
uint64_t victim_weight(uint64_t resident_pages, uint64_t refaults);
