/*
 * The frames of a task as a ring: taken at the head, oldest reclaimed first, so that a batch is
 * contiguous in the exchange and what stays on standby is what left last. Records live in the
 * state file. One thread: the owner of the task.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mm/state.h"

struct frames {
	struct frame *records;
	uint32_t n;    /* frames in use by us, ≤ EXCHANGE_FRAMES_MAX */
	uint32_t head; /* where the next batch begins */
	uint32_t held; /* frames that are not FREE */
	uint32_t peak; /* frames ever touched: what the exchange costs in memory */
};

void frames_init(struct frames *frames, struct frame *records, uint32_t n);

/* A contiguous batch of up to `want` frames at the head, made of FREE ones and of STANDBY ones,
 * which `reclaim` is called for first (its word goes from STANDBY to SWAP). Returns how many (0:
 * writes must end first) and the first. They become OUT. */
uint32_t frames_take(struct frames *frames, uint32_t want,
		     void (*reclaim)(void *context, uint32_t frame), void *context,
		     uint32_t *ret_first);
void frames_free(struct frames *frames, uint32_t frame);
