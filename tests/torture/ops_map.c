/* mmap, munmap, mremap, mprotect, mlock and brk on regions of one's own. */
#include "torture.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOVABLE (1u << R_WHOLE | 1u << R_SPARSE | 1u << R_HUGE)

/* Memory that is being registered may be in two parts for a moment, and mremap fails across the seam:
 * the difference that the README admits. It must not last. */
void *remap(void *from, size_t old_size, size_t new_size, int flags, ...)
{
	va_list rest;
	void *to, *p;

	va_start(rest, flags);
	to = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
	va_end(rest);
	for (unsigned tries = 0;; tries++) {
		p = mremap(from, old_size, new_size, flags, to);
		if (p != MAP_FAILED || errno != EFAULT || tries == 100)
			return p;
		usleep(1000);
	}
}

static int op_map(struct actor *a)
{
	static const uint8_t kinds[] = {R_NORMAL, R_NORMAL, R_NORMAL, R_NORMAL, R_WHOLE,
					R_WHOLE,  R_WHOLE,  R_HUGE,   R_HUGE,   R_SPARSE, R_DOWN};
	enum region_kind kind = kinds[pick(a, sizeof kinds)];

	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind == kind && (kind == R_DOWN || kind == R_SPARSE))
			return -1;
	return region_new(a, kind) ? 0 : -1;
}

static int op_unmap(struct actor *a)
{
	struct region *r = region_pick(a, ALL_KINDS & ~(1u << R_BRK | 1u << R_PIN));

	if (!r || (a->mapped < W->budget * 3ull / 4 && !chance(a, 4)))
		return -1;
	log_range(a, r->addr, r->pages * r->stride);
	region_free(a, r);
	return 0;
}

