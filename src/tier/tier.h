/*
 * A tier: where evicted pages rest. One table of functions; filters (error, delay) stand before
 * another tier and pass on what they let through.
 *
 * I/O is asynchronous on the worker's ring: submit() returns at once, io->finished runs later on
 * the same thread, exactly once, also after a failure to submit is turned into a result.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mm/slots.h"
#include "sys/uring.h"

struct tier;

/* One transfer of neighbouring slots; the caller's until finished() is called. What is written to a
 * slot stays until it is free: a write may be repeated, after a failure, but with the same bytes. */
struct tier_io {
	struct completion completion;
	STAILQ_ENTRY(tier_io) link; /* of a tier that does one after the other */
	struct tier *tier;
	struct uring *uring;
	void *buffer;        /* page aligned, n pages */
	int buffer_index;    /* registered buffer that holds it, or -1 */
	uint32_t slot, n;
	bool write;
	uint32_t bytes_done; /* of this transfer: short ones are continued */
	uint32_t compressed; /* out: pages that are in, or came from, compressed memory */
	uint32_t parts;      /* that a filter has split it into, under way */
	int error;           /* of one of these */
	struct __kernel_timespec after; /* for the delay filter */
	void (*finished)(struct tier_io *io, int error); /* 0 or -errno */
};

struct tier_stat {
	uint64_t size, used; /* bytes */
	uint64_t pages_in, pages_out, errors;
	bool direct, preallocated;
};

struct tier_ops {
	const char *name;
	int (*submit)(struct tier *tier, struct tier_io *io); /* read or write */
	/* Makes sure that n slots, taken a moment ago, can be written; returns how many of them can
	 * be. NULL: all. */
	uint32_t (*reserve)(struct tier *tier, struct uring *uring, uint32_t slot, uint32_t n);
	/* The slot is about to be free. May be NULL. */
	void (*discard)(struct tier *tier, struct uring *uring, uint32_t slot);
	/* Is there little room where the slot's bytes are? May be NULL. */
	bool (*is_short)(const struct tier *tier, uint32_t slot);
	int (*flush)(struct tier *tier);           /* may be NULL */
	void (*stat)(const struct tier *tier, struct tier_stat *stat);
	void (*remove)(struct tier *tier); /* may be NULL */
	void (*close)(struct tier *tier);
};

struct tier {
	const struct tier_ops *ops;
	struct tier *next; /* of a filter: what it stands before */
	struct slots slots; /* of the outermost */
	char name[16];
	char path[256];
	int priority;
	_Atomic uint64_t pages_in, pages_out, errors;
};

struct tier_file_options {
	const char *path;
	uint64_t size;
	bool preallocate, direct, create;
};

/* => *ret_slots: how many pages it holds. -EINVAL: too small; -ENOTBLK: neither a regular file nor
 * a block device; -EBUSY: in use as kernel swap, mounted, or by another daemon. */
int tier_file_open(const struct tier_file_options *options, struct tier **ret, uint32_t *ret_slots);
/* Every n-th transfer fails with -EIO. Takes `next`. */
int tier_error_open(unsigned every, struct tier *next, struct tier **ret);
/* Every transfer completes so much later. Takes `next`. */
int tier_delay_open(unsigned delay_us, struct tier *next, struct tier **ret);

/* Takes the names of files away that were created. NULL is fine. */
void tier_remove(struct tier *tier);
void tier_close(struct tier *tier); /* NULL is fine */

/* Starts a transfer; a failure to start reaches finished() as well. */
void tier_submit(struct tier *tier, struct tier_io *io);
/* As slots_take(), as far as they can be written, too. */
uint32_t tier_take(struct tier *tier, struct uring *uring, uint32_t want, uint32_t *ret_first);
/* Lets go of a slot; the last one frees it. => called by the worker that has it. */
void tier_put(struct tier *tier, struct uring *uring, uint32_t slot);
/* Does it fill up, so that a page which is in memory as well should let go of its slot (vm_swap_full)? */
bool tier_is_short(const struct tier *tier, uint32_t slot);
void tier_stat(const struct tier *tier, struct tier_stat *stat);

/* The same-filled tier needs no I/O: is the page one 32-bit pattern throughout? */
bool tier_same_detect(const void *page, uint32_t *ret_pattern);
void tier_same_fill(void *page, uint32_t pattern);
