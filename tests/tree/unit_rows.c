/* Rows whose moment cannot be hit from outside: with a tier that only takes notes. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/worker.h"

#define ADDRESS 0x10000000ull
#define FRAMES  16u

static struct pager pager;
static struct worker worker = {.pager = &pager};
static struct group group = {.worker = &worker};
static struct task *task;
static struct tier_io *submitted;
static unsigned submits;
static char directory[] = "/tmp/upager-rows-XXXXXX";
static int dir_fd;

static int note(struct tier *tier, struct tier_io *io)
{
	(void)tier;
	submitted = io;
	submits++;
	return 0;
}

static const struct tier_ops noting = {.name = "noting", .submit = note};
static struct tier tier = {.ops = &noting};

static void begin(void)
{
	TAILQ_INIT(&worker.work);
	cr_assert(mkdtemp(directory));
	dir_fd = open(directory, O_DIRECTORY | O_RDONLY);
	cr_assert_eq(slots_init(&tier.slots, dir_fd, "slots", 1, 64, 7), 0);
	pager.tiers[1] = &tier;
	task = task_new();
	task->group = &group;
	task->worker = &worker;
	cr_assert_eq(state_new(dir_fd, "task", &task->state), 0);
	cr_assert_eq(table_init(&task->table, task->state), 0);
	frames_init(&task->frames, task->state->frames, FRAMES);
	task->frame_memory = aligned_alloc(PAGE_SIZE, FRAMES * PAGE_SIZE);
	for (unsigned i = 0; i < FRAMES * PAGE_SIZE; i++)
		task->frame_memory[i] = (char)(i * 7 + i / 255);
}

static void end(void)
{
	state_free(dir_fd, "task", task->state);
	free(task->frame_memory);
	task_free(task);
	slots_done(&tier.slots, dir_fd, "slots");
	close(dir_fd);
	rmdir(directory);
}

TestSuite(tree, .init = begin, .fini = end);

static void none(void *context, uint32_t frame)
{
	(void)context;
	(void)frame;
}

/* One page has been moved to a frame, and its bytes are there. */
static struct command one_page(struct frame **ret_frame)
{
	struct command c = {.n_runs = 1, .n_pages = 1, .runs = {{ADDRESS, 1}}, .out = {true}};
	struct frame *frame;
	uint32_t slot;

	cr_assert_eq(frames_take(&task->frames, 1, none, NULL, &c.first_frame), 1);
	cr_assert_eq(slots_take(&tier.slots, 1, &slot), 1);
	frame = &task->frames.records[c.first_frame];
	frame->address = ADDRESS;
	frame->moved = true;
	frame->slot = slot_name(&tier.slots, slot);
	slot_mark(&tier.slots, slot, SLOT_WRITING, true);
	cr_assert_eq(table_set(&task->table, ADDRESS,
			       word_make(WORD_EVICTING, 0, 0, c.first_frame)), 0);
	*ret_frame = frame;
	return c;
}

/* Discarded between the move and the write: nobody counts the slot, nothing is written. */
Test(tree, row_F6_unreferenced_slot_is_not_written)
{
	struct frame *frame;
	struct command c = one_page(&frame);

	table_set(&task->table, ADDRESS, WORD_NONE);
	writeback_command(task, &c);
	cr_expect_eq(submits, 0);
	cr_expect_eq(tier.slots.used, 0);
	cr_expect_eq(frame->state, FRAME_FREE);
}

/* The same, but a forked child counts it: it is written, and is then the child's alone. */
Test(tree, row_F6_slot_of_a_child_is_written)
{
	struct frame *frame;
	struct command c = one_page(&frame);
	struct slot slot = frame->slot;

	slot_get(&tier.slots, slot.index);
	table_set(&task->table, ADDRESS, WORD_NONE);
	writeback_command(task, &c);
	cr_assert_eq(submits, 1);
	cr_expect(slot_is(&tier.slots, slot.index, SLOT_WRITING), "not to be read yet");
	submitted->finished(submitted, 0);
	cr_expect_not(slot_is(&tier.slots, slot.index, SLOT_WRITING));
	cr_expect_eq(slot_count(&tier.slots, slot.index), 1);
	cr_expect_eq(frame->state, FRAME_FREE);
}

/* A slot is not to be read before it is written: its page is on standby from the start. */
Test(tree, row_F4_standby_before_the_write)
{
	struct frame *frame;
	struct command c = one_page(&frame);
	struct slot slot = frame->slot;

	writeback_command(task, &c);
	cr_expect_eq(submits, 1);
	cr_expect_eq(word_tag(table_get(&task->table, ADDRESS)), WORD_STANDBY);
	cr_expect(slot_is(&tier.slots, slot.index, SLOT_WRITING));
	cr_expect_eq(tier.slots.records[slot.index].shadow, group.evictions);
	submitted->finished(submitted, 0);
	cr_expect_eq(frame->state, FRAME_STANDBY);
	cr_expect_not(slot_is(&tier.slots, slot.index, SLOT_WRITING));
	cr_expect_eq(tier.slots.records[slot.index].sum,
		     slot_sum(&tier.slots, task->frame_memory));
	cr_expect_eq(tier.slots.used, 1);
}

/* What a word names by value is not the slot that another page has got since. */
Test(tree, row_49_generation_tells_slots_apart)
{
	uint32_t slot;
	word_t before, after;

	cr_assert_eq(slots_take(&tier.slots, 1, &slot), 1);
	before = word_of_slot(WORD_SWAP, 0, slot_name(&tier.slots, slot));
	cr_expect(slot_put(&tier.slots, slot));
	tier.slots.cursor = slot;
	cr_assert_eq(slots_take(&tier.slots, 1, &slot), 1);
	after = word_of_slot(WORD_SWAP, 0, slot_name(&tier.slots, slot));
	cr_expect_eq(word_slot(before).index, word_slot(after).index);
	cr_expect_not(word_same(before, after));
}

/* Nor is the word the same that has been away and come back with the same content. */
Test(tree, row_51_word_generation)
{
	word_t swap = word_make(WORD_SWAP, 0, 1, 7), before;

	cr_assert_eq(table_set(&task->table, ADDRESS, swap), 0);
	before = table_get(&task->table, ADDRESS);
	table_set(&task->table, ADDRESS, WORD_NONE);
	table_set(&task->table, ADDRESS, swap);
	cr_expect_not(word_same(before, table_get(&task->table, ADDRESS)));
	table_set(&task->table, ADDRESS, table_get(&task->table, ADDRESS) | WORD_UNMARKED);
	cr_expect_not(word_same(before, table_get(&task->table, ADDRESS)));
	table_set(&task->table, ADDRESS, WORD_NONE);
}