/* Small mappings made, touched and dropped again: other threads get the same addresses. */
static int op_churn(struct actor *a)
{
	for (unsigned n = 4 + pick(a, 12); n-- > 0;) {
		struct page pages[16] = {0};
		unsigned count = 1 + pick(a, 16), keep;
		char *p = mmap((void *)(chance(a, 2) ? W->freed[pick(a, 64)] : 0), count * PAGE,
			       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check(a, p != MAP_FAILED);
		log_range(a, (uint64_t)p, count * PAGE);
		for (unsigned i = 0; i < count; i++)
			if (chance(a, 2))
				page_modify(a, &pages[i], (uint64_t *)(p + i * PAGE));
		for (unsigned i = 0; i < count; i++)
			page_verify(a, &pages[i], (uint64_t *)(p + i * PAGE));
		keep = pick(a, count + 1);
		if (keep > 0 && chance(a, 4)) { /* away to where somebody may just have unmapped */
			char *q = remap(p, count * PAGE, keep * PAGE, MREMAP_MAYMOVE);

			check(a, q == p);
			q = remap(p, keep * PAGE, count * PAGE, MREMAP_MAYMOVE);
			check(a, q != MAP_FAILED);
			memset(pages + keep, 0, (count - keep) * sizeof *pages);
			for (unsigned i = 0; i < count; i++)
				page_verify(a, &pages[i], (uint64_t *)(q + i * PAGE));
			p = q;
		}
		check(a, munmap(p, count * PAGE) == 0);
		W->freed[pick(a, 64)] = (uint64_t)p;
	}
	return 0;
}

/* A hole, and later something new in it unless somebody else was faster. */
static int op_hole(struct actor *a)
{
	struct region *r = region_pick(a, PARTS);
	unsigned start, n;

	if (!r || !run_pick(a, r, chance(a, 8) ? 128 : 16, &start, &n))
		return -1;
	check(a, munmap(addr_of(r, start), n * PAGE) == 0);
	for (unsigned i = start; i < start + n; i++)
		page_anew(page_of(r, i), P_ABSENT);
	return 0;
}

static int op_refill(struct actor *a)
{
	struct region *r = region_pick(a, PARTS);
	unsigned start = 0, n = 0;
	void *p;

	if (!r)
		return -1;
	while (start < r->pages && !(page_of(r, start)->flags & P_ABSENT))
		start++;
	while (start + n < r->pages && page_of(r, start + n)->flags & P_ABSENT)
		n++;
	if (n == 0)
		return -1;
	log_range(a, (uint64_t)addr_of(r, start), n * PAGE);
	p = mmap(addr_of(r, start), n * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | (chance(a, 2) ? MAP_FIXED_NOREPLACE : 0), -1, 0);
	if (p == MAP_FAILED) {
		check(a, errno == EEXIST);
		return -1;
	}
	if (p != addr_of(r, start)) {
		check(a, munmap(p, n * PAGE) == 0);
		return -1;
	}
	for (unsigned i = start; i < start + n; i++)
		page_anew(page_of(r, i), 0);
	run_tag(a, r, start, n);
	page_modify(a, page_of(r, start), addr_of(r, start));
	return 0;
}

static int op_fixed(struct actor *a)
{
	struct region *r = region_pick(a, PARTS);
	unsigned start, n;

	if (!r || !run_pick(a, r, chance(a, 8) ? 256 : 16, &start, &n))
		return -1;
	check(a, mmap(addr_of(r, start), n * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == addr_of(r, start));
	for (unsigned i = start; i < start + n; i++) {
		page_anew(page_of(r, i), 0);
		if (chance(a, 4))
			page_modify(a, page_of(r, i), addr_of(r, i));
	}
	run_tag(a, r, start, n);
	return 0;
}

/* Grow, shrink or move, all of it. */
static int op_resize(struct actor *a)
{
	struct region *r = region_pick(a, 1u << R_WHOLE);
	unsigned pages, old;
	uint32_t file;
	void *p;

	if (!r)
		return -1;
	pages = 1 + pick(a, W->capacity);
	if (chance(a, 2))
		pages = r->pages + 1 + pick(a, 32);
	if (pages > W->capacity || a->mapped - r->pages + pages > W->budget)
		return -1;
	file = page_of(r, 0)->file;
	if (file && (pages > file_left(file) || !private_room(a, pages)))
		return -1;
	log_range(a, r->addr, r->pages * PAGE);
	p = remap((void *)r->addr, r->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
	check(a, p != MAP_FAILED);
	log_target(a, (uint64_t)p);
	for (unsigned i = r->pages; i < pages; i++) { /* what grows is like the rest, and empty */
		*page_of(r, i) = (struct page){.flags = page_of(r, 0)->flags & (P_RO | P_NONE),
					       .file = file ? file + i : 0};
		page_discard(page_of(r, i));
	}
	old = r->pages;
	a->mapped += pages - (uint64_t)r->pages;
	r->addr = (uint64_t)p;
	r->pages = pages;
	if (pages > old && !(page_of(r, 0)->flags & (P_RO | P_NONE)) && chance(a, 2))
		region_fill(a, r, old);
	return 0;
}

/* To a place of its own, made free beforehand, so that it does move. */
static int op_move(struct actor *a)
{
	struct region *r = region_pick(a, MOVABLE);
	uint64_t bytes, huge = 2ul << 20, where, end;
	void *p, *q;

	if (!r)
		return -1;
	bytes = r->pages * r->stride;
	p = mmap(NULL, bytes + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(a, p != MAP_FAILED);
	where = r->kind == R_HUGE ? ((uint64_t)p + huge - 1) & ~(huge - 1) : (uint64_t)p;
	end = (uint64_t)p + bytes + huge;
	log_range(a, r->addr, bytes);
	log_target(a, where);
	q = remap((void *)r->addr, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)where);
	check(a, q == (void *)where);
	if (where > (uint64_t)p)
		check(a, munmap(p, where - (uint64_t)p) == 0);
	if (end > where + bytes)
		check(a, munmap((void *)(where + bytes), end - where - bytes) == 0);
	r->addr = where;
	return 0;
}

/* MREMAP_DONTUNMAP: the pages go to a new place, the old one stays mapped and empty. */
static int op_dontunmap(struct actor *a)
{
	struct region *r = region_pick(a, 1u << R_WHOLE), *other = NULL;
	void *p;

	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind == R_FREE)
			other = &a->regions[i];
	if (!r || !other || a->mapped + r->pages > W->budget ||
	    (page_of(r, 0)->file && !private_room(a, r->pages)))
		return -1;
	log_range(a, r->addr, r->pages * PAGE);
	p = remap((void *)r->addr, r->pages * PAGE, r->pages * PAGE,
		   MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	check(a, p != MAP_FAILED);
	log_target(a, (uint64_t)p);
	*other = *r;
	other->first =
	    (uint64_t)(a->index * REGIONS + (unsigned)(other - a->regions)) * W->capacity;
	memcpy(page_of(other, 0), page_of(r, 0), r->pages * sizeof(struct page));
	other->addr = (uint64_t)p;
	for (unsigned i = 0; i < r->pages; i++) { /* guards went with the pages */
		page_discard(page_of(r, i));
		page_of(r, i)->flags &= ~(unsigned)P_GUARD;
	}
	a->mapped += r->pages;
	if (!(page_of(r, 0)->flags & (P_RO | P_NONE)) && chance(a, 2))
		region_fill(a, r, 0);
	return 0;
}

/* A run moves over a run of another region (or of the same): its place becomes a hole. */
static int op_move_over(struct actor *a)
{
	struct region *r = region_pick(a, PARTS), *to = region_pick(a, PARTS);
	unsigned start, n, at;
	void *p;

	if (!r || !to || !run_pick(a, r, 128, &start, &n) || n > to->pages)
		return -1;
	at = pick(a, to->pages - n + 1);
	if (!run_without(to, at, n, P_ABSENT) || !run_one_vma(r, start, n) ||
	    (r == to && at < start + n && start < at + n))
		return -1;
	log_target(a, (uint64_t)addr_of(to, at));
	p = remap(addr_of(r, start), n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		   addr_of(to, at));
	check(a, p == addr_of(to, at));
	for (unsigned i = 0; i < n; i++) {
		*page_of(to, at + i) = *page_of(r, start + i);
		page_anew(page_of(r, start + i), P_ABSENT);
	}
	run_tag(a, to, at, n);
	return 0;
}

static int op_protect(struct actor *a)
{
	struct region *r = region_pick(a, PARTS | 1u << R_SPARSE | 1u << R_WHOLE);
	unsigned start = 0, n, flags = 0;
	int prot = PROT_READ | PROT_WRITE;

	if (!r || (r->kind == R_NORMAL && !run_pick(a, r, 128, &start, &n)))
		return -1;
	if (r->kind != R_NORMAL) {
		n = r->pages;
		log_range(a, r->addr, n * r->stride);
	}
	if (!(page_of(r, start)->flags & (P_RO | P_NONE))) {
		flags = chance(a, 2) ? P_RO : P_NONE;
		prot = flags == P_RO ? PROT_READ : PROT_NONE;
		if (chance(a, 6))
			prot |= PROT_EXEC;
	}
	check(a, mprotect(addr_of(r, start), n * r->stride, prot) == 0);
	for (unsigned i = start; i < start + n; i++)
		page_of(r, i)->flags = (page_of(r, i)->flags & ~(unsigned)(P_RO | P_NONE)) | flags;
	if (r->kind == R_NORMAL)
		run_split(a, r, start, n);
	return 0;
}

static int op_unprotect(struct actor *a)
{
	struct region *r = region_pick(a, PARTS | 1u << R_SPARSE | 1u << R_WHOLE);
	unsigned start = 0, n;

	if (!r)
		return -1;
	while (start < r->pages && !(page_of(r, start)->flags & (P_RO | P_NONE)))
		start++;
	for (n = 0; start + n < r->pages && page_of(r, start + n)->flags & (P_RO | P_NONE); n++)
		if (page_of(r, start + n)->flags & P_ABSENT)
			break;
	if (n == 0)
		return -1;
	log_range(a, (uint64_t)addr_of(r, start), n * r->stride);
	check(a, mprotect(addr_of(r, start), n * r->stride, PROT_READ | PROT_WRITE) == 0);
	for (unsigned i = start; i < start + n; i++)
		page_of(r, i)->flags &= ~(unsigned)(P_RO | P_NONE);
	if (r->kind == R_NORMAL)
		run_split(a, r, start, n);
	return 0;
}

static int op_lock(struct actor *a)
{
	struct region *r = region_pick(a, PARTS);
	unsigned start, n, locked = 0;

	if (!r || !run_pick(a, r, 16, &start, &n) ||
	    !run_without(r, start, n, P_UNREADABLE | P_LOCKED | P_RO | P_FILE)) /* it would copy */
		return -1;
	for (unsigned i = 0; i < r->pages; i++)
		locked += page_of(r, i)->flags & P_LOCKED ? 1 : 0;
	if (locked > 32)
		return -1;
	if (mlock(addr_of(r, start), n * PAGE) != 0) {
		check(a, errno == ENOMEM || errno == EPERM || errno == EAGAIN);
		munlock(addr_of(r, start), n * PAGE);
	} else {
		for (unsigned i = start; i < start + n; i++)
			page_of(r, i)->flags |= P_LOCKED;
		errno = 0;
		check(a, madvise(addr_of(r, start), n * PAGE, MADV_DONTNEED) != 0 &&
				 errno == EINVAL);
	}
	run_split(a, r, start, n);
	return 0;
}

static int op_unlock(struct actor *a)
{
	struct region *r = region_pick(a, PARTS);
	unsigned start = 0, n = 0;

	if (!r)
		return -1;
	while (start < r->pages && !(page_of(r, start)->flags & P_LOCKED))
		start++;
	while (start + n < r->pages && page_of(r, start + n)->flags & P_LOCKED)
		n++;
	if (n == 0)
		return -1;
	log_range(a, (uint64_t)addr_of(r, start), n * PAGE);
	check(a, munlock(addr_of(r, start), n * PAGE) == 0);
	for (unsigned i = start; i < start + n; i++)
		page_of(r, i)->flags &= ~(unsigned)P_LOCKED;
	run_split(a, r, start, n);
	return 0;
}

/* The program break moves up and, when it is still ours, down again. */
static int op_brk(struct actor *a)
{
	struct region *r = NULL;
	unsigned pages;
	char *p;

	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind == R_BRK)
			r = &a->regions[i];
	if (r) {
		log_range(a, r->addr, r->pages * PAGE);
		region_verify(a, r);
		if ((char *)sbrk(0) != (char *)(r->addr + r->pages * PAGE))
			return -1;
		pages = 1 + pick(a, r->pages);
		check(a, sbrk(-(intptr_t)(pages * PAGE)) != (void *)-1);
		a->mapped -= pages;
		r->pages -= pages;
		if (r->pages == 0) {
			r->kind = R_FREE;
			W->brk_taken = 0;
		}
		return 0;
	}
	pages = 16 + pick(a, W->capacity / 4);
	if (W->brk_taken || a->mapped + pages > W->budget)
		return -1;
	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind == R_FREE)
			r = &a->regions[i];
	if (!r)
		return -1;
	p = sbrk(0);
	if ((uint64_t)p % PAGE && sbrk((intptr_t)(PAGE - (uint64_t)p % PAGE)) == (void *)-1)
		return -1;
	p = sbrk((intptr_t)(pages * PAGE));
	check(a, p != (void *)-1);
	log_range(a, (uint64_t)p, pages * PAGE);
	W->brk_taken = 1;
	r->kind = R_BRK;
	r->addr = (uint64_t)p;
	r->pages = pages;
	r->stride = PAGE;
	r->first = (uint64_t)(a->index * REGIONS + (unsigned)(r - a->regions)) * W->capacity;
	memset(page_of(r, 0), 0, pages * sizeof(struct page));
	a->mapped += pages;
	return 0;
}

struct op ops_map[] = {
	{"map", 10, 0, op_map},
	{"unmap", 3, 0, op_unmap},
	{"churn", 4, 0, op_churn},
	{"hole", 4, 0, op_hole},
	{"refill", 10, 0, op_refill},
	{"fixed", 5, 0, op_fixed},
	{"resize", 4, 0, op_resize},
	{"move", 4, 0, op_move},
	{"dontunmap", 3, 0, op_dontunmap},
	{"move-over", 4, 0, op_move_over},
	{"protect", 5, 0, op_protect},
	{"unprotect", 6, 0, op_unprotect},
	{"lock", 1, 0, op_lock},
	{"unlock", 2, 0, op_unlock},
	{"brk", 4, OP_ALONE, op_brk},
	{0},
};
