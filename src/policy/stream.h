/*
 * Streams: faults that follow each other. Their window doubles while they last, and decides how
 * many neighbours come along: readahead for pages in a tier, zeros ahead of first touches.
 */
#pragma once

#include <stdint.h>

#define STREAMS 8
#define STREAM_BLOCK  8u  /* pages: neighbours that come along where faults are near each other */
#define STREAM_BLOCKS 256 /* blocks that are remembered */

struct stream {
	uint64_t next;   /* the address at which it would fault next */
	uint64_t ahead;  /* up to where it has been read ahead; the reader's own */
	uint32_t window; /* pages */
	uint32_t used;   /* when, for replacement */
};

struct streams {
	struct stream stream[STREAMS];
	uint32_t clock;
	/* Locality without order: how often does a fault hit a block in which another was lately? */
	uint64_t block[STREAM_BLOCKS];
	uint32_t near; /* 0 … 256, a moving average: 256 = always */
};

/* A fault at `address`: how many pages, 1 … max, should be brought in from there. The caller then
 * says up to where it did. */
uint32_t stream_window(struct streams *streams, uint64_t address, uint32_t max,
		       struct stream **ret_stream);
void stream_advance(struct stream *stream, uint64_t next);
