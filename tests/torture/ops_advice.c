/* madvise on regions of one's own. */
#include "torture.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISCARD	  (ALL_KINDS & ~(1u << R_PIN))
#define POPULATED (1u << R_NORMAL | 1u << R_WHOLE | 1u << R_HUGE | 1u << R_DOWN | 1u << R_BRK)

static int discard_run(struct actor *a, unsigned kinds, struct region **r, unsigned *start,
		       unsigned *n)
{
	*r = region_pick(a, kinds);
	if (!*r)
		return -1;
	if (chance(a, 100)) { /* all of it */
		*start = 0;
		*n = (*r)->pages;
		log_range(a, (*r)->addr, *n * (*r)->stride);
		return run_without(*r, 0, *n, P_ABSENT) ? 0 : -1;
	}
	/* Mostly little: what is discarded has to be written again before it can be evicted. */
	return run_pick(a, *r, chance(a, 8) ? 256 : 16, start, n) ? 0 : -1;
}

static int op_dontneed(struct actor *a)
{
	struct region *r;
	unsigned start, n;

	if (discard_run(a, DISCARD, &r, &start, &n))
		return -1;
	if (!run_without(r, start, n, P_LOCKED))
		return -1;
	check(a, madvise(addr_of(r, start), n * r->stride, MADV_DONTNEED) == 0);
	for (unsigned i = start; i < start + n; i++) {
		page_discard(page_of(r, i));
		if (chance(a, 8) && !(page_of(r, i)->flags & P_UNREADABLE))
			page_verify(a, page_of(r, i), addr_of(r, i));
	}
	return 0;
}

static int op_free(struct actor *a)
{
	struct region *r;
	unsigned start, n;

	if (discard_run(a, DISCARD, &r, &start, &n) || !run_without(r, start, n, P_LOCKED) ||
	    !run_anonymous(r, start, n))
		return -1;
	check(a, madvise(addr_of(r, start), n * r->stride, MADV_FREE) == 0);
	for (unsigned i = start; i < start + n; i++)
		page_of(r, i)->flags |= P_FREED;
	return 0;
}

/* Advice that changes no byte. */
static int op_advise(struct actor *a)
{
	static const int advices[] = {MADV_NORMAL, MADV_SEQUENTIAL, MADV_RANDOM,
				      MADV_WILLNEED, MADV_COLD, MADV_PAGEOUT};
	int advice = advices[pick(a, 6)];
	struct region *r = region_pick(a, advice == MADV_NORMAL || advice == MADV_SEQUENTIAL ||
						  advice == MADV_RANDOM
					      ? PARTS
					      : ALL_KINDS);
	unsigned start, n;

	if (!r || !run_pick(a, r, 256, &start, &n) || !run_without(r, start, n, P_LOCKED))
		return -1;
	if (madvise(addr_of(r, start), n * r->stride, advice) != 0)
		check(a, errno == EBADF || errno == EINVAL);
	if (r->kind == R_NORMAL)
		run_split(a, r, start, n);
	return 0;
}

static int op_remove(struct actor *a)
{
	struct region *r = region_pick(a, ALL_KINDS);
	unsigned start, n;

	if (!r || !run_pick(a, r, 64, &start, &n) || !run_without(r, start, n, P_LOCKED))
		return -1;
	errno = 0; /* private memory has nothing to remove from */
	check(a, madvise(addr_of(r, start), n * r->stride, MADV_REMOVE) != 0 &&
			 (errno == EINVAL || page_of(r, start)->file));
	return 0;
}

static int op_dontfork(struct actor *a)
{
	struct region *r = region_pick(a, PARTS);
	unsigned start, n, flag, set;

	if (!r || !run_pick(a, r, 64, &start, &n))
		return -1;
	flag = chance(a, 2) || !run_anonymous(r, start, n) ? P_DONTFORK : P_WIPE;
	set = !(page_of(r, start)->flags & flag);
	check(a, madvise(addr_of(r, start), n * PAGE,
			 flag == P_DONTFORK ? (set ? MADV_DONTFORK : MADV_DOFORK)
					    : (set ? MADV_WIPEONFORK : MADV_KEEPONFORK)) == 0);
	for (unsigned i = start; i < start + n; i++)
		page_of(r, i)->flags = (page_of(r, i)->flags & ~flag) | (set ? flag : 0);
	run_split(a, r, start, n);
	return 0;
}

