/*
 * Which pages leave. Of what is resident nobody tells us what is used: a page is seen when it comes in,
 * and not again until it has left. So a policy decides by how soon pages are asked for again.
 *
 * Victims come from two places. The hand walks over a task's resident pages by address, since
 * contiguous victims cost a tenth of single ones. The queue (mm/queue.h) has pages in the order in
 * which they came in; only those that the policy has put on probation are in it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mm/word.h"

enum victim_choice {
	VICTIM_TAKE,
	VICTIM_SPARE, /* spared(), come back in the next lap */
	VICTIM_SKIP,  /* not evictable now */
};

enum victim_source { VICTIM_HAND, VICTIM_QUEUE };

/* What a policy knows of a task. The caller keeps the first two up to date, all are pages. */
struct victims {
	uint64_t resident; /* of the task */
	uint64_t memory;   /* resident pages of its group */
	uint64_t queued;   /* in its queue, whatever has become of them */
	uint64_t reach;    /* 2q: evictions × 256 within which a page must come back; 0: not known */
	uint64_t leaving;  /* 2q: pages that have left since the hand was last tried */
	bool short_of_main; /* 2q: too many are on probation */
};

/* A page that comes in. */
struct victim_page {
	bool new;          /* it has not been out; else: */
	bool asked;        /* a fault was for it, not for a neighbour */
	bool streamed;     /* it came in with a stream: cheap to bring back */
	bool by_hand;      /* the hand had taken it, not the queue */
	uint32_t distance; /* how many pages of the group have left since it did */
};

struct victim_policy {
	const char *name;
	/* The flags of its word. YOUNG: it is on probation; ACTIVE: it was asked for again soon. */
	unsigned (*comes)(struct victims *v, const struct victim_page *page);
	/* What has to leave next, and at most how many pages of that. */
	enum victim_source (*source)(struct victims *v, uint32_t *want);
	/* lap: how often the hand has gone round; pages that refused to leave are tried in every 8th. */
	enum victim_choice (*choose)(word_t word, enum victim_source source, uint64_t lap);
	/* The word of a page that has been spared. */
	word_t (*spared)(word_t word);
	void (*left)(struct victims *v, enum victim_source source, uint32_t pages);
	bool queues; /* what is on probation goes to the queue */
};

extern const struct victim_policy victim_2q, victim_clock;

/* Of several tasks under one limit: how much does this one deserve to be taken from? Who has much
 * and does not ask for it back. refaults: pages that lately had to come back, decaying. */
uint64_t victim_weight(uint64_t resident_pages, uint64_t refaults);
