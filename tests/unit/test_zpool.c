/* tier/zpool: pages in and out, writeback, nothing behind, all at once, broken bytes. */
#include <errno.h>
#include <stdlib.h>

#include "zpool_rig.h"

TestSuite(zpool, .init = rig_begin, .fini = rig_end, .timeout = 60);

/* ---- in and out ---- */

static void round_trip(enum codec_kind algorithm)
{
	uint32_t compressed;

	begin_with(8 << 20, true, algorithm);
	take(256);
	make_pages(0, PAGES, 1, TEXT);
	cr_expect_eq(transfer_with(true, 0, PAGES, &compressed), 0);
	cr_expect_eq(compressed, PAGES);
	memset(buffer, 0, pages_to_bytes(PAGES));
	cr_expect_eq(transfer_with(false, 0, PAGES, &compressed), 0);
	cr_expect_eq(compressed, PAGES);
	check_pages(0, PAGES, 1, TEXT);
	cr_expect_eq(behind.pages_out, 0);
	cr_expect_eq(stat_now().pages, PAGES);
	cr_expect(stat_now().bytes_out < PAGES * 3000u);
}

Test(zpool, lz4)
{
	round_trip(CODEC_LZ4);
}

Test(zpool, zstd)
{
	round_trip(CODEC_ZSTD);
}

Test(zpool, incompressible_pages_pass)
{
	uint32_t compressed;

	begin_with(8 << 20, true, CODEC_LZ4);
	take(256);
	make_pages(64, PAGES, 1, NOISE);
	cr_expect_eq(transfer_with(true, 64, PAGES, &compressed), 0);
	cr_expect_eq(compressed, 0);
	cr_expect_eq(behind.pages_out, PAGES);
	cr_expect_eq(stat_now().rejected, PAGES);
	cr_expect_eq(stat_now().pages, 0);
	memset(buffer, 0, pages_to_bytes(PAGES));
	cr_expect_eq(transfer(false, 64, PAGES), 0);
	check_pages(64, PAGES, 1, NOISE);
	cr_expect_eq(behind.pages_in, PAGES);
}

/* Runs of both kinds, read whole and in every part. */
Test(zpool, mixed)
{
	uint32_t compressed;

	begin_with(8 << 20, true, CODEC_LZ4);
	take(256);
	make_pages(100, PAGES, 1, KINDS);
	cr_expect_eq(transfer_with(true, 100, PAGES, &compressed), 0);
	cr_expect(compressed > 20 && compressed < 44);
	for (uint32_t first = 0; first < 9; first++)
		for (uint32_t n = 1; n < 20; n++) {
			memset(buffer, 0, pages_to_bytes(PAGES));
			cr_assert_eq(transfer(false, 100 + first, n), 0);
			check_pages(100 + first, n, 1, KINDS);
			cr_assert_eq(buffer[pages_to_bytes(n)], 0, "no more than was asked for");
		}
}

Test(zpool, a_failure_behind_is_passed_on)
{
	begin_with(8 << 20, true, CODEC_LZ4);
	take(256);
	make_pages(0, PAGES, 1, KINDS);
	fails = UINT32_MAX;
	cr_expect_eq(transfer(true, 0, PAGES), -EIO);
	fails = 10;
	cr_expect_eq(transfer(true, 0, PAGES), 0, "the same again; parts have three attempts");
	cr_expect_eq(fails, 0);
	memset(buffer, 0, pages_to_bytes(PAGES));
	cr_expect_eq(transfer(false, 0, PAGES), 0);
	check_pages(0, PAGES, 1, KINDS);
}

Test(zpool, what_is_freed_gives_its_memory_back)
{
	begin_with(8 << 20, true, CODEC_LZ4);
	take(1024);
	for (uint32_t slot = 0; slot < 1024; slot += PAGES) {
		make_pages(slot, PAGES, 1, TEXT);
		cr_assert_eq(transfer(true, slot, PAGES), 0);
	}
	cr_expect_eq(stat_now().pages, 1024);
	cr_expect(stat_now().used > 1 << 20);
	for (uint32_t slot = 0; slot < 1024; slot++)
		if (slot % 64)
			tier_put(tier, &uring, slot);
	settle_all();
	cr_expect_eq(stat_now().pages, 16);
	cr_expect(stat_now().used < 1 << 20, "%lu", stat_now().used);
	for (uint32_t slot = 0; slot < 1024; slot += 64) {
		cr_assert_eq(transfer(false, slot, 1), 0);
		check_pages(slot, 1, 1, TEXT);
	}
}

