/* mm/: the state of pages, without any I/O. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "mm/frames.h"
#include "mm/queue.h"
#include "mm/region.h"
#include "mm/state.h"
#include "mm/table.h"
#include "mm/task.h"

static char folder[] = "/tmp/upager-mm-XXXXXX";
static int dir = -1;
static struct state *state;
static struct table table;

static void begin(void)
{
	cr_assert(mkdtemp(folder));
	dir = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert(dir >= 0);
	cr_assert_eq(state_new(dir, "state", &state), 0);
	cr_assert_eq(table_init(&table, state), 0);
}

static void end(void)
{
	table_done(&table);
	state_free(dir, "state", state);
	cr_expect_eq(rmdir(folder), 0, "something was left");
	close(dir);
}

TestSuite(table, .init = begin, .fini = end);

/* ---- word ---- */

Test(word, parts)
{
	struct slot slot = {.tier = 15, .gen = 255, .index = (1u << SLOT_INDEX_BITS) - 1}, got;
	word_t word = word_of_slot(WORD_SWAP, WORD_UNMARKED, slot);

	got = word_slot(word);
	cr_expect_eq(word_tag(word), WORD_SWAP);
	cr_expect(word & WORD_UNMARKED);
	cr_expect_eq(got.tier, slot.tier);
	cr_expect_eq(got.gen, slot.gen);
	cr_expect_eq(got.index, slot.index);
	word = word_make(WORD_EVICTING, 0, 0, 16383);
	cr_expect_eq(word_frame(word), 16383);
	word = word_make(WORD_SWAP, WORD_FLAGS, TIER_SAME, 0xffffffff);
	cr_expect_eq(word_payload(word), 0xffffffff);
	cr_expect_eq(word_tag(word), WORD_SWAP);
	cr_expect(word_same(word, word & ~(word_t)WORD_FLAGS));
	cr_expect_not(word_same(word, word + (1ull << WORD_GEN_SHIFT)));
}

Test(word, evicted)
{
	static const bool evicted[WORD_TAGS] = {false, false, true, true, true, true, true};

	for (unsigned tag = 0; tag < WORD_TAGS; tag++)
		cr_expect_eq(word_is_evicted(word_make(tag, 0, 0, 0)), evicted[tag], "%s",
			     word_tag_name(tag));
}

/* One line for each from: N P E S W F P in the order of enum word_tag. */
static const char *const legal[WORD_TAGS] = {
	"1111101", "1111101", "1111100", "1101100", "1100111", "1100101", "1100001",
};

Test(word, moves)
{
	for (unsigned from = 0; from < WORD_TAGS; from++)
		for (unsigned to = 0; to < WORD_TAGS; to++)
			cr_expect_eq(word_may_become(from, to), legal[from][to] == '1', "%s → %s",
				     word_tag_name(from), word_tag_name(to));
}

Test(table, illegal_fill, .signal = SIGABRT)
{
	table_set(&table, 0x1000, word_make(WORD_FILLING, 0, 1, 1)); /* from NONE */
}

Test(table, illegal_standby, .signal = SIGABRT)
{
	table_set(&table, 0x1000, word_make(WORD_SWAP, 0, 1, 1));
	table_set(&table, 0x1000, word_make(WORD_STANDBY, 0, 0, 1));
}

/* ---- table ---- */

