/*
 * The messages of one task: read under the gate into the journal, events before faults.
 *
 * Events do not come in the order in which the address space changed, so they are hints that stop
 * what is in flight; whether a word is content is decided by its marker. What loses its range
 * goes to limbo, whence an event that was read too late takes it.
 *
 * REMOVE comes before the pages are zapped: it kills the words of its range at once, and only
 * zeros are installed there from then on. UNMAP and REMAP come after the change.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "pager/file.h"
#include "pager/snapshot.h"
#include "pager/trace.h"
#include "sys/kernel.h"
#include "sys/pagemap.h"

/* ---- limbo ---- */

static void to_limbo(struct task *t, uint64_t address, word_t word)
{
	if (limbo_add(t, address, word) < 0)
		pager_slot_put(t->worker, word);
}

void limbo_clear(struct task *t)
{
	for (size_t i = 0; i < t->n_limbo; i++)
		pager_slot_put(t->worker, t->limbo[i].word);
	t->n_limbo = 0;
}

/* mmap_changing is zero: every event that happened has been read. */
void limbo_purge(struct task *t)
{
	enum uffd_verdict verdict;

	if (!t->n_limbo && !t->unmarked && !t->mappings.n_old)
		return;
	/* Any other refusal would do as well: the client may have unmapped the sentinel. */
	verdict = uffd_classify(uffd_protect(t->uffd, t->sentinel, PAGE_SIZE, false));
	if (verdict == UFFD_RETRY || verdict == UFFD_SHORT)
		return;
	limbo_clear(t);
	mappings_forget_old(&t->mappings);
	if (t->unmarked)
		t->unmarked = !evict_retry_marks(t);
}

/* What a word's content can be named by when the word itself goes: its slot, counted, as SWAP.
 * NONE: there is nothing. The word at `leaf` is left as it is; its frame is let go. */
static word_t content_of(struct task *t, word_t word)
{
	uint32_t frame;
	struct frame *record;
	word_t content = WORD_NONE;

	switch (word_tag(word)) {
	case WORD_EVICTING:
	case WORD_STANDBY:
		frame = word_frame(word);
		record = &t->frames.records[frame];
		if (word_tag(word) == WORD_STANDBY || record->moved)
			content = word_of_slot(WORD_SWAP, 0, record->slot);
		/* A frame under way keeps its own count of the slot; on standby the word had it. */
		if (content && record->state == FRAME_OUT)
			pager_slot_get(t->worker, content);
		evict_frame_drop(t, frame);
		return content;
	case WORD_SWAP:
	case WORD_FILLING:
		return (word & ~(word_t)(WORD_FLAGS | 0xf)) | WORD_SWAP;
	case WORD_POISON:
		return WORD_POISON;
	case WORD_PRESENT:
		if (word & WORD_SLOT)
			pager_slot_put(t->worker, word);
		return WORD_NONE;
	default:
		return WORD_NONE;
	}
}

void event_drop_word(struct task *t, struct leaf *leaf, unsigned index)
{
	word_t unmarked = leaf->words[index] & WORD_UNMARKED;
	word_t content = content_of(t, leaf->words[index]);

	if (content)
		to_limbo(t, leaf->base + index * (uint64_t)PAGE_SIZE, content | unmarked);
	word_set(&t->table, leaf, index, WORD_NONE);
}

/* ---- ranges ---- */

/* Calls back for every used word in [start, end); leaves that end up empty are given back. */
static void each_word(struct task *t, uint64_t start, uint64_t end,
		      void (*each)(struct task *t, struct leaf *leaf, unsigned index, void *context),
		      void *context)
{
	struct leaf *leaf = table_next(&t->table, start, end), *next;

	for (; leaf; leaf = next) {
		unsigned from = start > leaf->base ? leaf_index(start) : 0;
		unsigned to = end - leaf->base < LEAF_SIZE ? leaf_index(end) : LEAF_WORDS;

		for (unsigned i = from; i < to && leaf->used; i++)
			if (word_tag(leaf->words[i]) != WORD_NONE)
				each(t, leaf, i, context);
		next = table_next(&t->table, leaf->base + LEAF_SIZE, end);
		table_trim(&t->table, leaf);
	}
}

static void kill_word(struct task *t, struct leaf *leaf, unsigned index, void *context)
{
	(void)context;
	event_drop_word(t, leaf, index);
}

/* Discarded. Without a marker nothing could tell a late REMAP that it has lost its claim. */
static void discard_word(struct task *t, struct leaf *leaf, unsigned index, void *context)
{
	word_t content;

	if (!(leaf->words[index] & WORD_UNMARKED)) {
		kill_word(t, leaf, index, context);
		return;
	}
	content = content_of(t, leaf->words[index]);
	if (content)
		pager_slot_put(t->worker, content);
	word_set(&t->table, leaf, index, WORD_NONE);
}

/* After an UNMAP: is the word's content still mapped, because the event is older than what has
 * come there since? The marker tells. A word without one was evicted right here and before the
 * event (MOVE succeeds only while none is pending): it goes. */
static void check_word(struct task *t, struct leaf *leaf, unsigned index, void *context)
{
	uint64_t address = leaf->base + index * (uint64_t)PAGE_SIZE;
	word_t word = leaf->words[index];

	(void)context;
	/* A child without hello has no pagemap; there the fill itself finds out. */
	if (word_is_evicted(word) && !(word & WORD_UNMARKED) &&
	    (t->pagemap < 0 || pagemap_is(t->pagemap, address, PAGEMAP_MARKER) == 1))
		return;
	event_drop_word(t, leaf, index);
}

