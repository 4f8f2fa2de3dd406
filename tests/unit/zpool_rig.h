/*
 * A pool of compressed memory before a tier that does what it is told, when it is told: for tests.
 *
 * One pool, one ring, one thread. Functions end the test where something is not as it must be.
 */
#pragma once

#include <criterion/criterion.h>
#include <string.h>

#include "base/util.h"
#include "tier/zpool_parts.h"

#define SLOTS 4096u
#define PAGES 64u

extern struct uring uring;
extern struct zpool *pool;
extern struct tier *tier, behind;
extern char *buffer; /* PAGES pages */

/* Of the tier behind: transfers that wait, how many of the next ones fail, and the slots that are
 * being written: two writes of one at a time end the test. */
extern unsigned n_waiting, fails;
extern uint8_t written[SLOTS];
void behind_serve(unsigned n);

void rig_begin(void);
void rig_end(void);
void begin_with(uint64_t size, bool backed, enum codec_kind algorithm);
/* As options for another pool in the same place. */
struct zpool_options rig_options(uint64_t size);

uint32_t draw(uint32_t below);

struct transfer {
	struct tier_io io;
	int result;
	unsigned ended;
};

void begin_transfer(struct transfer *t, bool write, uint32_t slot, uint32_t n, char *at);
int transfer_with(bool write, uint32_t slot, uint32_t n, uint32_t *ret_compressed);
int transfer(bool write, uint32_t slot, uint32_t n); /* of the buffer; waits for its end */
void settle_all(void);
void take(uint32_t n); /* slots [0, n), each counted once */

enum kind { TEXT, NOISE, KINDS }; /* KINDS: three of each in turn */

void make_page(char *page, uint32_t slot, uint32_t version, enum kind kind);
void make_pages(uint32_t slot, uint32_t n, uint32_t version, enum kind kind);
void check_pages(uint32_t slot, uint32_t n, uint32_t version, enum kind kind);
uint32_t place_now(uint32_t slot); /* where its bytes are in memory */
struct zpool_stat stat_now(void);
