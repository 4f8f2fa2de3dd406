/*
 * Reserved huge pages (hugetlb): names and order are those of Linux's mm/hugetlb.c.
 *
 *   hugetlb_fault
 *     write to a protected page ............... hugetlb_wp        protection off; then the kernel copies
 *     else .................................... hugetlb_no_page
 *       nothing is there ...................... COPY of zeros, a page of its own size
 *       the file has it (a minor fault) ....... CONTINUE
 *       it is mapped meanwhile ................ WAKE
 *       the pool is dry ....................... POISON: SIGBUS, as natively
 *
 * They cannot leave: MOVE is for anonymous memory, and to copy and discard would lose what a device
 * writes meanwhile. So serving them makes no room, it only tells of their faults: they are left to
 * the kernel unless somebody asks (hugetlb_serve), or wants to see everything (register = eager).
 */
#include <errno.h>

#include "base/util.h"
#include "pager/trace.h"
#include "sys/pagemap.h"
#include "sys/procmaps.h"

/* A region is what was last seen there. What rests with us shows that it is something else by now, and
 * the client's map shows what it is. */
bool hugetlb_serves(struct task *t, uint64_t address)
{
	const struct region *r = regions_find(&t->regions, address);
	const struct leaf *leaf = table_leaf(&t->table, address, false);
	struct procmaps_vma vma;

	if (!r || r->start > address || !r->hugetlb || (leaf && leaf->evicted))
		return false;
	return t->maps < 0 || (procmaps_find(t->maps, pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY),
					     address, &vma) == 0 &&
			       vma.flags & PROCMAPS_HUGETLB);
}

int hugetlb_serve(struct task *t, uint64_t start, uint64_t end)
{
	const struct region region = {
		.start = start, .end = end, .registered = true, .hugetlb = true};
	int r = -EINVAL;

	if (start % LEAF_SIZE == 0 && end % LEAF_SIZE == 0 && start < end)
		r = uffd_register_file(t->uffd, start, end - start);
	return r < 0 ? r : regions_put(&t->regions, &region);
}

bool hugetlb_adopt(struct task *t, struct region *region)
{
	const struct region *old = regions_find(&t->regions, region->start);
	bool known = old && old->start < region->end && old->hugetlb;

	region->writable = false; /* not for the hand */
	region->hugetlb = known;
	if (!known && t->worker->pager->config.reg == PAGER_REGISTER_EAGER)
		region->hugetlb = uffd_register_file(t->uffd, region->start,
						     region->end - region->start) == 0;
	region->registered = region->hugetlb;
	return region->hugetlb && !known;
}

void hugetlb_remap(struct task *t, uint64_t from, uint64_t to, uint64_t length)
{
	const struct region *old = regions_find(&t->regions, from);
	struct region region;

	if (!old || old->start > from || !old->hugetlb) {
		regions_remove(&t->regions, to, to + length);
		return;
	}
	region = *old;
	region.start = to;
	region.end = to + length;
	if (regions_put(&t->regions, &region) < 0)
		t->adopt.wanted = true;
}

/* Nothing can be had from the pool. POISON is what SIGBUS is made of, until the page is discarded or
 * unmapped; to UNREGISTER instead could erase markers of what the client moves there meanwhile. */
static enum fault_result pool_is_dry(struct task *t, uint64_t address)
{
	ssize_t r = uffd_poison(t->uffd, address, LEAF_SIZE);

	if (r <= 0)
		return fill_refused(t, address, r);
	pager_notify(t, PAGER_NOTICE_POISONED, address, 0);
	count(&t->counters, poisoned);
	return FAULT_DONE;
}

/* COPY answers EEXIST for what is mapped, for what the file has, and for a dry pool (ENOMEM, where it
 * also lacks a page table): the pagemap tells the first, CONTINUE the second. */
static enum fault_result hugetlb_no_page(struct fault *f, uint64_t address)
{
	struct task *t = f->task;
	ssize_t r = uffd_copy(t->uffd, address, t->worker->pager->huge_zero, LEAF_SIZE, false);

	if (r > 0) {
		trace(t, TRACE_IN, .address = address, .pages = LEAF_WORDS, .how = TRACE_LEAF_hugetlb);
		count(&t->counters, zero);
		return FAULT_DONE;
	}
	if (uffd_classify(r) != UFFD_EXISTS && uffd_classify(r) != UFFD_SHORT)
		return fill_refused(t, address, r);
	if (t->pagemap >= 0 && pagemap_is(t->pagemap, address, PAGEMAP_PRESENT) == 1)
		return fill_refused(t, address, -EEXIST);
	r = uffd_continue(t->uffd, address, LEAF_SIZE, false);
	if (r > 0) {
		trace(t, TRACE_IN, .address = address, .pages = LEAF_WORDS, .how = TRACE_LEAF_hugetlb);
		count(&t->counters, minor);
		return FAULT_DONE;
	}
	if (uffd_classify(r) == UFFD_RETRY || uffd_classify(r) == UFFD_SHORT ||
	    uffd_classify(r) == UFFD_EXISTS)
		return fill_refused(t, address, r);
	return pool_is_dry(t, address);
}

/* Nobody waits for writes here: protection is what a stale command left. */
static enum fault_result hugetlb_wp(struct fault *f, uint64_t address)
{
	int r = uffd_protect(f->task->uffd, address, LEAF_SIZE, false);

	if (r < 0)
		return fill_refused(f->task, address, r);
	count(&f->task->counters, wp_reuse);
	return FAULT_DONE;
}

enum fault_result hugetlb_fault(struct fault *f)
{
	uint64_t address = f->address & ~(LEAF_SIZE - 1);

	return f->protect ? hugetlb_wp(f, address) : hugetlb_no_page(f, address);
}
