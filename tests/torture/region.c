/* Regions: making, picking parts of them, checking them. */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

unsigned verify_one_in = 1;

#define TIB  (1ull << 40)
#define ZONE 0x100000000000ull /* nobody else maps here: for MAP_GROWSDOWN */

struct region *region_slot(struct actor *a, unsigned pages)
{
	for (unsigned i = 0; i < REGIONS && pages <= W->capacity && a->mapped + pages <= W->budget; i++) {
		struct region *r = &a->regions[i];

		if (r->kind != R_FREE)
			continue;
		r->first = (uint64_t)(a->index * REGIONS + i) * W->capacity;
		r->stride = PAGE;
		r->pages = pages;
		memset(page_of(r, 0), 0, W->capacity * sizeof(struct page));
		return r;
	}
	return NULL;
}

/* A recently unmapped address as a hint, so that threads meet at one address. */
static void *hint(struct actor *a)
{
	return chance(a, 2) ? NULL : (void *)W->freed[pick(a, 64)];
}

static void hint_add(uint64_t addr)
{
	uint32_t n = __atomic_fetch_add(&W->freed_next, 1, __ATOMIC_RELAXED);

	W->freed[n % 64] = addr;
}

static void *map(struct actor *a, void *where, uint64_t bytes, int flags)
{
	void *p = mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags,
		       -1, 0);

	check(a, p != MAP_FAILED);
	log_range(a, (uint64_t)p, bytes);
	return p;
}

/* Address aligned to 2 MiB for huge pages. */
static uint64_t map_huge(struct actor *a, uint64_t bytes)
{
	uint64_t p = (uint64_t)map(a, NULL, bytes + (2ul << 20), 0);
	uint64_t start = (p + (2ul << 20) - 1) & ~((2ul << 20) - 1);

	if (start > p)
		check(a, munmap((void *)p, start - p) == 0);
	check(a, munmap((void *)(start + bytes), p + (2ul << 20) - start) == 0);
	madvise((void *)start, bytes, MADV_HUGEPAGE); /* EINVAL without THP */
	return start;
}

void region_fill(struct actor *a, struct region *r, unsigned from)
{
	for (unsigned i = from; i < r->pages; i++) {
		beat(a);
		page_write(a, page_of(r, i), addr_of(r, i));
	}
}

struct region *region_new(struct actor *a, enum region_kind kind)
{
	struct region *r = region_slot(a, 16);
	uint64_t left = W->budget - a->mapped;
	unsigned pages, slot;

	if (!r)
		return NULL;
	slot = (unsigned)(r - a->regions);
	switch (pick(a, 4)) {
	case 0:
		pages = 1 + pick(a, 16);
		break;
	case 1:
		pages = 1 + pick(a, W->capacity / 4);
		break;
	default:
		pages = W->capacity / 4 + pick(a, W->capacity / 2 + 1);
	}
	if (kind == R_HUGE)
		pages = (pages + 511) & ~511u;
	if (kind == R_SPARSE && pages > 256)
		pages = 256;
	if (pages > left)
		pages = (unsigned)left;
	if (pages > W->capacity || pages == 0 || (kind == R_HUGE && pages % 512))
		return NULL;
	r->pages = pages;
	switch (kind) {
	case R_HUGE:
		r->addr = map_huge(a, pages * PAGE);
		break;
	case R_SPARSE:
		if (chance(a, 2)) { /* every second page: no two neighbours */
			r->stride = 2 * PAGE;
			r->addr = (uint64_t)map(a, hint(a), pages * r->stride, 0);
		} else {
			r->stride = TIB / pages & ~(PAGE - 1);
			r->addr = (uint64_t)map(a, NULL, TIB, MAP_NORESERVE);
			check(a, munmap((void *)(r->addr + pages * r->stride),
					TIB - pages * r->stride) == 0 ||
					 TIB == pages * r->stride);
		}
		break;
	case R_DOWN:
		/* The kernel leaves a gap below: the slots stand far apart. Only the top is mapped. */
		pages = W->capacity < 1024 ? W->capacity : 1024;
		if (pages > left)
			return NULL;
		r->pages = pages;
		r->addr = ZONE + (a->index * REGIONS + slot) * (1ull << 32);
		check(a, (uint64_t)map(a, (void *)(r->addr + (pages - 2) * PAGE), 2 * PAGE,
				       MAP_GROWSDOWN | MAP_FIXED_NOREPLACE) ==
				 r->addr + (pages - 2) * PAGE);
		for (unsigned i = 0; i < pages - 2; i++)
			page_of(r, i)->flags = P_ABSENT;
		break;
	default:
		r->addr = (uint64_t)(chance(a, 8) ? anonymous_map(a, pages * PAGE)
						  : map(a, hint(a), pages * PAGE,
							chance(a, 4) ? MAP_NORESERVE : 0));
	}
	r->kind = kind;
	a->mapped += r->pages;
	if (kind != R_DOWN && kind != R_PIN && !chance(a, 4))
		region_fill(a, r, 0);
	return r;
}

