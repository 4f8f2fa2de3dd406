/*
 * The fault tree. Names and order are those of Linux's mm/memory.c.
 *
 *   handle_mm_fault
 *     the sentinel ............................ do_sentinel        a forked child's handshake
 *     reserved huge pages ..................... hugetlb_fault      (hugetlb.c)
 *     a huge page that left whole ............. create_huge_pmd    comes back whole, or FALLBACK
 *     handle_pte_fault
 *       a mapping of an image ................. do_fault
 *         write to a protected page ........... wp_page_shared     dirty from now on
 *         read ................................ do_read_fault      mapped, or read from the file
 *         write, private ...................... do_cow_fault       the same: the kernel copies
 *         write, shared ....................... do_shared_fault    the same, and dirty
 *       write to a protected page ............. do_wp_page
 *       the word is
 *         NONE, PRESENT ....................... do_anonymous_page  zeros
 *         EVICTING, FILLING ................... do_busy_page       joins what is under way
 *         STANDBY ............................. do_numa_page       back from its frame, no I/O
 *         SWAP ................................ do_swap_page       same-filled, or read
 *         POISON .............................. do_poisoned_page   SIGBUS
 *       (the last three through ............... do_evicted_page    has the client discarded it?
 *        Of a page that is read this is asked when it is there, before it is installed.)
 *
 * No I/O, ioctl or logging here: only in what is called (fill.c). A fault that meets a changed word
 * is decided anew; one that meets a pending event, or the limit, waits (task_fault).
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pager/file.h"
#include "pager/snapshot.h"
#include "pager/trace.h"
#include "proto/session.h"
#include "sys/pagemap.h"

static enum fault_result do_sentinel(struct fault *f)
{
	struct task *t = f->task;
	struct session_sentinel *page = (void *)t->worker->scratch;
	ssize_t r;

	memset(t->worker->scratch, 0, PAGE_SIZE);
	*page = (struct session_sentinel){
		.magic = SESSION_SENTINEL_MAGIC,
		.token = t->token,
		.silent = t->silent,
	};
	r = uffd_copy(t->uffd, t->sentinel, page, PAGE_SIZE, false);
	if (uffd_classify(r) == UFFD_RETRY)
		return FAULT_RETRY;
	if (uffd_classify(r) == UFFD_SHORT)
		return fill_short(t);
	if (r < 0)
		uffd_wake(t->uffd, t->sentinel, PAGE_SIZE);
	count(&t->counters, handshake);
	return FAULT_DONE;
}

/* Nothing of ours is known there: a first touch, or what the client has discarded. */
static enum fault_result do_anonymous_page(struct fault *f)
{
	return fill_zero(f);
}

/* A command or a read will settle it, and wake whoever waits for the page. */
static enum fault_result do_busy_page(struct fault *f)
{
	struct task *t = f->task;

	if (word_tag(f->word) == WORD_EVICTING)
		t->frames.records[word_frame(f->word)].wanted = true;
	count(&t->counters, parked);
	return FAULT_DONE;
}

/* What rests with us is only given back if the client has not discarded it meanwhile. */
static enum fault_result do_evicted_page(struct fault *f,
					 enum fault_result (*fill)(struct fault *fault))
{
	struct task *t = f->task;
	int ours = fill_is_ours(t, f->address, f->word);

	if (ours < 0)
		return FAULT_RETRY;
	if (!word_same(f->word, table_get(&t->table, f->address)))
		return FAULT_RESTART;
	if (ours)
		return fill(f);
	event_drop_word(t, table_leaf(&t->table, f->address, false), leaf_index(f->address));
	return FAULT_RESTART;
}

/* The page was only taken out of the client's page table: this touch is the hint that it is in use. It
 * is restored without I/O, young, and on the node of the thread that touched it. */
static enum fault_result do_numa_page(struct fault *f)
{
	return do_evicted_page(f, fill_standby);
}

static enum fault_result do_swap_page(struct fault *f)
{
	return word_tier(f->word) == TIER_SAME ? do_evicted_page(f, fill_same) : fill_read(f);
}

static enum fault_result do_poisoned_page(struct fault *f)
{
	return do_evicted_page(f, fill_poison);
}

