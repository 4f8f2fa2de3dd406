/*
 * From frames to slots: pages that have left are checksummed, told apart (same-filled, clean, to be
 * written), and written in batches.
 */
#include <stdlib.h>

#include "base/util.h"
#include "pager/trace.h"

struct write {
	struct tier_io io;
	struct task *task;
	uint32_t first_frame, attempts;
};

static void write_start(struct write *write, struct slot slot);
static void write_frames(struct task *t, uint32_t first, uint32_t n);

static void write_settled(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];
	struct slots *slots = &tier_of(t->worker, record->slot.tier)->slots;

	slot_mark(slots, record->slot.index, SLOT_WRITING, false);
	pager_slot_put(t->worker, word_of_slot(WORD_SWAP, 0, record->slot));
	record->state = FRAME_STANDBY;
	if (!record->address)
		frames_free(&t->frames, frame);
}

/* The device refuses the slot. What can be given back is; readers of the slot will find that its
 * bytes do not match. */
static void write_lost(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];
	struct slots *slots = &tier_of(t->worker, record->slot.tier)->slots;
	uint64_t address = record->address;
	int ours;

	slot_mark(slots, record->slot.index, SLOT_BAD, true);
	if (t->ended || !address) {
		write_settled(t, frame);
		return;
	}
	ours = fill_is_ours(t, address, table_get(&t->table, address));
	if (ours == 1 && fill_put_back(t, frame)) {
		count(&t->counters, put_back);
	} else if (ours == 0) {
		event_drop_word(t, table_leaf(&t->table, address, false), leaf_index(address));
	} else {
		/* An event is pending: by the time another attempt has failed it may have passed. */
		write_frames(t, frame, 1);
		return;
	}
	write_settled(t, frame);
}

static void write_done(struct tier_io *io, int error)
{
	struct write *write = container_of(io, struct write, io);
	struct task *t = write->task;
	struct slot slot = t->frames.records[write->first_frame].slot;

	trace(t, TRACE_WRITTEN, .pages = io->n, .how = slot.tier, .a = slot.index,
	      .b = (uint64_t)-error);
	if (error) {
		pager_notify(t, PAGER_NOTICE_IO_ERROR,
			     t->frames.records[write->first_frame].address, (uint64_t)-error);
		if (write->attempts++ < 3) {
			write_start(write, slot);
			return;
		}
	} else {
		count_add(&t->counters, pages_out, io->n);
		count_add(&t->counters, compressed_out, io->compressed);
	}
	for (uint32_t i = 0; i < io->n; i++) {
		if (error)
			write_lost(t, write->first_frame + i);
		else
			write_settled(t, write->first_frame + i);
	}
	t->under_way--;
	free(write);
	worker_queue(t);
}

static void write_start(struct write *write, struct slot slot)
{
	struct task *t = write->task;

	write->io.uring = &t->worker->uring;
	write->io.buffer = t->frame_memory + pages_to_bytes(write->first_frame);
	write->io.buffer_index = t->buffer_index;
	write->io.slot = slot.index;
	write->io.write = true;
	write->io.finished = write_done;
	trace(t, TRACE_WRITE, .pages = write->io.n, .how = slot.tier, .a = slot.index);
	tier_submit(tier_of(t->worker, slot.tier), &write->io);
}

/* Writes frames [first, first + n), whose slots are neighbours. */
static void write_frames(struct task *t, uint32_t first, uint32_t n)
{
	struct write *write = calloc(1, sizeof(*write));

	if (!write)
		abort(); /* a hundred bytes: nothing could go on */
	*write = (struct write){.task = t, .first_frame = first};
	write->io.n = n;
	t->under_way++;
	write_start(write, t->frames.records[first].slot);
}

/* Its own word still names the frame. */
static bool owns_word(struct task *t, uint32_t frame, word_t *ret_word)
{
	uint64_t address = t->frames.records[frame].address;

	*ret_word = address ? table_get(&t->table, address) : WORD_NONE;
	return word_tag(*ret_word) == WORD_EVICTING && word_frame(*ret_word) == frame;
}

