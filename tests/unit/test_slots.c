/* mm/slots: which slots are taken, what counts them, and what it costs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "mm/slots.h"

static char folder[] = "/tmp/upager-slots-XXXXXX";
static int dir = -1;
static struct slots slots;

static void begin(void)
{
	cr_assert(mkdtemp(folder));
	dir = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_eq(slots_init(&slots, dir, "slots", 3, 8, 7), 0);
}

static void end(void)
{
	slots_done(&slots, dir, "slots");
	cr_expect_eq(rmdir(folder), 0, "something was left");
	close(dir);
}

TestSuite(slots, .init = begin, .fini = end);

Test(slots, until_full)
{
	uint32_t first = 99;

	cr_expect_eq(slots_take(&slots, 5, &first), 5);
	cr_expect_eq(first, 0);
	cr_expect_eq(slots_take(&slots, 5, &first), 3, "neighbours only");
	cr_expect_eq(first, 5);
	first = 99;
	cr_expect_eq(slots_take(&slots, 1, &first), 0, "full");
	cr_expect_eq(first, 99, "untouched on failure");
	cr_expect(slot_put(&slots, 2));
	cr_expect_eq(slots_take(&slots, 4, &first), 1);
	cr_expect_eq(first, 2);
	cr_expect_eq(atomic_load(&slots.used), 8);
}

Test(slots, counts_and_generations)
{
	uint32_t first;
	struct slot before, after;

	slots_take(&slots, 1, &first);
	before = slot_name(&slots, first);
	cr_expect_eq(before.tier, 3);
	slot_get(&slots, first);
	cr_expect_not(slot_put(&slots, first));
	cr_expect_eq(atomic_load(&slots.used), 1);
	cr_expect(slot_put(&slots, first));
	after = slot_name(&slots, first);
	cr_expect_neq(before.gen, after.gen);
	cr_expect_eq(atomic_load(&slots.used), 0);
}

Test(slots, bad_ones_are_left_out)
{
	uint32_t first;

	slot_mark(&slots, 0, SLOT_BAD, true);
	slot_mark(&slots, 4, SLOT_BAD, true);
	cr_expect_eq(slots_take(&slots, 8, &first), 3);
	cr_expect_eq(first, 1);
	cr_expect_eq(slots_take(&slots, 8, &first), 3);
	cr_expect_eq(first, 5);
	cr_expect_eq(slots_take(&slots, 8, &first), 0);
}

Test(slots, twice_freed, .signal = SIGABRT)
{
	uint32_t first;

	slots_take(&slots, 1, &first);
	slot_put(&slots, first);
	slot_put(&slots, first);
}

Test(slots, free_one_counted, .signal = SIGABRT)
{
	slot_get(&slots, 3);
}

Test(slots, name_in_use)
{
	struct slots other;

	cr_expect_eq(slots_init(&other, dir, "slots", 1, 8, 7), -EEXIST);
}

Test(slots, sums)
{
	char page[PAGE_SIZE] = {0};
	uint64_t zeros = slot_sum(&slots, page);

	cr_expect_eq(zeros, slot_sum(&slots, page));
	page[PAGE_SIZE - 1] = 1;
	cr_expect_neq(zeros, slot_sum(&slots, page));
	page[PAGE_SIZE - 1] = 0;
	slots.header->seed++;
	cr_expect_neq(zeros, slot_sum(&slots, page), "another secret");
}

/* What an evicted page may cost: its word and its record are 24 of 32 bytes. */
Test(slots, records_are_small)
{
	cr_expect_eq(sizeof(struct slot_record), 16);
}

/* The flags, the generation and the count are one word: each stays what it is while others change. */
Test(slots, flags)
{
	uint32_t first;
	struct slot name;

	slots_take(&slots, 1, &first);
	name = slot_name(&slots, first);
	slot_mark(&slots, first, SLOT_WRITING, true);
	slot_mark(&slots, first, SLOT_BY_HAND, true);
	slot_get(&slots, first);
	slot_mark(&slots, first, SLOT_WRITING, false);
	cr_expect_eq(slot_count(&slots, first), 2);
	cr_expect_eq(slot_name(&slots, first).gen, name.gen);
	cr_expect(slot_is(&slots, first, SLOT_BY_HAND));
	cr_expect_not(slot_is(&slots, first, SLOT_WRITING));
	slot_mark(&slots, first, SLOT_WRITING, true);
	slot_put(&slots, first);
	slot_put(&slots, first);
	cr_expect_not(slot_is(&slots, first, SLOT_BY_HAND), "who takes it next has nothing of that");
	cr_expect_not(slot_is(&slots, first, SLOT_WRITING));
	cr_expect_eq(slot_name(&slots, first).gen, name.gen + 1);
}

/* The generation wraps, and touches nothing else. */
Test(slots, generations_wrap)
{
	uint32_t first;

	for (unsigned i = 0; i < 256; i++) {
		cr_assert_eq(slots_take(&slots, 8, &first), 8);
		cr_assert_eq(slot_name(&slots, 5).gen, i);
		for (uint32_t k = 0; k < 8; k++)
			cr_assert(slot_put(&slots, first + k));
	}
	cr_expect_eq(atomic_load(&slots.records[5].state), 0);
}

