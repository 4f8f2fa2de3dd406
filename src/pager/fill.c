/* Pages in: what the tree has decided is installed here, with uffd ioctls and tier reads. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pager/trace.h"
#include "policy/refault.h"
#include "sys/pagemap.h"

#define RECLAIM 32u /* pages that leave where there is no memory for one */

enum fault_result fill_short(struct task *t)
{
	t->group->reclaim = RECLAIM;
	count(&t->counters, reclaims);
	return FAULT_RETRY;
}

/* What a call on one page has come to, where it is not done. */
enum fault_result fill_refused(struct task *t, uint64_t address, ssize_t r)
{
	switch (uffd_classify(r)) {
	case UFFD_RETRY:
		return FAULT_RETRY;
	case UFFD_SHORT:
		return fill_short(t);
	case UFFD_EXISTS:
		uffd_wake(t->uffd, address, PAGE_SIZE);
		count(&t->counters, race);
		return FAULT_DONE;
	case UFFD_ENDED:
		count(&t->counters, gone);
		return FAULT_DONE;
	default: /* the range has changed: whoever waits looks again */
		uffd_wake(t->uffd, address, PAGE_SIZE);
		count(&t->counters, spurious);
		return FAULT_DONE;
	}
}

/* How many pages may come in at `address` of the `window` that a stream asks for. */
uint32_t fill_clip(const struct fault *f, uint32_t window)
{
	const struct region *region = regions_find(&f->task->regions, f->address);
	uint64_t room = group_room(f->task->group) / 4;

	if (!region || region->start > f->address)
		return 1;
	window = (uint32_t)MIN((uint64_t)window, bytes_to_pages(region->end - f->address));
	return (uint32_t)MAX(MIN((uint64_t)window, room), 1ull);
}

/* ---- zeros ---- */

/* Neighbours of a stream of first touches that have no word: they get zeros with it. */
static uint32_t untouched(struct task *t, uint64_t address, uint32_t n)
{
	uint32_t i = 1;

	while (i < n && !word_is_evicted(table_get(&t->table, address + i * PAGE_SIZE)))
		i++;
	return i;
}

/* A marker without a word (the content was discarded, the marker not yet): ZEROPAGE refuses it, as
 * it refuses a guard page; only COPY replaces it, and would destroy a guard. */
static enum fault_result zero_over_marker(struct fault *f)
{
	struct task *t = f->task;
	ssize_t r;

	if (t->pagemap < 0 || pagemap_is(t->pagemap, f->address, PAGEMAP_MARKER) == 1) {
		r = uffd_copy(t->uffd, f->address, t->worker->pager->zero_page, PAGE_SIZE, false);
		if (r > 0) {
			trace(t, TRACE_IN, .address = f->address, .pages = 1);
			task_charge(t, 1);
			count(&t->counters, zero);
			return FAULT_DONE;
		}
		return fill_refused(t, f->address, r);
	}
	uffd_wake(t->uffd, f->address, PAGE_SIZE);
	count(&t->counters, race);
	return FAULT_DONE;
}

enum fault_result fill_zero(struct fault *f)
{
	struct task *t = f->task;
	struct stream *stream;
	uint32_t n;
	ssize_t r;

	if (!f->by_agent && !f->overrun && group_room(t->group) < 1)
		return FAULT_NO_ROOM;
	n = fill_clip(f, stream_window(t->touches, 0, f->address, 64, &stream));
	n = untouched(t, f->address, n);
	/* ZEROPAGE also for writes: it refuses guards and markers, where COPY would destroy them. */
	r = uffd_zeropage(t->uffd, f->address, pages_to_bytes(n));
	if (n > 1 && uffd_classify(r) == UFFD_CHANGED) {
		/* The VMA ends sooner than we knew: advice and protection split without an event. */
		t->adopt.wanted = true;
		stream->window = n = 1;
		r = uffd_zeropage(t->uffd, f->address, PAGE_SIZE);
	}
	if (uffd_classify(r) == UFFD_EXISTS)
		return zero_over_marker(f);
	if (r < 0)
		return fill_refused(t, f->address, r);
	n = (uint32_t)bytes_to_pages((uint64_t)r);
	trace(t, TRACE_IN, .address = f->address, .pages = n);
	stream_advance(stream, f->address + (uint64_t)r);
	table_leaf(&t->table, f->address, true); /* the hand finds it there */
	table_leaf(&t->table, f->address + (uint64_t)r - 1, true);
	/* A zero page is no memory until it is written, which nobody would tell us: so it is
	 * protected, unless it is about to be written anyway. */
	if (f->write) {
		task_charge(t, n);
		fill_is_new(t, f->address, n);
	} else {
		uffd_protect(t->uffd, f->address, pages_to_bytes(n), true);
	}
	count(&t->counters, zero);
	count_add(&t->counters, readahead, n - 1);
	return FAULT_DONE;
}

/* ---- content ---- */

