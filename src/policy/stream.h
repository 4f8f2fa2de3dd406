/*
 * Streams: faults that follow each other at an even step. Their window doubles while they last, and
 * decides how much comes along: readahead for pages in a tier, zeros ahead of first touches.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

#define STREAMS 32
#define STREAM_THREADS 16    /* threads whose last fault is remembered */
#define STREAM_BLOCK  8u  /* pages: neighbours that come along where faults are near each other */
#define STREAM_BLOCKS 256 /* blocks that are remembered */

struct stream {
	uint64_t next;   /* the address at which it would fault next */
	uint64_t ahead;  /* up to where it has been read ahead; the reader's own */
	int64_t step;    /* bytes from one page to the next: PAGE_SIZE forward, less than 0 backward */
	uint32_t window; /* pages */
	uint32_t used;   /* when, for replacement */
};

struct streams {
	struct stream stream[STREAMS];
	uint32_t clock;
	/* Locality without order: how often does a fault hit a block in which another was lately? */
	uint64_t block[STREAM_BLOCKS];
	uint32_t near; /* 0 … 256, a moving average: 256 = always */
	struct {
		uint64_t address;
		int64_t step; /* from the fault before it */
		uint32_t thread;
	} last[STREAM_THREADS];
};

/* A fault at `address`: how many pages, 1 … max, should be brought in from there, at the stream's step.
 * The caller then says up to where it did. thread: whose faults are compared, so that streams backward
 * and at other steps are found too; 0: forward ones alone. */
uint32_t stream_window(struct streams *streams, uint32_t thread, uint64_t address, uint32_t max,
		       struct stream **ret_stream);
/* Are its pages neighbours? */
static inline bool stream_is_dense(const struct stream *stream)
{
	return stream->step == PAGE_SIZE || stream->step == -(int64_t)PAGE_SIZE;
}
/* They begin anew: what was brought in for them was in vain. */
void streams_forget(struct streams *streams);
void stream_advance(struct stream *stream, uint64_t next);
/* How many steps from one address to another; -1 if it is not on the way, or further than `most`. */
int64_t stream_steps(const struct stream *stream, uint64_t from, uint64_t to, uint32_t most);
