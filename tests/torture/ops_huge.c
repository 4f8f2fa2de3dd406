/* Huge pages: transparent ones that come into being, reserved ones that come and go. */
#include "torture.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE	   (2ul << 20)
#define HUGE_PAGES (HUGE / PAGE)
#define TWO_MIB	   (21u << 26) /* MAP_HUGE_SHIFT */

/* The kernel may do so at any time where all pages are there. */
static int op_collapse(struct actor *a)
{
	struct region *r = region_pick(a, 1u << R_HUGE);
	unsigned start;

	if (!r)
		return -1;
	start = pick(a, r->pages / HUGE_PAGES) * HUGE_PAGES;
	log_range(a, (uint64_t)addr_of(r, start), HUGE);
	for (unsigned i = start; i < start + HUGE_PAGES; i++)
		page_verify(a, page_of(r, i), addr_of(r, i));
	madvise(addr_of(r, start), HUGE, MADV_COLLAPSE); /* it may refuse */
	for (unsigned i = start; i < start + HUGE_PAGES; i += 1 + pick(a, 64))
		page_modify(a, page_of(r, i), addr_of(r, i));
	return 0;
}

static void touch_some(struct actor *a, struct page *pages, char *at, unsigned n)
{
	for (unsigned i = pick(a, 32); i < n; i += 1 + pick(a, 64)) {
		if (chance(a, 2))
			page_modify(a, &pages[i], (uint64_t *)(at + i * PAGE));
		page_verify(a, &pages[i], (uint64_t *)(at + i * PAGE));
	}
}

/* Mapped, touched, moved, discarded, unmapped; a fork may come between. */
static int op_reserved(struct actor *a)
{
	unsigned n = 1 + pick(a, 2), count = n * HUGE_PAGES, half;
	char *at = mmap(NULL, n * HUGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (int)TWO_MIB, -1, 0);
	struct page *pages;

	if (at == MAP_FAILED)
		return -1; /* the pool is empty */
	log_range(a, (uint64_t)at, n * HUGE);
	/* A child would need pages of its own, and may not get them. */
	check(a, madvise(at, n * HUGE, MADV_DONTFORK) == 0);
	pages = calloc(count, sizeof *pages);
	check(a, pages);
	touch_some(a, pages, at, count);
	half = pick(a, n) * HUGE_PAGES;
	check(a, madvise(at + half * PAGE, HUGE, MADV_DONTNEED) == 0);
	for (unsigned i = half; i < half + HUGE_PAGES; i++)
		page_set(&pages[i], 0);
	touch_some(a, pages, at, count);
	for (unsigned i = 0; i < count; i++)
		page_verify(a, &pages[i], (uint64_t *)(at + i * PAGE));
	check(a, munmap(at, n * HUGE) == 0);
	free(pages);
	return 0;
}

struct op ops_huge[] = {
	{"collapse", 8, 0, op_collapse},
	{"reserved", 1, 0, op_reserved},
	{0},
};
