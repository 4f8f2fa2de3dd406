/*
 * Pages in the order in which they came in, as runs: a ring that grows. Nothing is taken out of its
 * middle: what has left or was discarded meanwhile is still named, so who takes a run looks at the
 * words. One thread: the owner of the task.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define QUEUE_RUN 256u /* most pages of a run: never all of a huge page */

struct queue {
	uint64_t *runs;    /* address | pages - 1, oldest at tail; owned */
	uint32_t capacity; /* a power of two, or 0 */
	uint32_t head, tail; /* ever pushed, ever taken; they wrap */
	uint64_t pages;
};

/* Frees what it holds; it can be used again. */
void queue_done(struct queue *queue);

/* The pages are the newest. Where there is no memory for more runs, the oldest is forgotten. */
void queue_push(struct queue *queue, uint64_t address, uint32_t pages);

/* How many pages do the oldest `runs` runs have? */
uint64_t queue_peek(const struct queue *queue, uint32_t runs);

/* Takes up to `max` pages (> 0) of the oldest run; returns how many, 0: it is empty. */
uint32_t queue_take(struct queue *queue, uint32_t max, uint64_t *ret_address);