void region_free(struct actor *a, struct region *r)
{
	unsigned i = 0, piece = chance(a, 4) ? 1 + pick(a, 64) : UINT32_MAX;

	if (r->stride != PAGE) {
		check(a, munmap(addr_of(r, 0), r->pages * r->stride) == 0);
		i = r->pages;
	}
	while (i < r->pages) { /* what is absent may have become somebody else's */
		unsigned n = 0;

		while (i + n < r->pages && n < piece && !(page_of(r, i + n)->flags & P_ABSENT))
			n++;
		if (n > 0)
			check(a, munmap(addr_of(r, i), n * PAGE) == 0);
		i += n > 0 ? n : 1;
	}
	if (r->kind != R_DOWN && r->stride == PAGE)
		hint_add(r->addr);
	a->mapped -= r->pages;
	r->kind = R_FREE;
}

struct region *region_pick(struct actor *a, unsigned kinds)
{
	uint64_t total = 0, n;

	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind != R_FREE && kinds & 1u << a->regions[i].kind)
			total += a->regions[i].pages;
	if (total == 0)
		return NULL;
	n = pick(a, total);
	for (unsigned i = 0; i < REGIONS; i++) {
		if (a->regions[i].kind == R_FREE || !(kinds & 1u << a->regions[i].kind))
			continue;
		if (n < a->regions[i].pages)
			return &a->regions[i];
		n -= a->regions[i].pages;
	}
	return NULL;
}

/* Picks [start, start + n) without absent pages. */
bool run_pick(struct actor *a, struct region *r, unsigned max, unsigned *start, unsigned *n)
{
	unsigned wanted = chance(a, 3) ? 1 : 1 + pick(a, max), i;

	*start = pick(a, r->pages);
	for (i = 0; i < wanted && *start + i < r->pages; i++)
		if (page_of(r, *start + i)->flags & P_ABSENT)
			break;
	*n = i;
	if (i > 0)
		log_range(a, (uint64_t)addr_of(r, *start), i * r->stride);
	return i > 0;
}

bool run_without(const struct region *r, unsigned start, unsigned n, unsigned flags)
{
	for (unsigned i = start; i < start + n; i++)
		if (page_of(r, i)->flags & flags)
			return false;
	return true;
}

bool run_anonymous(const struct region *r, unsigned start, unsigned n)
{
	for (unsigned i = start; i < start + n; i++)
		if (page_of(r, i)->file)
			return false;
	return true;
}

bool run_one_vma(const struct region *r, unsigned start, unsigned n)
{
	const unsigned vma = P_RO | P_NONE | P_DONTFORK | P_WIPE | P_LOCKED | P_ABSENT;

	for (unsigned i = start + 1; i < start + n; i++)
		if (page_of(r, i)->tag != page_of(r, start)->tag ||
		    (page_of(r, i)->flags ^ page_of(r, start)->flags) & vma)
			return false;
	return true;
}