Test(table, set_and_get)
{
	static const uint64_t addresses[] = {0, 0x1000, 0x1ff000, 0x200000, 0x7f0000000000,
					     (1ull << 48) - 4096};

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
		cr_assert_eq(table_set(&table, addresses[i], word_make(WORD_SWAP, 0, 1, i)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
		cr_expect_eq(word_payload(table_get(&table, addresses[i])), i);
	cr_expect_eq(table.evicted, ARRAY_SIZE(addresses));
	cr_expect_eq(table.n_live, 4);
	cr_expect_eq(table_get(&table, 0x2000), WORD_NONE);
	cr_expect_eq(table_get(&table, 1ull << 48), WORD_NONE, "beyond user space");
	cr_expect_eq(table_set(&table, 1ull << 48, word_make(WORD_SWAP, 0, 1, 1)), -ENOMEM);
	cr_expect_eq(table_set(&table, 1ull << 48, WORD_NONE), 0);
}

Test(table, generation)
{
	word_t first, second;

	table_set(&table, 0x1000, word_make(WORD_SWAP, 0, 1, 5));
	first = table_get(&table, 0x1000);
	table_set(&table, 0x1000, first | WORD_UNMARKED);
	cr_expect(word_same(first, table_get(&table, 0x1000)), "flags alone are no change");
	table_set(&table, 0x1000, WORD_NONE);
	table_set(&table, 0x1000, word_make(WORD_SWAP, 0, 1, 5));
	second = table_get(&table, 0x1000);
	cr_expect_not(word_same(first, second), "the same content, but later");
	for (unsigned i = 0; i < 5000; i++) /* the generation wraps into nothing else */
		table_set(&table, 0x1000, word_make(WORD_SWAP, 0, 1, i));
	cr_expect_eq(word_payload(table_get(&table, 0x1000)), 4999);
	cr_expect_eq(word_tag(table_get(&table, 0x1000)), WORD_SWAP);
	cr_expect_eq(table.evicted, 1);
}

Test(table, next)
{
	table_leaf(&table, 0x400000, true);
	table_leaf(&table, 0x7f0000000000, true);
	cr_expect_eq(table_next(&table, 0, UINT64_MAX)->base, 0x400000);
	cr_expect_eq(table_next(&table, 0x5ff000, UINT64_MAX)->base, 0x400000, "it ends above");
	cr_expect_eq(table_next(&table, 0x600000, UINT64_MAX)->base, 0x7f0000000000);
	cr_expect_null(table_next(&table, 0x600000, 0x7f0000000000));
	cr_expect_null(table_next(&table, 0, 0x400000));
	cr_expect_null(table_next(&table, 0x7f0000200000, UINT64_MAX));
	cr_expect_null(table_leaf(&table, 0x200000, false));
}

Test(table, trim)
{
	struct leaf *leaf;
	uint32_t index;

	table_set(&table, 0x200000, word_make(WORD_SWAP, 0, 1, 7));
	leaf = table_leaf(&table, 0x200000, false);
	table_trim(&table, leaf);
	cr_expect_eq(table_leaf(&table, 0x200000, false), leaf, "in use, kept");
	table_set(&table, 0x200000, WORD_NONE);
	cr_expect_eq(leaf->used, 0);
	cr_expect_eq(leaf->evicted, 0);
	index = leaf->index;
	table_trim(&table, leaf);
	cr_expect_null(table_leaf(&table, 0x200000, false));
	cr_expect_eq(table.n_live, 0);
	leaf = table_leaf(&table, 0x800000, true);
	cr_expect_eq(leaf->index, index, "its place in the file is used again");
	cr_expect_eq(state->leaf_base[index], 0x800001);
	cr_expect_eq(leaf->words[0], WORD_NONE, "and is empty");
}

Test(table, counts)
{
	struct leaf *leaf = table_leaf(&table, 0x200000, true);

	word_set(&table, leaf, 3, word_make(WORD_PRESENT, 0, 0, 0));
	cr_expect_eq(leaf->used, 1);
	cr_expect_eq(leaf->evicted, 0);
	word_set(&table, leaf, 3, word_make(WORD_EVICTING, 0, 0, 1));
	word_set(&table, leaf, 3, word_make(WORD_STANDBY, 0, 0, 1));
	word_set(&table, leaf, 3, word_make(WORD_SWAP, 0, 1, 1));
	word_set(&table, leaf, 3, word_make(WORD_FILLING, 0, 1, 1));
	cr_expect_eq(leaf->evicted, 1);
	cr_expect_eq(table.evicted, 1);
	word_set(&table, leaf, 3, word_make(WORD_PRESENT, 0, 0, 0));
	cr_expect_eq(leaf->used, 1);
	cr_expect_eq(table.evicted, 0);
}

/* ---- frames ---- */

static struct frame records[64];
static struct frames frames;
static unsigned reclaimed;

static void reclaim(void *context, uint32_t frame)
{
	reclaimed++;
	frames_free(context, frame);
}

Test(frames, ring)
{
	uint32_t first;

	frames_init(&frames, records, 64);
	cr_expect_eq(frames_take(&frames, 40, reclaim, &frames, &first), 40);
	cr_expect_eq(first, 0);
	cr_expect_eq(records[39].state, FRAME_OUT);
	cr_expect_eq(frames_take(&frames, 40, reclaim, &frames, &first), 24, "up to the end");
	cr_expect_eq(first, 40);
	cr_expect_eq(frames_take(&frames, 1, reclaim, &frames, &first), 0, "all are under way");
	for (unsigned i = 0; i < 10; i++)
		records[i].state = FRAME_STANDBY;
	records[10].state = FRAME_WRITING;
	cr_expect_eq(frames_take(&frames, 40, reclaim, &frames, &first), 10);
	cr_expect_eq(first, 0);
	cr_expect_eq(reclaimed, 10);
	cr_expect_eq(frames.held, 64);
	cr_expect_eq(frames.peak, 64);
	frames_free(&frames, 5);
	cr_expect_eq(frames.held, 63);
}

Test(frames, twice_freed, .signal = SIGABRT)
{
	frames_init(&frames, records, 64);
	frames_free(&frames, 5);
}

/* ---- regions ---- */

static struct regions regions;

static void add(uint64_t start, uint64_t stop)
{
	cr_assert_eq(regions_add(&regions, &(struct region){.start = start, .end = stop}), 0);
}

static void expect(const char *expected)
{
	char text[256] = "";

	for (size_t i = 0; i < regions.n; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%d-%d ",
			 (int)regions.list[i].start, (int)regions.list[i].end);
	cr_expect_str_eq(text, expected);
}

static void put(uint64_t start, uint64_t stop)
{
	cr_assert_eq(regions_put(&regions, &(struct region){.start = start, .end = stop}), 0);
}

Test(regions, put)
{
	put(30, 40);
	expect("30-40 ");
	put(10, 20);
	put(50, 60);
	expect("10-20 30-40 50-60 ");
	put(15, 35);
	expect("10-15 15-35 35-40 50-60 ");
	put(52, 54);
	expect("10-15 15-35 35-40 50-52 52-54 54-60 ");
	put(0, 100);
	expect("0-100 ");
	for (uint64_t i = 0; i < 200; i++)
		put(1000 - i, 1001 - i);
	cr_expect_eq(regions.n, 201);
	cr_expect_eq(regions.list[1].start, 801);
	regions_done(&regions);
}

Test(regions, find)
{
	add(10, 20);
	add(20, 30);
	add(50, 60);
	cr_expect_eq(regions_find(&regions, 0)->start, 10);
	cr_expect_eq(regions_find(&regions, 10)->start, 10);
	cr_expect_eq(regions_find(&regions, 19)->start, 10);
	cr_expect_eq(regions_find(&regions, 20)->start, 20);
	cr_expect_eq(regions_find(&regions, 30)->start, 50, "the next one above");
	cr_expect_null(regions_find(&regions, 60));
	regions_done(&regions);
	cr_expect_null(regions_find(&regions, 0));
}

Test(regions, remove)
{
	add(10, 20);
	add(30, 40);
	add(50, 60);
	add(70, 80);
	cr_expect_eq(regions_remove(&regions, 20, 30), 0);
	expect("10-20 30-40 50-60 70-80 ");
	regions_remove(&regions, 15, 35);
	expect("10-15 35-40 50-60 70-80 ");
	regions_remove(&regions, 37, 75);
	expect("10-15 35-37 75-80 ");
	regions_remove(&regions, 11, 13);
	expect("10-11 13-15 35-37 75-80 ");
	regions_remove(&regions, 10, 11);
	expect("13-15 35-37 75-80 ");
	regions_remove(&regions, 0, 1000);
	expect("");
	regions_done(&regions);
}

Test(regions, many_splits)
{
	add(0, 100000);
	for (uint64_t i = 1; i < 1000; i++)
		cr_assert_eq(regions_remove(&regions, i * 100, i * 100 + 1), 0);
	cr_expect_eq(regions.n, 1000);
	for (size_t i = 1; i < regions.n; i++)
		cr_assert(regions.list[i - 1].end < regions.list[i].start);
	regions_done(&regions);
}

/* ---- groups ---- */

/* A page that two tasks share, and one of them lets go, is still there. */
Test(group, shared_pages_leave)
{
	struct group g = {.resident = 100, .shared = 50};
	struct task t = {.group = &g, .adopt.anonymous = 80};

	task_charge(&t, -30);
	group_unshare(&g, 20);
	cr_expect_eq(t.adopt.anonymous, 50);
	cr_expect_eq(g.resident, 90);
	cr_expect_eq(g.shared, 30);
	group_unshare(&g, 40); /* more than the last look has found */
	cr_expect_eq(g.shared, 0);
}

/* ---- queue ---- */

Test(queue, runs_in_order)
{
	struct queue q = {0};
	uint64_t at;

	cr_expect_eq(queue_take(&q, 10, &at), 0);
	queue_push(&q, 0x10000, 1);
	queue_push(&q, 0x11000, 2); /* joins */
	queue_push(&q, 0x20000, 3);
	cr_expect_eq(q.pages, 6);
	cr_expect_eq(queue_peek(&q, 1), 3);
	cr_expect_eq(queue_peek(&q, 5), 6);
	cr_expect_eq(queue_take(&q, 2, &at), 2);
	cr_expect_eq(at, 0x10000);
	cr_expect_eq(queue_take(&q, 256, &at), 1);
	cr_expect_eq(at, 0x12000);
	cr_expect_eq(queue_take(&q, 256, &at), 3);
	cr_expect_eq(at, 0x20000);
	cr_expect_eq(queue_take(&q, 256, &at), 0);
	cr_expect_eq(q.pages, 0);
	queue_done(&q);
}

Test(queue, no_run_is_a_huge_page)
{
	struct queue q = {0};
	uint64_t at;

	queue_push(&q, 0x200000, 512);
	queue_push(&q, 0x400000, 1);
	cr_expect_eq(queue_take(&q, 512, &at), 256);
	cr_expect_eq(queue_take(&q, 512, &at), 256);
	cr_expect_eq(at, 0x300000);
	cr_expect_eq(queue_take(&q, 512, &at), 1);
	queue_done(&q);
}

/* It grows while its ends go round. */
Test(queue, grows)
{
	struct queue q = {0};
	uint64_t in = 0, out = 0, at;

	for (unsigned i = 0; i < 100000; i++) {
		queue_push(&q, ++in << 13, 1);
		if (i % 3 != 0) {
			cr_assert_eq(queue_take(&q, 1, &at), 1);
			cr_assert_eq(at, ++out << 13);
		}
		cr_assert_eq(q.pages, in - out);
	}
	while (queue_take(&q, 9, &at))
		cr_assert_eq(at, ++out << 13);
	cr_expect_eq(in, out);
	queue_done(&q);
	cr_expect_eq(q.pages, 0);
}