/* ---- events ---- */

void event_discard(struct task *t, uint64_t start, uint64_t end)
{
	snapshot_discard(t, start, end, true);
	each_word(t, start, end, discard_word, NULL);
}

bool event_is_ours(const struct task *t, uint64_t start, uint64_t end)
{
	return start >= t->exclude[0][0] && end <= t->exclude[0][1] && t->exclude[0][1];
}

static void event_remove(struct task *t, uint64_t start, uint64_t end)
{
	count(&t->counters, remove);
	if (!event_is_ours(t, start, end))
		event_discard(t, start, end);
}

static void event_unmap(struct task *t, uint64_t start, uint64_t end)
{
	count(&t->counters, unmap);
	snapshot_discard(t, start, end, false);
	each_word(t, start, end, check_word, NULL);
	regions_remove(&t->regions, start, end);
	images_unmapped(t, start, end);
	/* A hole in registered memory: what is mapped there next must merge again soon. */
	t->adopt.wanted = true;
}

struct remap {
	uint64_t from, to;
};

/* Puts evicted content at an address; what was there goes to limbo. */
static void place(struct task *t, uint64_t address, word_t content)
{
	struct leaf *leaf = table_leaf(&t->table, address, true);

	if (!leaf) {
		pager_slot_put(t->worker, content);
		task_broken(t, ENOMEM);
		return;
	}
	if (leaf->words[leaf_index(address)] != WORD_NONE)
		event_drop_word(t, leaf, leaf_index(address));
	word_set(&t->table, leaf, leaf_index(address), content);
}

static void move_word(struct task *t, struct leaf *leaf, unsigned index, void *context)
{
	const struct remap *remap = context;
	uint64_t address = leaf->base + index * (uint64_t)PAGE_SIZE;
	word_t old = leaf->words[index];
	word_t content = content_of(t, old);

	word_set(&t->table, leaf, index, WORD_NONE);
	if (content)
		place(t, remap->to + (address - remap->from), content | (old & WORD_UNMARKED));
}

static void event_remap(struct task *t, uint64_t from, uint64_t to, uint64_t length)
{
	struct remap remap = {from, to};

	count(&t->counters, remap);
	snapshot_moved(t, from, to, length);
	/* Words that a later UNMAP, read earlier, has taken from the range. */
	for (size_t i = t->n_limbo; i-- > 0;) {
		struct limbo_entry entry = t->limbo[i];

		if (entry.address < from || entry.address >= from + length ||
		    word_is_evicted(table_get(&t->table, entry.address)))
			continue;
		t->limbo[i] = t->limbo[--t->n_limbo];
		place(t, entry.address, entry.word);
		i = MIN(i, t->n_limbo);
	}
	/* What was at the new place has been unmapped by the same call, or is gone otherwise. */
	each_word(t, to, to + length, kill_word, NULL);
	each_word(t, from, from + length, move_word, &remap);
	hugetlb_remap(t, from, to, length);
	regions_remove(&t->regions, from, from + length);
	images_moved(t, from, to, length);
	t->adopt.wanted = true;
}

/* ---- messages ---- */

static void apply_event(struct task *t, const struct uffd_msg *m)
{
	if (t->ended && m->event != UFFD_EVENT_FORK) { /* a child may live on */
		count(&t->counters, gone);
		return;
	}
	switch (m->event) {
	case UFFD_EVENT_FORK:
		count(&t->counters, fork);
		fork_task(t, (int)m->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		event_remap(t, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
		event_remove(t, m->arg.remove.start, m->arg.remove.end);
		break;
	case UFFD_EVENT_UNMAP:
		event_unmap(t, m->arg.remove.start, m->arg.remove.end);
		break;
	default:
		count(&t->counters, spurious);
		break;
	}
}

static void apply_fault(struct task *t, const struct uffd_msg *m)
{
	uint64_t flags = m->arg.pagefault.flags;

	if (t->ended) {
		count(&t->counters, gone);
		return;
	}
	task_fault(t, m->arg.pagefault.address, flags & UFFD_PAGEFAULT_FLAG_WRITE,
		   flags & UFFD_PAGEFAULT_FLAG_WP, m->arg.pagefault.feat.ptid, 0, false);
}

void task_messages(struct task *t)
{
	struct state_journal *journal = &t->state->journal;
	bool changed = false;
	ssize_t n;

	if (!gate_take(t))
		return; /* the doorbell brings us back */
	evict_harvest(t);
	journal->n = journal->done = 0;
	n = uffd_read(t->uffd, journal->messages, STATE_MESSAGES);
	journal->n = (uint32_t)MAX(n, 0);
	t->messages = journal->n == STATE_MESSAGES;
	count_add(&t->counters, messages, journal->n);
	trace_messages(t, journal->messages, journal->n);
	for (uint32_t i = 0; i < journal->n; i++) {
		if (journal->messages[i].event == UFFD_EVENT_PAGEFAULT)
			continue;
		changed = true;
		apply_event(t, &journal->messages[i]);
	}
	gate_release(t, changed);
	for (uint32_t i = 0; i < journal->n; i++) {
		if (journal->messages[i].event == UFFD_EVENT_PAGEFAULT)
			apply_fault(t, &journal->messages[i]);
		if (i % URING_BATCH == URING_BATCH - 1)
			uring_flush(&t->worker->uring);
	}
	journal->done = journal->n;
	if (journal->n)
		t->group->active_at = t->worker->now;
	limbo_purge(t);
}