/* A slot that more refer to than can be counted is never free again; its neighbours are. */
Test(slots, count_stays_at_its_end)
{
	uint32_t first;

	slots_take(&slots, 2, &first);
	for (uint32_t i = 1; i < SLOT_COUNT + 5u; i++)
		slot_get(&slots, 0);
	cr_expect_eq(slot_count(&slots, 0), SLOT_COUNT);
	cr_expect_eq(slot_name(&slots, 0).gen, 0, "it has not run over");
	cr_expect_eq(atomic_load(&slots.records[0].state), SLOT_COUNT);
	for (uint32_t i = 0; i < SLOT_COUNT + 5u; i++)
		cr_assert_not(slot_put(&slots, 0));
	cr_expect_eq(slot_count(&slots, 0), SLOT_COUNT);
	cr_expect(slot_put(&slots, 1));
	cr_expect_eq(atomic_load(&slots.used), 1);
	cr_expect_eq(slots_take(&slots, 8, &first), 6);
	cr_expect_eq(slots_take(&slots, 8, &first), 1);
	cr_expect_eq(first, 1);
}

/* ---- where the cursor turns round ---- */

#define MANY   (1u << 18)
#define IN_USE (1u << 15)
#define BATCH  256u

static uint32_t order[IN_USE];

/* Batch by batch, slots are freed and others taken; returns the highest ever taken. */
static uint32_t turn_over(struct slots *s, bool at_random)
{
	uint32_t n = 0, at = 0, top = 0, first;
	uint64_t x = 1;

	for (unsigned k = 0; k < 40 * IN_USE / BATCH; k++) {
		for (uint32_t got, want = BATCH; want; want -= got) {
			got = slots_take(s, want, &first);
			cr_assert_gt(got, 0);
			for (uint32_t i = 0; i < got; i++, at++) {
				x = x * 6364136223846793005u + 1442695040888963407u;
				uint32_t which = at_random ? (uint32_t)(x >> 40) % IN_USE : at % IN_USE;

				if (n < IN_USE)
					which = n++;
				else
					slot_put(s, order[which]);
				order[which] = first + i;
			}
			top = first + got > top ? first + got : top;
		}
	}
	return top;
}

static uint32_t top_after(bool at_random)
{
	struct slots many;
	uint32_t top;

	cr_assert_eq(slots_init(&many, dir, "many", 1, MANY, 7), 0);
	top = turn_over(&many, at_random);
	cr_expect_eq(atomic_load(&many.used), IN_USE);
	slots_done(&many, dir, "many");
	return top;
}

/* Where holes are long few records are enough: no more than an eighth above what is used. */
Test(slots, cursor_turns_soon_where_pages_leave_in_order)
{
	uint32_t top = top_after(false);

	cr_expect_leq(top, IN_USE + IN_USE / 8 + 2048 + BATCH, "%u", top);
}

Test(slots, cursor_goes_farther_where_holes_are_short)
{
	uint32_t top = top_after(true);

	cr_expect_gt(top, IN_USE + IN_USE / 4, "%u", top);
	cr_expect_leq(top, IN_USE + IN_USE / 2 + 2048 + BATCH, "%u", top);
}

/* ---- workers ---- */

#define WORKERS 4u
#define ROUNDS  20000u

static struct slots shared;
static uint8_t owner[512]; /* of each slot; 0: nobody */

static void *work(void *context)
{
	uint8_t self = (uint8_t)(uintptr_t)context;
	uint32_t held[64], n = 0, first;
	uint64_t x = self;

	for (unsigned k = 0; k < ROUNDS; k++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		uint32_t got = n < 48 ? slots_take(&shared, 1 + (x >> 40) % 16, &first) : 0;

		for (uint32_t i = first; got; i++, got--) {
			cr_assert_eq(owner[i], 0, "slot %u is two workers'", i);
			owner[i] = self;
			slot_mark(&shared, i, SLOT_WRITING, true);
			shared.records[i].sum = shared.records[i].shadow = i + self;
			held[n++] = i;
		}
		for (uint32_t puts = (uint32_t)(x >> 50) % 16; puts && n; puts--) {
			uint32_t i = held[--n];

			cr_assert(slot_is(&shared, i, SLOT_WRITING));
			cr_assert_eq(shared.records[i].sum, i + self);
			slot_get(&shared, i);
			cr_assert_not(slot_put(&shared, i));
			owner[i] = 0;
			cr_assert(slot_put(&shared, i));
		}
	}
	while (n) {
		owner[held[--n]] = 0;
		slot_put(&shared, held[n]);
	}
	return NULL;
}

Test(slots, workers_take_from_the_same, .timeout = 60)
{
	pthread_t threads[WORKERS];

	cr_assert_eq(slots_init(&shared, dir, "shared", 1, ARRAY_SIZE(owner), 7), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1)), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	cr_expect_eq(atomic_load(&shared.used), 0);
	for (uint32_t i = 0; i < shared.n; i++)
		cr_assert_eq(slot_count(&shared, i), 0);
	slots_done(&shared, dir, "shared");
}
