/* What the rooms of snapshots share. Internal to snapshot*.c; on the worker's thread. */
#pragma once

#include "pager/snapshot.h"
#include "pager/worker.h"
#include "proto/snapshot.h"

#define SNAPSHOT_CHUNK 64u /* pages of one copy */

/* Neighbouring pages that lie one after the other in the file. */
struct run {
	uint64_t address;      /* where they are now: mremap moves them */
	uint64_t pages, first; /* first: index of the page in the file */
};

struct runs {
	struct run *list; /* owned */
	size_t n, capacity;
};

struct snapshot {
	struct task *task;
	int fd;
	uint64_t start, end; /* addresses: what is wanted of the memory */
	bool one_piece;      /* a range: it lies in the file as in memory, with holes */
	int error; /* the first that came */
	enum { SNAPSHOT_BEGINS, SNAPSHOT_COPIES, SNAPSHOT_FINISHES } phase;
	bool impatient; /* nobody will call when it can go on: counted in the worker */
	uint64_t protect_at; /* address: what was refused; the next try goes on from here */
	uint64_t asked_at, stalled_at; /* ns; 0: nobody has been made to wait yet */
	unsigned under_way;            /* reads, writes, syncs */
	struct pager_snapshot_stat stat;
	struct snapshot_header header;

	/* What was resident at the moment, by address; unless it is a range, the file begins with it. */
	struct runs runs;
	uint64_t *copied; /* a bit for each page of the file: of those in runs, what is not pending */
	uint64_t n_resident, n_pending;
	size_t at_run; /* the background is here */
	uint64_t at_page;
	unsigned kept;        /* pages on their way to the file for whom somebody waited */
	uint64_t progress_at; /* ns: when something was last written */

	/* What was evicted: words, SWAP or POISON, whose slots are counted. */
	struct evicted_page {
		word_t word;
		uint64_t address;
	} *evicted; /* owned */
	size_t n_evicted, evicted_capacity, evicted_done;

	struct runs table; /* of the file */
	struct runs lost;  /* `first` and `pages` alone */
	unsigned step;    /* of finishing */
	struct completion sync;
};

/* ---- snapshot.c ---- */
void snapshot_fail(struct snapshot *snapshot, int error);

/* ---- snapshot_begin.c ---- */
/* Protects and notes all. -EAGAIN: not yet, soon again; -EFAULT: a range, and not all of it can be in it. */
int snapshot_try(struct snapshot *snapshot);

/* ---- snapshot_copy.c: what is resident ---- */
int runs_add(struct runs *runs, uint64_t address, uint64_t pages, uint64_t first);
void runs_sort(struct runs *runs); /* by address */
/* The next chunk in the background; false: there is none. */
bool snapshot_copy_next(struct snapshot *snapshot);

/* ---- snapshot_file.c ---- */
struct snapshot_io {
	struct tier_io tier;          /* from a slot */
	struct tier *from;
	struct completion completion; /* to the file */
	struct snapshot *snapshot;
	char *buffer;                   /* page aligned; owned */
	uint64_t offset, length, done;  /* bytes: where in the file, and how far */
	uint32_t n, read, tries;        /* pages from slots, how many have been read; of this read */
	uint32_t kept;                  /* pages */
};

/* Room for so many bytes, which snapshot_io_write() writes and frees; `length` may
 * become less before. NULL: no memory, and the snapshot
 * has failed. */
struct snapshot_io *snapshot_io_new(struct snapshot *snapshot, uint64_t offset, uint64_t length);
void snapshot_io_write(struct snapshot_io *io);
/* Offset of a page in the file. */
static inline uint64_t snapshot_offset(const struct snapshot *s, uint64_t page)
{
	return s->header.data + pages_to_bytes(page);
}
/* Notes pages of the file that are not what they were. */
void snapshot_lose(struct snapshot *snapshot, uint64_t page, uint64_t n);
/* => all that is in it has been noted, and is pending. Says where in the file it will be. */
int snapshot_lay_out(struct snapshot *snapshot);
/* Reads evicted pages on; false: there are none, or the next is on its way to its slot. */
bool snapshot_read_next(struct snapshot *snapshot);
/* Lets go of the slots that have not been read. */
void snapshot_put_evicted(struct snapshot *snapshot);
/* => everything has been copied, nothing is under way. Syncs, and writes what makes the file whole; true:
 * done. */
bool snapshot_finish(struct snapshot *snapshot);
