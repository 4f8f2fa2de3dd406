/*
 * When memory is short: numbers in, decisions out. All figures are pages unless they say bytes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PRESSURE_LIMIT_MIN (16ull << 20) /* bytes; the smallest limit that can be held */

struct pressure {
	uint64_t limit;  /* what the group may have */
	uint64_t high;   /* programs' memory above which faults wait: limit less our overhead */
	uint64_t low;    /* eviction goes on down to here */
	uint64_t slack;  /* pages above `low` from which on it begins */
	uint64_t arm;    /* from here on memory is registered */
};

/* overhead: frames and staging that the group costs already. */
struct pressure pressure_of(uint64_t limit, uint64_t overhead);

/* How many frames each of n tasks may use under this limit. */
uint32_t pressure_frames(uint64_t limit, unsigned n_tasks);

/* Nanoseconds until the next look at a group that is not armed: as long as even a program that
 * touches 8 GB a second needs to come near. */
uint64_t pressure_interval_ns(const struct pressure *pressure, uint64_t resident);