static int op_hugepage(struct actor *a)
{
	struct region *r = region_pick(a, PARTS | 1u << R_HUGE);
	unsigned start = 0, n;
	int advice = chance(a, 2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;

	if (!r)
		return -1;
	n = r->pages;
	if (r->kind == R_NORMAL && !run_pick(a, r, 1024, &start, &n))
		return -1;
	if (madvise(addr_of(r, start), n * PAGE, advice) != 0)
		check(a, errno == EINVAL);
	if (r->kind == R_NORMAL)
		run_split(a, r, start, n);
	return 0;
}

static int op_populate(struct actor *a)
{
	struct region *r = region_pick(a, POPULATED);
	unsigned start, n;
	bool writes = chance(a, 2);

	if (!r || !run_pick(a, r, 64, &start, &n) ||
	    !run_without(r, start, n, P_UNWRITABLE | P_LOCKED | (writes ? P_FILE : 0)))
		return -1;
	if (madvise(addr_of(r, start), n * PAGE,
		    writes ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) != 0)
		check(a, errno == EINVAL && !writes); /* not in this kernel */
	for (unsigned i = start; i < start + n; i++)
		page_verify(a, page_of(r, i), addr_of(r, i));
	return 0;
}

/* Guard pages: what was there is gone, and access is refused until they are removed. */
static int op_guard(struct actor *a)
{
	static bool unknown;
	struct region *r = region_pick(a, PARTS | 1u << R_WHOLE);
	unsigned start, n;

	if (unknown || !r || !run_pick(a, r, 8, &start, &n) ||
	    !run_without(r, start, n, P_LOCKED | P_NONE | P_RO | P_GUARD))
		return -1;
	if (madvise(addr_of(r, start), n * PAGE, MADV_GUARD_INSTALL) != 0) {
		check(a, errno == EINVAL);
		unknown = true;
		return -1;
	}
	for (unsigned i = start; i < start + n; i++) {
		page_discard(page_of(r, i));
		page_of(r, i)->flags |= P_GUARD;
	}
	/* A stream up to the guard, which readahead must leave alone. */
	for (unsigned i = start > 16 ? start - 16 : 0; i < start; i++)
		if (!(page_of(r, i)->flags & P_UNREADABLE))
			page_verify(a, page_of(r, i), addr_of(r, i));
	return 0;
}

static int op_unguard(struct actor *a)
{
	struct region *r = region_pick(a, PARTS | 1u << R_WHOLE);
	unsigned start = 0, n = 0;
	int pipes[2];

	if (!r)
		return -1;
	while (start < r->pages && !(page_of(r, start)->flags & P_GUARD))
		start++;
	while (start + n < r->pages && page_of(r, start + n)->flags & P_GUARD &&
	       !(page_of(r, start + n)->flags & (P_ABSENT | P_LOCKED)))
		n++;
	if (n == 0)
		return -1;
	log_range(a, (uint64_t)addr_of(r, start), n * PAGE);
	check(a, pipe(pipes) == 0);
	errno = 0;
	if (write(pipes[1], addr_of(r, start + pick(a, n)), 8) != -1 || errno != EFAULT)
		fail(a, "a guard page in %p, %u pages, could be read: %m",
		     (void *)addr_of(r, start), n);
	close(pipes[0]);
	close(pipes[1]);
	check(a, madvise(addr_of(r, start), n * PAGE, MADV_GUARD_REMOVE) == 0);
	for (unsigned i = start; i < start + n; i++) {
		page_of(r, i)->flags &= ~(unsigned)P_GUARD;
		if (!(page_of(r, i)->flags & P_UNREADABLE))
			page_verify(a, page_of(r, i), addr_of(r, i));
	}
	return 0;
}

struct op ops_advice[] = {
	{"dontneed", 14, 0, op_dontneed},
	{"free", 6, 0, op_free},
	{"advise", 6, 0, op_advise},
	{"remove", 2, 0, op_remove},
	{"dontfork", 2, 0, op_dontfork},
	{"hugepage", 1, 0, op_hugepage},
	{"populate", 5, 0, op_populate},
	{"guard", 4, 0, op_guard},
	{"unguard", 4, 0, op_unguard},
	{0},
};
