/*
 * The look: on the worker's thread, while the program waits and no command is out, nothing changes.
 * So what the words, the page tables, the frames and the slots say is one state.
 */
#include "look.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "sys/kernel.h"
#include "sys/procmaps.h"

#ifndef PAGE_IS_GUARD
#define PAGE_IS_GUARD (1 << 8) /* Linux 6.15 */
#endif
#define QUIET_MS  5000
#define ARENA_END (ARENA + ARENA_PAGES * PAGE)

struct look {
	struct mail mail;
	sem_t done;
	struct rig *rig;
	struct rig_view *view;
	const char *busy, *wrong; /* why it is not quiet; what must never be */
	uint64_t limit;
	uint32_t less, process, page;
};

static void ask(struct rig *rig, struct look *look,
		void (*run)(struct worker *w, struct mail *mail))
{
	look->rig = rig;
	look->mail.run = run;
	sem_init(&look->done, 0, 0);
	worker_post(rig->group->group.worker, &look->mail);
	while (sem_wait(&look->done) && errno == EINTR)
		;
	sem_destroy(&look->done);
}

static void wrong(struct look *look, const char *format, ...)
{
	va_list args;

	if (look->wrong)
		return;
	va_start(args, format);
	vsnprintf(look->rig->text, sizeof(look->rig->text), format, args);
	va_end(args);
	look->wrong = look->rig->text;
}

static int process_of(const struct rig *rig, const struct task *t)
{
	for (unsigned p = 0; p < PROCESSES; p++)
		if (rig->pid[p] && rig->id[p] == t->id)
			return (int)p;
	return -1;
}

/* ---- is anything under way? ---- */

static const char *busy_with(struct task *t)
{
	struct pollfd uffd = {t->uffd, POLLIN, 0};

	if (t->ended)
		return "a task that ends";
	if (!t->evictable)
		return "a task without agents";
	if (t->posted != t->reaped)
		return "a command";
	if (t->under_way)
		return "a read or a write";
	if (t->messages || t->gate_wanted || poll(&uffd, 1, 0) > 0)
		return "messages";
	if (!TAILQ_EMPTY(&t->retries))
		return "faults that are tried again";
	if (t->n_limbo || t->unmarked)
		return "words in limbo, or without a marker";
	if (t->adopt.wanted)
		return "a scan";
	return NULL;
}

/* ---- the kernel's side ---- */

static void look_at_maps(struct task *t, struct kernel_page *pages, uint64_t *seams)
{
	struct procmaps maps = {0};
	struct procmaps_vma vma;
	uint64_t at = ARENA;

	memset(seams, 0, ARENA_PAGES / 8);
	while (procmaps_next(t->maps, true, &maps, at, &vma) == 0 && vma.start < ARENA_END) {
		for (uint64_t a = MAX(vma.start, ARENA); a < MIN(vma.end, ARENA_END); a += PAGE) {
			const struct region *r = regions_find(&t->regions, a);

			pages[(a - ARENA) / PAGE].mapped = true;
			pages[(a - ARENA) / PAGE].registered = r && r->start <= a && r->registered;
		}
		if (vma.start >= ARENA)
			seams[(vma.start - ARENA) / PAGE / 64] |=
			    1ull << (vma.start - ARENA) / PAGE % 64;
		at = vma.end;
	}
	procmaps_done(&maps);
}

/* Where the machine has swap, MADV_PAGEOUT makes use of it. To a pager such a page is memory: the kernel
 * brings it back. Markers are the last of 32 kinds of swap entries. */
static bool kernel_has_swapped(struct task *t, uint64_t address)
{
	uint64_t entry;

	return pread(t->pagemap, &entry, sizeof(entry), (off_t)(address / PAGE * sizeof(entry))) ==
		       sizeof(entry) &&
	       (entry & 31) != 31;
}