int fill_is_ours(struct task *t, uint64_t address, word_t word)
{
	ssize_t r;

	if (word & WORD_UNMARKED)
		return 1;
	if (t->pagemap >= 0)
		return pagemap_is(t->pagemap, address, PAGEMAP_MARKER);
	/* A child that has not said hello: ZEROPAGE is refused by a marker, and by nothing else.
	 * Where it succeeds, the page was discarded, and now has what it should. */
	r = uffd_zeropage(t->uffd, address, PAGE_SIZE);
	switch (uffd_classify(r)) {
	case UFFD_EXISTS:
		return 1;
	case UFFD_SHORT:
		fill_short(t);
		return -EAGAIN;
	case UFFD_RETRY:
		return -EAGAIN;
	default:
		return 0;
	}
}

/* Should a page that comes in keep its slot? Not when the tier fills up (vm_swap_full). */
static bool keeps_slot(const struct task *t, struct slot slot)
{
	const struct tier *tier = tier_of(t->worker, slot.tier);

	return slot_count(&tier->slots, slot.index) == 1 && !tier_is_short(tier, slot.index);
}

struct victims *victims_of(struct task *t)
{
	t->victims->resident = t->adopt.anonymous;
	t->victims->memory = t->group->resident;
	t->victims->queued = t->queue.pages;
	return t->victims;
}

/* What the policy makes of pages that come in: YOUNG, ACTIVE. On probation they are queued. */
static unsigned comes(struct task *t, uint64_t address, uint32_t n, const struct victim_page *page)
{
	unsigned flags = policy_of(t)->comes(victims_of(t), page);

	if (flags & WORD_YOUNG && policy_of(t)->queues)
		queue_push(&t->queue, address, n);
	count_add(&t->counters, activate, flags & WORD_ACTIVE ? n : 0);
	return flags;
}

/* They have no word yet, so that what is on probation there only the queue knows. */
void fill_is_new(struct task *t, uint64_t address, uint32_t n)
{
	comes(t, address, n, &(struct victim_page){.new = true});
}

/* How much has left since this page did? The policy asks. */
static unsigned workingset_refault(struct task *t, uint64_t address, struct slot slot,
				   unsigned flags)
{
	const struct slots *slots = &tier_of(t->worker, slot.tier)->slots;

	return comes(t, address, 1, &(struct victim_page){
		.asked = flags & FILL_ASKED,
		.streamed = flags & FILL_STREAM,
		.by_hand = slot_is(slots, slot.index, SLOT_BY_HAND),
		.distance = refault_distance(t->group->evictions, slots->records[slot.index].shadow),
	});
}

void fill_commit(struct task *t, uint64_t address, struct slot slot, unsigned flags)
{
	unsigned age = workingset_refault(t, address, slot, flags);
	word_t word = word_make(WORD_PRESENT, age, 0, 0);

	if (keeps_slot(t, slot))
		word = word_of_slot(WORD_PRESENT, age | WORD_SLOT | (flags & WORD_WP), slot);
	else
		pager_slot_put(t->worker, word_of_slot(WORD_SWAP, 0, slot));
	trace(t, TRACE_IN, .address = address, .pages = 1,
	      .how = word_tag(table_get(&t->table, address)));
	table_set(&t->table, address, word);
}

/* clean = wp: a page that is read keeps its slot until the first write, which tells. */
unsigned fill_protects(const struct fault *f)
{
	return f->task->worker->pager->config.clean == PAGER_CLEAN_WP && !f->write ? WORD_WP : 0;
}

/* Pages that come in a window larger than a block, neighbours, are a stream's. */
unsigned fill_streams(const struct stream *stream, uint32_t window)
{
	return stream_is_dense(stream) && window > STREAM_BLOCK ? FILL_STREAM : 0;
}

/* flags: WORD_WP, FILL_ASKED, FILL_STREAM */
static void frame_is_in(struct task *t, uint32_t frame, unsigned flags)
{
	struct slot slot = t->frames.records[frame].slot;

	fill_commit(t, t->frames.records[frame].address, slot, flags);
	evict_frame_drop(t, frame);
	task_charge(t, 1);
}

static bool put_frame(struct task *t, uint32_t frame, unsigned flags, ssize_t *ret)
{
	*ret = uffd_copy(t->uffd, t->frames.records[frame].address,
			 t->frame_memory + pages_to_bytes(frame), PAGE_SIZE, flags & WORD_WP);
	if (*ret <= 0)
		return false;
	frame_is_in(t, frame, flags);
	return true;
}

/* How many of them lie in neighbouring frames, and are wanted as their markers say? */
static uint32_t wanted_frames(struct task *t, uint64_t address, uint32_t max)
{
	uint32_t frame = word_frame(table_get(&t->table, address)), n = 0;
	struct pagemap_run run;
	uint64_t end;

	while (n < max) {
		word_t word = table_get(&t->table, address + pages_to_bytes(n));

		if (word_tag(word) != WORD_STANDBY || word_frame(word) != frame + n ||
		    word & WORD_UNMARKED)
			break;
		n++;
	}
	if (!n || pagemap_scan(t->pagemap, address, address + pages_to_bytes(n), PAGEMAP_MARKER, &run,
			       1, 0, &end) != 1 || run.start != address)
		return 0;
	return (uint32_t)bytes_to_pages(run.end - run.start);
}

