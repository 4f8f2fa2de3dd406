/* Inside compressed memory: zpool.c stores and loads pages, drain.c writes the oldest back. */
#pragma once

#include <stdatomic.h>

#include "tier/arena.h"
#include "tier/zpool.h"

#define DRAIN_PAGES    256u
#define DRAIN_SEGMENTS 8u

struct zpool_tier {
	struct tier tier;
	struct zpool *pool;
	uint8_t number;
	uint32_t n; /* slots */
	/* Where in memory the bytes of each slot are; 0: not there. A file: what is not used costs nothing. */
	_Atomic uint32_t *places;
	_Atomic uint64_t held; /* pages in memory */
};

struct drained {
	uint32_t slot, place; /* place 0: it can't be written */
	uint8_t tier;
};

/* Neighbouring slots among the pages of a batch. */
struct drain_run {
	struct tier_io io;
	struct drain *drain;
	unsigned first; /* of its pages */
};

/* One batch of pages on its way from memory to the tiers behind, of one worker. */
struct drain {
	struct zpool_worker *worker;
	struct segment *held[DRAIN_SEGMENTS];
	struct drained pages[DRAIN_PAGES]; /* by tier and slot; each slot counted once more */
	struct drain_run runs[DRAIN_PAGES];
	unsigned n_held, n, done; /* segments; pages; of these decompressed */
	unsigned under_way;       /* runs; 0 before all pages are decompressed */
	bool busy, failed;
	uint64_t again_at; /* ns: not before, after a failure */
	char *buffer;      /* DRAIN_PAGES pages */
};

STAILQ_HEAD(tier_ios, tier_io);

/* One worker's part of the pool. */
struct zpool_worker {
	struct zpool *pool;
	struct uring *uring; /* NULL before its first transfer */
	struct completion work;
	bool working; /* `work` is posted */
	struct tier_ios reads, writes;
	struct zlog log;
	struct codec codec;
	struct drain drain;
	uint32_t promised; /* slots that were taken and not written yet, without a tier behind */
	_Atomic uint64_t pages_in, pages_out, bytes_out, written_back, rejected, errors;
	char page[4096], small[4096];
};

struct zpool {
	struct arena arena;
	int dir;
	uint32_t low; /* free segments; fewer, and pages are written back */
	bool backed;  /* there are tiers behind */
	struct zpool_tier *tiers[TIERS_MAX];
	unsigned n_workers;
	struct zpool_worker *workers;
};

/* ---- zpool.c ---- */
void zpool_wake(struct zpool_worker *w); /* it has something to do */
bool zpool_is_tight(const struct zpool_worker *w);
/* The slot's bytes are no longer in memory. */
void zpool_forget(struct zpool_worker *w, struct zpool_tier *z, uint32_t slot);
/* false: the bytes are broken, and the page is zeros. */
bool zpool_load(struct zpool_worker *w, const struct zpool_tier *z, uint32_t slot, char *page);

/* ---- drain.c ---- */
int drain_init(struct drain *drain, struct zpool_worker *w);
void drain_done(struct drain *drain);
/* Begins with the oldest pages, unless it is at it. */
void drain_start(struct drain *drain);
/* The next few pages; true: there are more to decompress. */
bool drain_go_on(struct drain *drain);