void run_tag(struct actor *a, struct region *r, unsigned start, unsigned n)
{
	a->tag++;
	for (unsigned i = start; i < start + n; i++)
		page_of(r, i)->tag = a->tag;
}

void run_split(struct actor *a, struct region *r, unsigned start, unsigned n)
{
	uint32_t old = 0;

	for (unsigned i = start; i < start + n; i++) {
		if (i == start || page_of(r, i)->tag != old)
			a->tag++;
		old = page_of(r, i)->tag;
		page_of(r, i)->tag = a->tag;
	}
}

void region_verify(struct actor *a, const struct region *r)
{
	bool down = chance(a, 4);

	for (unsigned k = 0; k < r->pages; k++) {
		unsigned i = down ? r->pages - 1 - k : k;

		if (!(page_of(r, i)->flags & P_UNREADABLE) && chance(a, verify_one_in))
			page_verify(a, page_of(r, i), addr_of(r, i));
	}
}

void blocks_verify(struct actor *a)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		const struct block *b = &a->blocks[i];

		if (b->data == NULL)
			continue;
		beat(a);
		for (uint64_t k = 0; k < b->size; k += 1 + k / 16)
			if (b->data[k] != (uint8_t)mix64(b->number + k))
				fail(a, "malloc block %p of %lu bytes: byte %lu is %#x, not %#x",
				     (void *)b->data, b->size, k, b->data[k],
				     (uint8_t)mix64(b->number + k));
	}
}

void actor_verify(struct actor *a)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind != R_FREE)
			region_verify(a, &a->regions[i]);
	blocks_verify(a);
	views_verify(a, a);
}

void world_verify(struct actor *a)
{
	for (unsigned k = 0; k < W->actors; k++) {
		struct actor *other = &W->actor[k];

		for (unsigned i = 0; i < REGIONS; i++)
			if (other->regions[i].kind != R_FREE)
				region_verify(a, &other->regions[i]);
		blocks_verify(other);
		views_verify(a, other);
		shared_verify(a, k);
	}
}

/* Clusters go to the actors in turn. */
void shared_verify(struct actor *a, unsigned owner)
{
	for (unsigned s = 0; s < STREAMS; s++) {
		const struct shared *r = &W->streams[s];

		for (unsigned i = 0; i < r->pages; i++) {
			struct page *p = world_pages(W) + r->first + i;

			if (i / CLUSTER % W->actors == owner && !(p->flags & P_UNREADABLE) &&
			    chance(a, verify_one_in))
				page_verify(a, p, (uint64_t *)(r->addr + i * PAGE));
		}
	}
}

void streams_make(void)
{
	struct actor *a = &W->actor[0];

	for (unsigned s = 0; s < STREAMS; s++) {
		struct shared *r = &W->streams[s];

		r->pages = W->capacity;
		r->first = (uint64_t)(W->actors * REGIONS + s) * W->capacity;
		r->addr = (uint64_t)map(a, NULL, r->pages * PAGE, 0);
		for (unsigned i = 0; i < r->pages; i++)
			page_write(a, world_pages(W) + r->first + i,
				   (uint64_t *)(r->addr + i * PAGE));
	}
	W->rom = (uint64_t)map(a, NULL, ROM_PAGES * PAGE, 0);
	for (unsigned i = 0; i < ROM_PAGES; i++)
		content_make((uint64_t)(i + 1) << 12 | CONTENT_RANDOM,
			     (uint64_t *)(W->rom + i * PAGE));
	W->tally = (uint64_t)map(a, NULL, TALLY_PAGES * PAGE, 0);
	W->signal_pages = (uint64_t)map(a, NULL, SIGNAL_PAGES * PAGE, 0);
}