uint32_t fill_frames(struct task *t, uint64_t address, uint32_t max, unsigned flags)
{
	uint32_t frame = word_frame(table_get(&t->table, address));
	uint32_t n = wanted_frames(t, address, max);
	ssize_t r = n ? uffd_copy(t->uffd, address, t->frame_memory + pages_to_bytes(frame),
				  pages_to_bytes(n), flags & WORD_WP) : 0;

	n = r > 0 ? (uint32_t)bytes_to_pages((uint64_t)r) : 0;
	for (uint32_t i = 0; i < n; i++)
		frame_is_in(t, frame + i, flags);
	return n;
}

bool fill_put_back(struct task *t, uint32_t frame)
{
	ssize_t r;

	return put_frame(t, frame, 0, &r);
}

/* Pages that were asked for by a thread lie on its node, where there are several. */
static void to_the_node(struct fault *f, uint32_t n)
{
	const struct numa *numa = &f->task->worker->pager->numa;
	struct task *t = f->task;
	int node, at;
	ssize_t moved;

	if (numa->nodes < 2 || !f->ptid)
		return;
	node = numa->of_thread(numa, t->pid, (pid_t)f->ptid);
	at = node < 0 ? node : numa->of_page(numa, t->pid, f->address);
	if (node < 0 || at < 0 || at == node)
		return;
	moved = numa->migrate(numa, t->pid, f->address, n, (unsigned)node);
	if (moved > 0)
		count_add(&t->counters, migrated, moved);
}

enum fault_result fill_standby(struct fault *f)
{
	struct task *t = f->task;
	uint32_t frame = word_frame(f->word);
	struct stream *stream;
	unsigned flags;
	uint32_t n;
	ssize_t r;

	if (!f->by_agent && !f->overrun && group_room(t->group) < 1)
		return FAULT_NO_ROOM;
	n = fill_clip(f, stream_window(t->streams, f->ptid, f->address,
				  t->worker->pager->config.readahead_pages, &stream));
	if (stream->step != PAGE_SIZE)
		n = 1;
	flags = fill_protects(f) | fill_streams(stream, n);
	if (!put_frame(t, frame, flags | FILL_ASKED, &r))
		return fill_refused(t, f->address, r);
	count(&t->counters, minor);
	count(&t->counters, standby_hits);
	t->refaults++;
	/* Neighbours left together, and come back together while a stream lasts. */
	n = n > 1 ? fill_frames(t, f->address + PAGE_SIZE, n - 1, flags) : 0;
	stream_advance(stream, f->address + (1 + n) * (uint64_t)stream->step);
	count_add(&t->counters, readahead, n);
	to_the_node(f, 1 + n);
	return FAULT_DONE;
}

enum fault_result fill_same(struct fault *f)
{
	static const struct victim_page same = {.new = true}; /* nothing remembers when it left */
	struct task *t = f->task;
	ssize_t r;

	if (!f->by_agent && !f->overrun && group_room(t->group) < 1)
		return FAULT_NO_ROOM;
	tier_same_fill(t->worker->scratch, (uint32_t)word_payload(f->word));
	r = uffd_copy(t->uffd, f->address, t->worker->scratch, PAGE_SIZE, false);
	if (r <= 0)
		return fill_refused(t, f->address, r);
	trace(t, TRACE_IN, .address = f->address, .pages = 1, .how = TRACE_LEAF_same);
	table_set(&t->table, f->address,
		  word_make(WORD_PRESENT, comes(t, f->address, 1, &same), 0, 0));
	task_charge(t, 1);
	count(&t->counters, minor);
	return FAULT_DONE;
}

enum fault_result fill_poison(struct fault *f)
{
	struct task *t = f->task;
	ssize_t r;

	if (!t->features.poison) {
		/* No way to raise SIGBUS for the page alone. */
		pager_notify(t, PAGER_NOTICE_POISONED, f->address, 0);
		task_broken(t, EIO);
		count(&t->counters, poisoned);
		return FAULT_DONE;
	}
	r = uffd_poison(t->uffd, f->address, PAGE_SIZE);
	/* POISON refuses what is not empty, and our marker is not. Between the two calls the page is
	 * missing, but only this thread could answer a fault there. */
	if (uffd_classify(r) == UFFD_EXISTS) {
		if (word_is_evicted(f->word))
			table_set(&t->table, f->address, f->word | WORD_UNMARKED);
		if (uffd_protect(t->uffd, f->address, PAGE_SIZE, false) == 0)
			r = uffd_poison(t->uffd, f->address, PAGE_SIZE);
	}
	if (r <= 0)
		return fill_refused(t, f->address, r);
	pager_notify(t, PAGER_NOTICE_POISONED, f->address, 0);
	count(&t->counters, poisoned);
	return FAULT_DONE;
}