/* The slots of a read may be let go of, and taken anew, before its turn comes. */
Test(zpool, read_of_slots_that_are_let_go)
{
	struct transfer r;
	uint32_t first;

	begin_with(8 << 20, true, CODEC_LZ4);
	take(SLOTS);
	make_pages(0, PAGES, 1, TEXT);
	cr_assert_eq(transfer(true, 0, PAGES), 0);
	begin_transfer(&r, false, 0, PAGES, buffer);
	for (uint32_t slot = 0; slot < PAGES; slot++)
		tier_put(tier, &uring, slot);
	cr_expect_eq(tier_take(tier, &uring, PAGES, &first), 0, "not yet");
	settle_all();
	cr_expect_eq(r.ended, 1);
	cr_expect_eq(r.result, 0);
	cr_expect_eq(tier->slots.used, SLOTS - PAGES);
	cr_expect_eq(stat_now().pages, 0);
	cr_expect_eq(tier_take(tier, &uring, PAGES, &first), PAGES);
}

/* ---- writeback ---- */

static void fill_small_pool(uint32_t n)
{
	begin_with(ZPOOL_SIZE_MIN, true, CODEC_LZ4);
	take(SLOTS);
	for (uint32_t slot = 0; slot < n; slot += PAGES) {
		make_pages(slot, PAGES, 1, TEXT);
		cr_assert_eq(transfer(true, slot, PAGES), 0);
	}
}

/* Until the next write makes it write back; returns how many pages are there. */
static uint32_t fill_to_the_brim(void)
{
	uint32_t n = 0;

	begin_with(ZPOOL_SIZE_MIN, true, CODEC_LZ4);
	take(SLOTS);
	for (; !zpool_is_tight(&pool->workers[0]); n++) {
		make_pages(n, 1, 1, TEXT);
		cr_assert_eq(transfer(true, n, 1), 0);
	}
	cr_assert_gt(n, 300);
	return n;
}

static void check_all(uint32_t n)
{
	for (uint32_t slot = 0; slot < n; slot++) {
		memset(buffer, 0, PAGE_SIZE);
		cr_assert_eq(transfer(false, slot, 1), 0);
		check_pages(slot, 1, 1, TEXT);
	}
}

/* Writes one page more, and lets nothing get further than the tier behind. */
static void begin_writeback(struct transfer *t, uint32_t n)
{
	make_pages(n, 1, 1, TEXT);
	begin_transfer(t, true, n, 1, buffer);
	while (!pool->workers[0].drain.under_way)
		cr_assert(uring_run_posted(&uring));
	cr_assert(t->ended && n_waiting);
}

Test(zpool, the_oldest_go_on)
{
	fill_small_pool(3072);
	settle_all();
	cr_expect(stat_now().written_back > 1500, "%lu", stat_now().written_back);
	cr_expect(stat_now().pages > 200, "%lu", stat_now().pages);
	cr_expect_eq(place_now(0), 0);
	cr_expect_neq(place_now(3071), 0);
	check_all(3072);
	cr_expect_eq(slot_count(&tier->slots, 5), 1, "the count of the write is gone");
}

Test(zpool, refused_pages_stay)
{
	uint32_t n = fill_to_the_brim();

	fails = UINT32_MAX;
	make_pages(n, 1, 1, TEXT);
	cr_assert_eq(transfer(true, n, 1), 0);
	settle_all();
	cr_expect_eq(stat_now().written_back, 0);
	cr_expect_lt(fails, UINT32_MAX);
	check_all(n + 1);
	/* It is tried again, later. */
	fails = 0;
	make_pages(n + 1, 1, 1, TEXT);
	cr_assert_eq(transfer(true, n + 1, 1), 0);
	settle_all();
	cr_expect_eq(stat_now().written_back, 0);
	pool->workers[0].drain.again_at = 0;
	make_pages(n + 2, 1, 1, TEXT);
	cr_assert_eq(transfer(true, n + 2, 1), 0);
	settle_all();
	cr_expect_gt(stat_now().written_back, 0);
	check_all(n + 3);
}

/* The write of a slot that nobody wants any more goes on; until it ends the slot is not free. */
Test(zpool, discarded_during_writeback)
{
	uint32_t n = fill_to_the_brim();
	struct transfer t;

	begin_writeback(&t, n);
	for (uint32_t slot = 0; slot < n; slot++) {
		tier_put(tier, &uring, slot);
		cr_assert_eq(slot_count(&tier->slots, slot), written[slot]);
	}
	settle_all();
	for (uint32_t slot = 0; slot < n; slot++)
		cr_assert(!slot_count(&tier->slots, slot) && !place_now(slot));
	cr_expect_eq(stat_now().pages, 1);
	cr_assert_eq(transfer(false, n, 1), 0);
	check_pages(n, 1, 1, TEXT);
}