static const char *look_at_pagemap(struct task *t, struct kernel_page *pages)
{
	const uint64_t all = PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO | PAGE_IS_GUARD;
	static struct page_region regions[ARENA_PAGES];
	struct pm_scan_arg scan = {
	    .size = sizeof(scan),
	    .start = ARENA,
	    .end = ARENA_END,
	    .vec = (uintptr_t)regions,
	    .vec_len = ARENA_PAGES,
	    .category_anyof_mask = all,
	    .return_mask = all | PAGE_IS_WRITTEN,
	};
	int n = ioctl(t->pagemap, PAGEMAP_SCAN, &scan);

	if (n < 0)
		return "PAGEMAP_SCAN fails";
	for (int r = 0; r < n; r++) {
		for (uint64_t a = regions[r].start; a < regions[r].end; a += PAGE) {
			struct kernel_page *k = &pages[(a - ARENA) / PAGE];
			uint64_t is = regions[r].categories;

			bool elsewhere = is & PAGE_IS_SWAPPED && kernel_has_swapped(t, a);

			k->present = is & PAGE_IS_PRESENT || elsewhere;
			k->zero = is & PAGE_IS_PFNZERO;
			k->protected = !(is & PAGE_IS_WRITTEN);
			k->swapped = is & PAGE_IS_SWAPPED && !elsewhere;
			k->guard = is & PAGE_IS_GUARD;
		}
	}
	return NULL;
}

/* ---- the pager's side ---- */

/* The slot that a word counts. */
static bool slot_of(const struct task *t, word_t word, struct slot *ret)
{
	switch (word_tag(word)) {
	case WORD_STANDBY:
		*ret = t->frames.records[word_frame(word)].slot;
		return true;
	case WORD_SWAP:
	case WORD_FILLING:
		*ret = word_slot(word);
		return word_tier(word) != TIER_SAME;
	case WORD_PRESENT:
		*ret = word_slot(word);
		return word & WORD_SLOT;
	default:
		return false;
	}
}

static bool is_spoiled(const struct rig *rig, struct slot slot)
{
	for (unsigned i = 0; i < MIN(rig->n_spoiled, (unsigned)ARRAY_SIZE(rig->spoiled)); i++)
		if (rig->spoiled[i].index == slot.index && rig->spoiled[i].gen == slot.gen)
			return true;
	return false;
}

/* What the slot holds must be what its checksum says, unless it was spoiled. */
static void read_slot(struct look *look, struct task *t, struct slot slot, unsigned char *page)
{
	const struct slots *slots = &tier_of(t->worker, slot.tier)->slots;
	uint8_t gen = slot_name(slots, slot.index).gen;

	if (gen != slot.gen)
		wrong(look, "slot %u is of generation %u, its word of %u", slot.index, gen, slot.gen);
	if (slot_is(slots, slot.index, SLOT_WRITING))
		wrong(look, "slot %u is said to be written, but nothing is under way", slot.index);
	if (pread(look->rig->swap_fd, page, PAGE, (off_t)slot.index * PAGE) != PAGE)
		memset(page, 0, PAGE);
	if (slots->records[slot.index].sum != slot_sum(slots, page) && !look->rig->errors &&
	    !is_spoiled(look->rig, slot))
		wrong(look, "slot %u holds other bytes than its checksum says", slot.index);
}

/* The content of a page, wherever it is. */
static bool read_page(struct look *look, struct task *t, uint64_t address, enum page_state state,
		      word_t word, unsigned char *page)
{
	uint32_t frame = word_frame(word);

	switch (state) {
	case STATE_UNTOUCHED:
	case STATE_ORPHAN:
	case STATE_STALE:
		memset(page, 0, PAGE);
		return true;
	case STATE_SAME:
		tier_same_fill(page, (uint32_t)word_payload(word));
		return true;
	case STATE_STANDBY:
		if (t->frames.records[frame].state != FRAME_STANDBY ||
		    t->frames.records[frame].address != address)
			wrong(look, "frame %u is not the page's whose word names it", frame);
		read_slot(look, t, t->frames.records[frame].slot, page);
		memcpy(page, t->frame_memory + (uint64_t)frame * PAGE, PAGE);
		return true;
	case STATE_SWAPPED:
		read_slot(look, t, word_slot(word), page);
		return !is_spoiled(look->rig, word_slot(word)) && !look->rig->errors;
	case STATE_LOST:
	case STATE_POISONED:
	case STATE_GUARDED:
	case STATE_UNMAPPED:
		return false;
	default:
		if (pread(t->mem, page, PAGE, (off_t)address) == PAGE)
			return true;
		wrong(look, "a page that is present cannot be read");
		return false;
	}
}

static void look_at_counters(const struct task *t, struct seen *ret)
{
	const uint64_t values[] = {
#define X(name, text) t->counters.name,
	    COUNTER_OUTCOMES(X)
#undef X
	};

	memcpy(ret->outcome, values, sizeof(values));
	ret->messages = t->counters.messages;
	ret->readahead = t->counters.readahead;
	ret->evicted = t->counters.evicted;
}