/* Of pages that were never evicted, only zero pages are protected; except by a snapshot. */
static bool was_memory(const struct fault *f)
{
	return f->task->snapped && f->task->pagemap >= 0 &&
	       pagemap_is(f->task->pagemap, f->address, PAGEMAP_RESIDENT) == 1;
}

/* A write to a protected page. WP(0) erases markers, so it is used only where the page is present;
 * a writer to a page that has left is woken and comes back as a missing fault. */
static enum fault_result do_wp_page(struct fault *f)
{
	struct task *t = f->task;
	bool grows = word_tag(f->word) == WORD_NONE && !was_memory(f);
	int r;

	if (word_tag(f->word) == WORD_EVICTING)
		return do_busy_page(f);
	if (!snapshot_keep(t, f->address, f->by_agent))
		return FAULT_RETRY;
	if (word_is_evicted(f->word)) {
		if (t->pagemap < 0 || pagemap_is(t->pagemap, f->address, PAGEMAP_PRESENT) <= 0) {
			uffd_wake(t->uffd, f->address, PAGE_SIZE);
			count(&t->counters, spurious);
			return FAULT_DONE;
		}
		event_drop_word(t, table_leaf(&t->table, f->address, false),
				leaf_index(f->address));
	} else if (f->word & WORD_SLOT && f->word & WORD_WP) {
		/* The slot's bytes go stale with this write: the word first, then the page. */
		pager_slot_put(t->worker, f->word);
		table_set(&t->table, f->address, word_make(WORD_PRESENT, WORD_YOUNG, 0, 0));
	} else if (grows && !f->by_agent && !f->overrun && group_room(t->group) < 1) {
		return FAULT_NO_ROOM; /* a zero page that becomes memory */
	}
	r = uffd_protect(t->uffd, f->address, PAGE_SIZE, false);
	switch (uffd_classify(r)) {
	case UFFD_RETRY:
		return FAULT_RETRY;
	case UFFD_SHORT:
		return fill_short(t);
	case UFFD_DONE:
		task_charge(t, grows);
		if (grows)
			fill_is_new(t, f->address, 1);
		count(&t->counters, wp_reuse);
		return FAULT_DONE;
	default:
		uffd_wake(t->uffd, f->address, PAGE_SIZE);
		count(&t->counters, spurious);
		return FAULT_DONE;
	}
}

/* One read however many wait; what is read is mapped by who began it. */
static enum fault_result do_read_fault(struct fault *f)
{
	const struct mapping *m = f->mapping;

	switch (image_tag(m->image, mapping_page(m, f->address))) {
	case IMAGE_ABSENT:
		return filemap_read(f);
	case IMAGE_READING:
		return filemap_join(f);
	case IMAGE_DROPPING:
		return FAULT_RETRY;
	default:
		return filemap_map_pages(f);
	}
}

/* The page is mapped to be read; then the kernel copies it, which takes room. */
static enum fault_result do_cow_fault(struct fault *f)
{
	if (!f->by_agent && !f->overrun && group_room(f->task->group) < 1)
		return FAULT_NO_ROOM;
	return do_read_fault(f);
}

/* What maps the page says first that it is dirty. */
static enum fault_result do_shared_fault(struct fault *f)
{
	return do_read_fault(f);
}

static enum fault_result wp_page_shared(struct fault *f)
{
	return filemap_unprotect(f);
}

static enum fault_result do_fault(struct fault *f)
{
	if (f->protect)
		return wp_page_shared(f);
	if (!f->write)
		return do_read_fault(f);
	return f->mapping->shared ? do_shared_fault(f) : do_cow_fault(f);
}

static enum fault_result handle_pte_fault(struct fault *f)
{
	if (f->mapping)
		return do_fault(f);
	if (f->protect)
		return do_wp_page(f);
	switch (word_tag(f->word)) {
	case WORD_NONE:
	case WORD_PRESENT:
		return do_anonymous_page(f);
	case WORD_EVICTING:
	case WORD_FILLING:
		return do_busy_page(f);
	case WORD_STANDBY:
		return do_numa_page(f);
	case WORD_SWAP:
		return do_swap_page(f);
	case WORD_POISON:
		return do_poisoned_page(f);
	default:
		abort(); /* the setter knows no other tag */
	}
}