/* A page is read from memory until its write has succeeded. */
Test(zpool, read_during_writeback)
{
	uint32_t n = fill_to_the_brim(), busy = 0;
	struct transfer t, r;

	begin_writeback(&t, n);
	for (uint32_t slot = 0; slot < n; slot++) {
		memset(buffer, 0, PAGE_SIZE);
		begin_transfer(&r, false, slot, 1, buffer);
		while (uring_run_posted(&uring))
			;
		cr_assert(r.ended && r.result == 0, "nothing is waited for");
		check_pages(slot, 1, 1, TEXT);
		busy += written[slot];
	}
	cr_expect_gt(busy, 50);
	settle_all();
	check_all(n);
}

/* ---- nothing behind ---- */

Test(zpool, alone)
{
	uint32_t n = 0, first, got, slots[SLOTS];

	begin_with(ZPOOL_SIZE_MIN, false, CODEC_LZ4);
	while ((got = tier_take(tier, &uring, 16, &first))) {
		make_pages(first, got, 1, KINDS);
		cr_assert_eq(transfer(true, first, got), 0, "what was given can be written");
		while (got--)
			slots[n++] = first++;
	}
	cr_expect(n > 300, "%u", n);
	for (uint32_t i = 0; i < n; i++) {
		cr_assert_eq(transfer(false, slots[i], 1), 0);
		check_pages(slots[i], 1, 1, KINDS);
	}
	/* What is given back is given again, also what was never written. */
	for (uint32_t i = 0; i < n; i += 2)
		tier_put(tier, &uring, slots[i]);
	got = tier_take(tier, &uring, 32, &first);
	cr_expect_gt(got, 0);
	for (uint32_t i = 0; i < got; i++)
		tier_put(tier, &uring, first + i);
	cr_expect_eq(pool->workers[0].promised, 0);
	for (uint32_t i = 1; i < n; i += 2) {
		cr_assert_eq(transfer(false, slots[i], 1), 0);
		check_pages(slots[i], 1, 1, KINDS);
	}
}

Test(zpool, alone_and_worst)
{
	uint32_t n = 0, first, got, slots[SLOTS];

	begin_with(ZPOOL_SIZE_MIN, false, CODEC_LZ4);
	while ((got = tier_take(tier, &uring, PAGES, &first))) {
		make_pages(first, got, 1, NOISE);
		cr_assert_eq(transfer(true, first, got), 0);
		while (got--)
			slots[n++] = first++;
	}
	cr_expect(n >= 14 * SEGMENT_LEAST, "%u", n);
	for (uint32_t i = 0; i < n; i++) {
		cr_assert_eq(transfer(false, slots[i], 1), 0);
		check_pages(slots[i], 1, 1, NOISE);
	}
}

/* ---- all at once ---- */

struct known {
	uint32_t version;
	enum kind kind;
	bool taken, there;
};