static void look_at_page(struct look *look, struct task *t, unsigned p, uint32_t i,
			 const struct kernel_page *k)
{
	uint64_t address = ARENA + (uint64_t)i * PAGE;
	word_t word = table_get(&t->table, address);
	struct seen_page *seen = &look->view->seen[p].page[i];
	int state = state_of(k, word);
	struct slot slot;

	if (state < 0) {
		wrong(look, "process %u, page %u: word %s%s%s, but the page is%s%s%s%s%s", p, i,
		      word_tag_name(word_tag(word)), word & WORD_SLOT ? " slot" : "",
		      word & WORD_WP ? " wp" : "", k->mapped ? "" : " unmapped",
		      k->present ? " present" : "", k->zero ? " zero" : "",
		      k->swapped ? " out" : "", k->protected ? " protected" : "");
		return;
	}
	if (word & WORD_UNMARKED && word_tag(word) != WORD_POISON)
		wrong(look, "process %u, page %u: still unmarked", p, i);
	*seen = (struct seen_page){.state = (enum page_state)state, .registered = k->registered};
	if (slot_of(t, word, &slot)) {
		seen->kept = true;
		seen->lost = is_spoiled(look->rig, slot);
	}
	look->view->known[p][i] =
	    read_page(look, t, address, seen->state, word, look->view->bytes[p][i]);
}

static void look_at_task(struct look *look, struct task *t, unsigned p)
{
	struct kernel_page pages[ARENA_PAGES] = {0};
	const char *why;

	look_at_maps(t, pages, p ? look->view->child_seams : look->view->seams);
	why = look_at_pagemap(t, pages);
	if (why)
		wrong(look, "%s", why);
	for (uint32_t i = 0; i < ARENA_PAGES; i++)
		if (pages[i].mapped && !pages[i].registered)
			look->busy = "memory that is not registered";
	if (look->busy)
		return;
	look->view->seen[p].alive = true;
	look_at_counters(t, &look->view->seen[p]);
	for (uint32_t i = 0; i < ARENA_PAGES; i++)
		look_at_page(look, t, p, i, &pages[i]);
}

/* ---- what must hold when nothing is under way ---- */

static void count_slots(struct look *look, struct task *t, uint32_t *counts)
{
	uint64_t evicted = 0;

	for (struct leaf *leaf = table_next(&t->table, 0, UINT64_MAX); leaf;
	     leaf = table_next(&t->table, leaf->base + LEAF_SIZE, UINT64_MAX)) {
		unsigned used = 0, out = 0;

		for (unsigned i = 0; i < LEAF_WORDS; i++) {
			struct slot slot;

			used += word_tag(leaf->words[i]) != WORD_NONE;
			out += word_is_evicted(leaf->words[i]);
			if (slot_of(t, leaf->words[i], &slot))
				counts[slot.index]++;
		}
		if (used != leaf->used || out != leaf->evicted)
			wrong(look, "a leaf says %u words, %u out; it has %u, %u", leaf->used,
			      leaf->evicted, used, out);
		evicted += out;
	}
	if (evicted != t->table.evicted)
		wrong(look, "the table says %llu pages are out; it is %llu",
		      (unsigned long long)t->table.evicted, (unsigned long long)evicted);
}

static void check_frames(struct look *look, struct task *t)
{
	uint32_t held = 0;

	for (uint32_t i = 0; i < t->frames.n; i++) {
		const struct frame *f = &t->frames.records[i];
		word_t word;

		if (f->state == FRAME_FREE)
			continue;
		held++;
		word = table_get(&t->table, f->address);
		if (f->state != FRAME_STANDBY || word_tag(word) != WORD_STANDBY ||
		    word_frame(word) != i)
			wrong(look, "frame %u is held (state %u) for a page whose word is %s", i,
			      f->state, word_tag_name(word_tag(word)));
	}
	if (held != t->frames.held)
		wrong(look, "%u frames are said to be held; it is %u", t->frames.held, held);
}

