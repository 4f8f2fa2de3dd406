/* Touching memory: the region's owner alone, and what actors share. */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <malloc.h>
#include <sys/mman.h>

static int one_page(struct actor *a, struct page **p, uint64_t **at)
{
	struct region *r = region_pick(a, ALL_KINDS);
	unsigned i;

	if (!r)
		return -1;
	i = pick(a, r->pages);
	*p = page_of(r, i);
	*at = addr_of(r, i);
	log_range(a, (uint64_t)*at, PAGE);
	return 0;
}

static int op_read(struct actor *a)
{
	struct page *p;
	uint64_t *at;

	if (one_page(a, &p, &at) || p->flags & P_UNREADABLE)
		return -1;
	page_verify(a, p, at);
	return 0;
}

static int op_write(struct actor *a)
{
	struct page *p;
	uint64_t *at;

	if (one_page(a, &p, &at) || p->flags & P_UNWRITABLE)
		return -1;
	if (chance(a, 2))
		page_verify(a, p, at);
	page_write(a, p, at);
	return 0;
}

static int op_modify(struct actor *a)
{
	struct page *p;
	uint64_t *at;

	if (one_page(a, &p, &at) || p->flags & P_UNWRITABLE)
		return -1;
	page_modify(a, p, at);
	if (chance(a, 4))
		page_verify(a, p, at);
	return 0;
}

/* Forwards, backwards or with a stride, as a stream of readahead would have it. */
static int op_scan(struct actor *a)
{
	struct region *r = region_pick(a, ALL_KINDS);
	unsigned start, n, step, how;

	if (!r)
		return -1;
	start = pick(a, r->pages);
	n = 1 + pick(a, 256);
	step = chance(a, 2) ? 1 : 1 + pick(a, 8);
	how = pick(a, 3);
	log_range(a, (uint64_t)addr_of(r, start), n * step * r->stride);
	for (unsigned k = 0; k < n; k++) {
		unsigned i = (how == 0 ? start + r->pages - k * step % r->pages
				       : start + k * step) %
			     r->pages;
		struct page *p = page_of(r, i);

		if (!(p->flags & P_UNREADABLE))
			page_verify(a, p, addr_of(r, i));
		if (how == 2 && !(p->flags & P_UNWRITABLE))
			page_modify(a, p, addr_of(r, i));
	}
	return 0;
}

static int op_fill(struct actor *a)
{
	struct region *r = region_pick(a, ALL_KINDS);
	unsigned start, n;

	if (!r || !run_pick(a, r, 256, &start, &n))
		return -1;
	for (unsigned i = start; i < start + n; i++) {
		beat(a);
		if (!(page_of(r, i)->flags & P_UNWRITABLE))
			page_write(a, page_of(r, i), addr_of(r, i));
	}
	return 0;
}

/* A region far from all others grows downwards when it is touched below its end. */
static int op_grow_down(struct actor *a)
{
	struct region *r = region_pick(a, 1u << R_DOWN);
	unsigned low = 0, next;

	if (!r)
		return -1;
	while (low < r->pages && page_of(r, low)->flags & P_ABSENT)
		low++;
	if (low == 0)
		return -1;
	next = low - 1 - pick(a, low < 32 ? low : 32);
	log_range(a, (uint64_t)addr_of(r, next), (low - next) * PAGE);
	for (unsigned i = next; i < low; i++)
		page_of(r, i)->flags = 0;
	page_modify(a, page_of(r, next), addr_of(r, next));
	return 0;
}

struct op ops_touch[] = {
	{"read", 300, 0, op_read},
	{"write", 140, 0, op_write},
	{"modify", 160, 0, op_modify},
	{"scan", 14, 0, op_scan},
	{"fill", 20, 0, op_fill},
	{"grow-down", 3, 0, op_grow_down},
	{0},
};

/* malloc */

static void block_fill(struct block *b, uint64_t from)
{
	for (uint64_t k = from; k < b->size; k++)
		b->data[k] = (uint8_t)mix64(b->number + k);
}

static void block_check(struct actor *a, const struct block *b, uint64_t size)
{
	for (uint64_t k = 0; k < size; k += 1 + (k > 256 ? pick(a, 200) : 0))
		if (b->data[k] != (uint8_t)mix64(b->number + k))
			fail(a, "malloc block %p of %lu bytes: byte %lu is %#x, not %#x",
			     (void *)b->data, b->size, k, b->data[k],
			     (uint8_t)mix64(b->number + k));
}

static uint64_t block_size(struct actor *a)
{
	return chance(a, 30) ? 1 + pick(a, 400000) : 1 + pick(a, 1ull << (4 + pick(a, 9)));
}

static int op_malloc(struct actor *a)
{
	struct block *b = &a->blocks[pick(a, BLOCKS)];

	if (b->data) {
		block_check(a, b, b->size);
		free(b->data);
		b->data = NULL;
		return 0;
	}
	b->size = block_size(a);
	switch (pick(a, 4)) {
	case 0:
		b->data = calloc(1, b->size);
		for (uint64_t k = 0; b->data && k < b->size; k++)
			if (b->data[k])
				fail(a, "calloc: byte %lu of %p is %#x", k, (void *)b->data,
				     b->data[k]);
		break;
	case 1:
		b->data = memalign(64ul << pick(a, 8), b->size);
		break;
	default:
		b->data = malloc(b->size);
	}
	check(a, b->data != NULL);
	log_range(a, (uint64_t)b->data, b->size);
	b->number = rnd(a);
	block_fill(b, 0);
	return 0;
}