/* Random takes, writes, reads and puts; the tier behind is slow, and now and then refuses. */
static void random_life(uint64_t size, bool backed, unsigned rounds)
{
	static struct known known[SLOTS];
	struct transfer w, r;
	char *in = malloc(pages_to_bytes(PAGES));
	uint32_t first, n, version = 1;

	begin_with(size, backed, CODEC_LZ4);
	memset(known, 0, sizeof(known));
	while (rounds--) {
		n = tier->slots.used < 1200 ? tier_take(tier, &uring, 1 + draw(PAGES), &first) : 0;
		version++;
		for (uint32_t i = 0; i < n; i++) {
			struct known *k = &known[first + i];

			cr_assert_not(k->taken);
			*k = (struct known){version, draw(5) == 0, true, true};
			make_page(buffer + pages_to_bytes(i), first + i, version, k->kind);
		}
		fails += backed && draw(50) == 0;
		if (n)
			begin_transfer(&w, true, first, n, buffer);
		for (unsigned tries = 0; n && tries < 20;) {
			uring_run_posted(&uring);
			behind_serve(draw(2));
			if (!w.ended)
				continue;
			if (w.result == 0)
				break;
			tries++;
			begin_transfer(&w, true, first, n, buffer);
		}
		cr_assert(!n || (w.ended && w.result == 0));
		for (unsigned k = 0; k < 4; k++) {
			uint32_t at = draw(tier->slots.n - 8), count = 0;

			while (count < 8 && known[at + count].there)
				count++;
			if (!count)
				continue;
			begin_transfer(&r, false, at, count, in);
			while (!r.ended) {
				uring_run_posted(&uring);
				behind_serve(draw(2));
			}
			cr_assert_eq(r.result, 0);
			for (uint32_t i = 0; i < count; i++) {
				char page[PAGE_SIZE];

				make_page(page, at + i, known[at + i].version, known[at + i].kind);
				cr_assert_eq(memcmp(page, in + pages_to_bytes(i), PAGE_SIZE), 0,
					     "slot %u", at + i);
			}
		}
		for (unsigned k = draw(2 * PAGES); k; k--) {
			uint32_t at = draw(tier->slots.n);

			if (known[at].taken)
				tier_put(tier, &uring, at);
			known[at].taken = known[at].there = false;
		}
	}
	for (uint32_t i = 0; i < tier->slots.n; i++)
		if (known[i].taken)
			tier_put(tier, &uring, i);
	fails = 0;
	settle_all();
	cr_expect_eq(stat_now().pages, 0);
	cr_expect_eq(tier->slots.used, 0);
	free(in);
}

Test(zpool, random_life_of_a_small_pool)
{
	random_life(ZPOOL_SIZE_MIN, true, 4000);
	cr_expect(stat_now().written_back > 1000, "%lu", stat_now().written_back);
}

Test(zpool, random_life_of_a_large_pool)
{
	random_life(16 << 20, true, 4000);
	cr_expect_eq(stat_now().written_back, 0);
}

Test(zpool, random_life_alone)
{
	random_life(2 << 20, false, 4000);
}

/* ---- broken bytes ---- */

static void broken_bytes(enum codec_kind algorithm)
{
	uint64_t sums[PAGES];
	unsigned lost = 0;

	begin_with(ZPOOL_SIZE_MIN, true, algorithm);
	take(PAGES);
	for (unsigned round = 0; round < 3000; round++) {
		char *base = pool->arena.base + SEGMENT_BYTES; /* [0] is the reserve */

		make_pages(0, PAGES, round, TEXT);
		for (uint32_t i = 0; i < PAGES; i++)
			sums[i] = slot_sum(&tier->slots, buffer + pages_to_bytes(i));
		cr_assert_eq(transfer(true, 0, PAGES), 0);
		for (unsigned i = 0; i < 1 + round % 64; i++)
			base[draw(2 * SEGMENT_BYTES)] ^= (char)(1 << draw(8));
		memset(buffer, 0x55, pages_to_bytes(PAGES));
		cr_assert_eq(transfer(false, 0, PAGES), 0);
		for (uint32_t i = 0; i < PAGES; i++) {
			char *page = buffer + pages_to_bytes(i), right[PAGE_SIZE];
			bool good = sums[i] == slot_sum(&tier->slots, page);

			make_page(right, i, round, TEXT);
			cr_assert_eq(good, !memcmp(page, right, PAGE_SIZE));
			lost += !good;
		}
		for (uint32_t i = 0; i < PAGES; i++)
			tier_put(tier, &uring, i);
		for (uint32_t i = 0, first; i < PAGES; i++)
			cr_assert_eq(tier_take(tier, &uring, 1, &first), 1);
		tier->slots.cursor = 0;
		for (uint32_t i = 0; i < tier->slots.n; i++)
			tier->slots.records[i].state = i < PAGES;
	}
	cr_expect(lost > 1000, "%u", lost);
}

Test(zpool, broken_bytes_lz4)
{
	broken_bytes(CODEC_LZ4);
}

Test(zpool, broken_bytes_zstd)
{
	broken_bytes(CODEC_ZSTD);
}

Test(zpool, bounds)
{
	struct zpool_options options = rig_options(ZPOOL_SIZE_MIN / 2);
	struct zpool *other = NULL;

	begin_with(ZPOOL_SIZE_MIN, true, CODEC_LZ4);
	cr_expect_eq(zpool_open(&options, &other), -EINVAL);
	options.size = ARENA_SIZE_MAX + SEGMENT_BYTES;
	cr_expect_eq(zpool_open(&options, &other), -EINVAL);
	options.size = ZPOOL_SIZE_MIN;
	cr_expect_eq(zpool_open(&options, &other), -EEXIST, "there is one in this directory");
	cr_expect_null(other);
}