static void check_slots(struct look *look, struct worker *w)
{
	const struct slots *slots = &tier_of(w, 1)->slots;
	uint32_t *counts = calloc(slots->n, sizeof(*counts)), used = 0;
	struct task *t;

	if (!counts)
		abort();
	TAILQ_FOREACH (t, &look->rig->group->group.tasks, link)
		count_slots(look, t, counts);
	for (uint32_t i = 0; i < slots->n; i++) {
		used += slot_count(slots, i) > 0;
		if (slot_count(slots, i) != counts[i])
			wrong(look, "slot %u is counted %u times, but %u words name it", i,
			      slot_count(slots, i), counts[i]);
	}
	if (used != slots->used)
		wrong(look, "%u slots are said to be used; it is %u", slots->used, used);
	free(counts);
}

/* ---- mails ---- */

static void look_run(struct worker *w, struct mail *mail)
{
	struct look *look = container_of(mail, struct look, mail);
	struct group *g = &look->rig->group->group;
	struct task *t;

	for (unsigned p = 0; p < PROCESSES; p++)
		look->view->seen[p].alive = false;
	TAILQ_FOREACH (t, &g->tasks, link)
		if (!look->busy)
			look->busy = process_of(look->rig, t) < 0 ? "a task that nobody knows"
								  : busy_with(t);
	if (!TAILQ_EMPTY(&g->waiters))
		look->busy = "faults that wait for room";
	if (!look->busy)
		TAILQ_FOREACH (t, &g->tasks, link)
			if (!look->busy)
				look_at_task(look, t, (unsigned)process_of(look->rig, t));
	if (!look->busy) {
		TAILQ_FOREACH (t, &g->tasks, link)
			check_frames(look, t);
		check_slots(look, w);
	}
	sem_post(&look->done);
}

const char *rig_look(struct rig *rig, struct rig_view *ret)
{
	uint64_t end = now_ns() + QUIET_MS * MS;
	struct pager_notice notice;
	struct look look;

	do {
		look = (struct look){.view = ret};
		ask(rig, &look, look_run);
		if (look.busy)
			usleep(100);
	} while (look.busy && now_ns() < end);
	while (pager_next_notice(rig->pager, &notice))
		;
	if (look.busy) {
		snprintf(rig->text, sizeof(rig->text), "never quiet: %s", look.busy);
		return rig->text;
	}
	return look.wrong;
}

static void limit_run(struct worker *w, struct mail *mail)
{
	struct look *look = container_of(mail, struct look, mail);
	struct group *g = &look->rig->group->group;
	uint64_t limit = look->limit;

	(void)w;
	/* pressure_of(): what is kept free, and for frames; so that eviction goes on to there. */
	if (look->less)
		limit = (g->resident + g->reserved + 256 - MIN((uint64_t)look->less, g->resident)) *
			PAGE;
	atomic_store(&g->limit, limit);
	g->next_sample = 0;
	sem_post(&look->done);
}

/* Lower than pager_group_set_limit() allows: the arena is small. */
void look_limit(struct rig *rig, uint64_t bytes)
{
	struct look look = {.limit = bytes};

	ask(rig, &look, limit_run);
}

void look_limit_near(struct rig *rig, uint32_t pages)
{
	struct look look = {.less = pages};

	ask(rig, &look, limit_run);
}

static void spoil_run(struct worker *w, struct mail *mail)
{
	struct look *look = container_of(mail, struct look, mail);
	struct rig *rig = look->rig;
	_Alignas(8) unsigned char page[PAGE];
	struct task *t;
	word_t word;

	(void)w;
	TAILQ_FOREACH (t, &rig->group->group.tasks, link) {
		if (process_of(rig, t) != (int)look->process)
			continue;
		word = table_get(&t->table, ARENA + (uint64_t)look->page * PAGE);
		if (word_tag(word) != WORD_SWAP || word_tier(word) == TIER_SAME)
			continue;
		memset(page, 0xee, PAGE);
		if (pwrite(rig->swap_fd, page, PAGE, (off_t)word_slot(word).index * PAGE) == PAGE)
			rig->spoiled[rig->n_spoiled++ % ARRAY_SIZE(rig->spoiled)] = word_slot(word);
	}
	sem_post(&look->done);
}

void rig_spoil(struct rig *rig, uint32_t process, uint32_t page)
{
	struct look look = {.process = process, .page = page};

	ask(rig, &look, spoil_run);
}

void rig_counters(const struct rig *rig, struct counters *ret)
{
	struct pager_group_stat stat;

	pager_group_stat(rig->group, &stat);
	*ret = stat.counters;
}