/* A huge page that left whole comes back whole, while nothing has to leave for it: the page that is
 * asked for first, as ever, and then the rest. */
static enum fault_result create_huge_pmd(struct fault *f, struct leaf *leaf)
{
	enum fault_result result;

	if (!cluster_fits(f, leaf)) {
		count(&f->task->counters, cluster_fallback);
		return FAULT_FALLBACK;
	}
	result = handle_pte_fault(f);
	if (result == FAULT_DONE)
		cluster_fill(f, leaf);
	return result;
}

static enum fault_result handle_pmd_fault(struct fault *f)
{
	struct leaf *leaf = table_leaf(&f->task->table, f->address, false);
	enum fault_result result = FAULT_FALLBACK;

	if (leaf && leaf->huge && !f->protect && word_is_evicted(f->word))
		result = create_huge_pmd(f, leaf);
	return result == FAULT_FALLBACK ? handle_pte_fault(f) : result;
}

/* The agent makes pages exclusive before it moves them. Then what it touches has not left, and
 * waiting for its command to end would be waiting for itself. */
static word_t word_for(const struct fault *f)
{
	word_t word = table_get(&f->task->table, f->address);

	if (f->by_agent && word_tag(word) == WORD_EVICTING &&
	    !f->task->frames.records[word_frame(word)].moved)
		return word_make(WORD_PRESENT, 0, 0, 0);
	return word;
}

enum fault_result handle_mm_fault(struct fault *f)
{
	enum fault_result result;

	do {
		f->word = word_for(f);
		f->mapping = images_find(f->task, f->address);
		if (f->address == f->task->sentinel && !f->protect)
			result = do_sentinel(f);
		else if (hugetlb_serves(f->task, f->address))
			result = hugetlb_fault(f);
		else
			result = handle_pmd_fault(f);
	} while (result == FAULT_RESTART);
	return result;
}

/* ---- waiting ---- */

#define WAIT_MAX (1000 * MS) /* for room, before the limit is overrun */

static bool wait_in(struct waiters *list, const struct fault *f, uint32_t ptid, uint64_t since)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w) {
		/* Not remembered: the thread is woken, faults again and finds us richer. */
		uffd_wake(f->task->uffd, f->address, PAGE_SIZE);
		count(&f->task->counters, spurious);
		return false;
	}
	*w = (struct waiter){
		.task = f->task,
		.address = f->address,
		.since = since,
		.ptid = ptid,
		.write = f->write,
		.protect = f->protect,
	};
	TAILQ_INSERT_TAIL(list, w, link);
	return true;
}

void task_fault(struct task *t, uint64_t address, bool write, bool protect, uint32_t ptid,
		uint64_t since, bool overrun)
{
	struct worker *w = t->worker;
	struct fault f = {
		.task = t,
		.address = page_down(address),
		.write = write,
		.protect = protect,
		.by_agent = ptid && ptid == (uint32_t)t->agent_ns_pid[t->agent],
		.ptid = ptid,
		.overrun = overrun || (since && w->now - since > WAIT_MAX),
		.again = since,
	};

	if (!since)
		since = w->now;
	switch (trace_fault(&f)) {
	case FAULT_RETRY:
		count(&t->counters, retries);
		w->n_retries += wait_in(&t->retries, &f, ptid, since);
		break;
	case FAULT_NO_ROOM:
		if (since == w->now)
			count(&t->counters, waited);
		wait_in(&t->group->waiters, &f, ptid, since);
		break;
	default:
		if (f.overrun)
			count(&t->counters, overruns);
		break;
	}
}

void task_retry(struct task *t)
{
	struct waiters again = TAILQ_HEAD_INITIALIZER(again);
	struct waiter *w;

	TAILQ_CONCAT(&again, &t->retries, link);
	while ((w = TAILQ_FIRST(&again))) {
		TAILQ_REMOVE(&again, w, link);
		t->worker->n_retries--;
		if (t->ended)
			count(&t->counters, gone);
		else
			task_fault(t, w->address, w->write, w->protect, w->ptid, w->since, false);
		free(w);
	}
}
