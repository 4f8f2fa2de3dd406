/*
 * Streams: faults that follow each other. Their window doubles while they last, and decides how
 * many neighbours come along: readahead for pages in a tier, zeros ahead of first touches.
 */
#pragma once

#include <stdint.h>

#define STREAMS 8

struct stream {
	uint64_t next;   /* the address at which it would fault next */
	uint32_t window; /* pages */
	uint32_t used;   /* when, for replacement */
};

struct streams {
	struct stream stream[STREAMS];
	uint32_t clock;
};

/* A fault at `address`: how many pages, 1 … max, should be brought in from there. The caller then
 * says up to where it did. */
uint32_t stream_window(struct streams *streams, uint64_t address, uint32_t max,
		       struct stream **ret_stream);
void stream_advance(struct stream *stream, uint64_t next);