/* When the page left, and who took it: its shadow. */
static void remember(struct task *t, const struct frame *record)
{
	struct slots *slots = &tier_of(t->worker, record->slot.tier)->slots;

	slots->records[record->slot.index].shadow = t->group->evictions;
	slot_mark(slots, record->slot.index, SLOT_BY_HAND, record->by_hand);
}

/* The page needs no slot, or is still in its old one: no write. */
static bool settles_without_write(struct task *t, uint32_t frame, uint64_t sum)
{
	struct frame *record = &t->frames.records[frame];
	struct worker *w = t->worker;
	const void *page = t->frame_memory + pages_to_bytes(frame);
	word_t word;
	uint32_t pattern;

	if (!owns_word(t, frame, &word) ||
	    slot_count(&tier_of(w, record->slot.tier)->slots, record->slot.index) > 1)
		return false;
	if (tier_same_detect(page, &pattern)) {
		pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->slot));
		if (record->has_old)
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->old));
		table_set(&t->table, record->address,
			  word_make(WORD_SWAP, word & WORD_UNMARKED, TIER_SAME, pattern));
		frames_free(&t->frames, frame);
		count(&t->counters, same);
		return true;
	}
	if (!record->has_old ||
	    sum != tier_of(w, record->old.tier)->slots.records[record->old.index].sum)
		return false;
	pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->slot));
	record->slot = record->old;
	remember(t, record);
	record->has_old = false;
	table_set(&t->table, record->address,
		  word_make(WORD_STANDBY, word & WORD_UNMARKED, 0, frame));
	record->state = FRAME_STANDBY;
	count(&t->counters, clean);
	return true;
}

/* One page whose bytes have arrived in its frame. True: it must be written. */
static bool settle(struct task *t, uint32_t frame)
{
	struct frame *record = &t->frames.records[frame];
	struct worker *w = t->worker;
	struct slots *slots = &tier_of(w, record->slot.tier)->slots;
	uint64_t sum = slot_sum(slots, t->frame_memory + pages_to_bytes(frame));
	word_t word;

	if (settles_without_write(t, frame, sum))
		return false;
	if (record->has_old) {
		pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->old));
		record->has_old = false;
	}
	slots->records[record->slot.index].sum = sum;
	remember(t, record);
	if (owns_word(t, frame, &word)) {
		table_set(&t->table, record->address,
			  word_make(WORD_STANDBY, word & WORD_UNMARKED, 0, frame));
		pager_slot_get(w, word_of_slot(WORD_SWAP, 0, record->slot));
	} else {
		record->address = 0;
		if (slot_count(slots, record->slot.index) == 1) { /* our own reservation: nobody wants it */
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0, record->slot));
			frames_free(&t->frames, frame);
			return false;
		}
	}
	record->state = FRAME_WRITING; /* the write holds a count of its own */
	return true;
}

/* Whoever waits for a page of the run: writers that the protection has blocked, and who came later. */
static bool run_is_wanted(const struct task *t, uint32_t first_frame, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (t->frames.records[first_frame + i].wanted)
			return true;
	return false;
}

void writeback_command(struct task *t, const struct command *c)
{
	bool write[EXCHANGE_BATCH] = {false}, wanted[EXCHANGE_RUNS];

	for (uint32_t r = 0, frame = c->first_frame; r < c->n_runs; r++) {
		uint32_t n = (uint32_t)c->runs[r].pages;

		trace(t, TRACE_COPIED, .address = c->runs[r].address, .pages = n, .a = c->number);
		wanted[r] = run_is_wanted(t, frame, n);
		frame += n;
	}
	for (uint32_t i = 0; i < c->n_pages; i++)
		write[i] = c->out[i] && settle(t, c->first_frame + i);
	for (uint32_t i = 0, n; i < c->n_pages; i += n) {
		const struct frame *record = &t->frames.records[c->first_frame + i];

		for (n = write[i]; n && i + n < c->n_pages && write[i + n] &&
				   record[n].slot.tier == record->slot.tier &&
				   record[n].slot.index == record->slot.index + n;)
			n++;
		if (n)
			write_frames(t, c->first_frame + i, n);
		else
			n = 1;
	}
	for (uint32_t r = 0; r < c->n_runs; r++)
		if (wanted[r])
			uffd_wake(t->uffd, c->runs[r].address, pages_to_bytes(c->runs[r].pages));
}