static int op_realloc(struct actor *a)
{
	struct block *b = &a->blocks[pick(a, BLOCKS)];
	uint64_t size = block_size(a), old = b->size;
	uint8_t *data;

	if (!b->data)
		return -1;
	log_range(a, (uint64_t)b->data, b->size);
	block_check(a, b, old);
	data = realloc(b->data, size);
	check(a, data != NULL);
	b->data = data;
	b->size = size;
	block_check(a, b, old < size ? old : size);
	block_fill(b, old < size ? old : size);
	return 0;
}

static int op_trim(struct actor *a)
{
	(void)a;
	malloc_trim(pick(a, 2) * 65536ul);
	return 0;
}

/* Shared regions */

static int own_cluster(struct actor *a, uint64_t *at, struct page **p)
{
	struct shared *r = &W->streams[pick(a, STREAMS)];
	unsigned clusters = r->pages / CLUSTER, c = pick(a, clusters);

	c = c - c % W->actors + a->index;
	if (c >= clusters)
		return -1;
	*at = r->addr + c * CLUSTER * PAGE;
	*p = world_pages(W) + r->first + c * CLUSTER;
	log_range(a, *at, CLUSTER * PAGE);
	return 0;
}

static int op_shared_touch(struct actor *a)
{
	uint64_t at;
	struct page *p;
	unsigned i = pick(a, CLUSTER);
	uint64_t *page;

	if (own_cluster(a, &at, &p) || p[i].flags & P_UNREADABLE)
		return -1;
	page = (uint64_t *)(at + i * PAGE);
	page_verify(a, &p[i], page);
	if (p[i].flags & P_RO)
		return 0;
	if (chance(a, 3))
		page_modify(a, &p[i], page);
	else if (chance(a, 3))
		page_write(a, &p[i], page);
	return 0;
}

static int op_shared_discard(struct actor *a)
{
	uint64_t at;
	struct page *p;

	if (own_cluster(a, &at, &p))
		return -1;
	if (chance(a, 3)) {
		check(a, madvise((void *)at, CLUSTER * PAGE, MADV_FREE) == 0);
		for (unsigned i = 0; i < CLUSTER; i++)
			p[i].flags |= P_FREED;
		return 0;
	}
	check(a, madvise((void *)at, CLUSTER * PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < CLUSTER; i++) {
		page_set(&p[i], 0);
		if (chance(a, 2) && !(p[i].flags & P_UNREADABLE))
			page_verify(a, &p[i], (uint64_t *)(at + i * PAGE));
	}
	return 0;
}

static int op_shared_protect(struct actor *a)
{
	uint64_t at;
	struct page *p;
	int prot = PROT_READ | PROT_WRITE;
	unsigned flags = 0;

	if (own_cluster(a, &at, &p))
		return -1;
	if (!(p->flags & (P_RO | P_NONE))) {
		flags = chance(a, 2) ? P_RO : P_NONE;
		prot = flags == P_RO ? PROT_READ : PROT_NONE;
	}
	check(a, mprotect((void *)at, CLUSTER * PAGE, prot) == 0);
	for (unsigned i = 0; i < CLUSTER; i++)
		p[i].flags = (p[i].flags & ~(unsigned)(P_RO | P_NONE)) | flags;
	return 0;
}

/* MAP_FIXED over one's own pages, amid those of others. */
static int op_shared_fixed(struct actor *a)
{
	uint64_t at;
	struct page *p;

	if (own_cluster(a, &at, &p))
		return -1;
	check(a, mmap((void *)at, CLUSTER * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)at);
	for (unsigned i = 0; i < CLUSTER; i++) {
		page_set(&p[i], 0);
		p[i].flags = 0;
		if (chance(a, 2))
			page_modify(a, &p[i], (uint64_t *)(at + i * PAGE));
	}
	return 0;
}

/* Many threads read the same pages, which nobody ever writes again. */
static int op_rom(struct actor *a)
{
	unsigned i = pick(a, ROM_PAGES), n = 1 + pick(a, 8);

	for (; n-- > 0; i = (i + 1) % ROM_PAGES) {
		struct page p = {.content = (uint64_t)(i + 1) << 12 | CONTENT_RANDOM};

		page_verify(a, &p, (uint64_t *)(W->rom + i * PAGE));
	}
	return 0;
}

/* Every actor counts in its own word of the same pages: a lost update is a lost write. */
static int op_tally(struct actor *a)
{
	unsigned i = pick(a, TALLY_PAGES);
	volatile uint64_t *word = (uint64_t *)(W->tally + i * PAGE) + a->index * 13;

	log_range(a, (uint64_t)word, 8);
	beat(a);
	for (unsigned n = 1 + pick(a, 8); n-- > 0;) {
		if (*word != W->tallies[a->index][i])
			fail(a, "tally at %p: expected %u, found %lu", (const volatile void *)word,
			     W->tallies[a->index][i], *word);
		*word = ++W->tallies[a->index][i];
	}
	return 0;
}

struct op ops_shared[] = {
	{"malloc", 30, 0, op_malloc},
	{"realloc", 12, 0, op_realloc},
	{"malloc-trim", 1, 0, op_trim},
	{"shared-touch", 120, OP_SHARED, op_shared_touch},
	{"shared-discard", 8, OP_SHARED, op_shared_discard},
	{"shared-protect", 3, OP_SHARED, op_shared_protect},
	{"shared-fixed", 3, OP_SHARED, op_shared_fixed},
	{"same-page-read", 30, OP_SHARED, op_rom},
	{"same-page-write", 50, OP_SHARED, op_tally},
	{0},
};
