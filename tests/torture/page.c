/* What a page holds, and how it is written and checked. */
#include "torture.h"

#include <string.h>

uint64_t mix64(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	return x;
}

uint64_t rnd(struct actor *a)
{
	a->rng += 0x9e3779b97f4a7c15ull;
	return mix64(a->rng);
}

unsigned pick(struct actor *a, uint64_t n)
{
	return (unsigned)((rnd(a) >> 11) % n);
}

bool chance(struct actor *a, unsigned one_in)
{
	return pick(a, one_in) == 0;
}

static uint64_t change_value(uint64_t number, unsigned i)
{
	return mix64(number * 31 + i + 0x1234567) ^ W->seed;
}

static unsigned change_place(uint64_t number, unsigned i)
{
	return (unsigned)(mix64(number * 17 + i + 0x7654321) % WORDS);
}

void content_make(uint64_t content, uint64_t *words)
{
	unsigned kind = content & 15, changes = content >> 4 & 255;
	uint64_t number = content >> 12, start = mix64(number ^ W->seed);

	switch (kind) {
	case CONTENT_ZERO:
		memset(words, 0, PAGE);
		break;
	case CONTENT_RANDOM:
		for (unsigned i = 0; i < WORDS; i++) {
			uint64_t x = (start + i) * 0xd6e8feb86659fd93ull;

			words[i] = x ^ x >> 29;
		}
		break;
	case CONTENT_TEXT:
		for (unsigned i = 0; i < WORDS; i++)
			words[i] = i % 3 ? start : mix64(start + i);
		break;
	case CONTENT_SAME:
		for (unsigned i = 0; i < WORDS; i++)
			words[i] = start;
		break;
	default:
		for (unsigned i = 0; i < WORDS; i++)
			words[i] = start + (i & 31);
		break;
	}
	for (unsigned i = 1; i <= changes; i++)
		words[change_place(number, i)] = change_value(number, i);
}

uint64_t content_new(struct actor *a)
{
	static const uint8_t kinds[16] = {
	    CONTENT_RANDOM,  CONTENT_RANDOM,  CONTENT_RANDOM,  CONTENT_RANDOM,
	    CONTENT_TEXT,    CONTENT_TEXT,    CONTENT_TEXT,    CONTENT_TEXT,
	    CONTENT_SAME,    CONTENT_SAME,    CONTENT_PATTERN, CONTENT_PATTERN,
	    CONTENT_PATTERN, CONTENT_PATTERN, CONTENT_PATTERN, CONTENT_ZERO,
	};
	unsigned kind = kinds[pick(a, 16)];

	if (kind == CONTENT_ZERO)
		return 0;
	return a->number++ << 12 | kind;
}

struct page *world_pages(struct world *w)
{
	return (struct page *)((char *)w + w->pages_at);
}

struct page *page_of(const struct region *r, unsigned i)
{
	return world_pages(W) + r->first + i;
}

uint64_t *addr_of(const struct region *r, unsigned i)
{
	return (uint64_t *)(r->addr + i * r->stride);
}

void page_set(struct page *p, uint64_t content)
{
	p->before = p->content;
	p->content = content;
	p->flags &= ~(uint32_t)(P_FREED | P_FILE | P_TORN);
}

void page_discard(struct page *p)
{
	page_set(p, 0);
	if (p->file)
		p->flags |= P_FILE;
}

void page_anew(struct page *p, uint32_t flags)
{
	page_set(p, 0);
	p->flags = flags;
	p->file = 0;
}

void page_write(struct actor *a, struct page *p, uint64_t *at)
{
	uint64_t content = content_new(a);
	volatile uint64_t *words = at;

	content_make(content, a->expect);
	switch (pick(a, 4)) {
	case 0: /* the end first */
		words[WORDS - 1] = a->expect[WORDS - 1];
		memcpy(at, a->expect, PAGE - 8);
		break;
	case 1: /* downwards */
		for (int i = WORDS - 1; i >= 0; i--)
			words[i] = a->expect[i];
		break;
	default:
		memcpy(at, a->expect, PAGE);
	}
	page_set(p, content);
}

static void modify(struct actor *a, struct page *p, uint64_t *at)
{
	unsigned changes = p->content >> 4 & 255;
	uint64_t number = p->content >> 12;

	if (changes == 200 || p->flags & (P_FREED | P_FILE | P_TORN)) {
		page_write(a, p, at);
		return;
	}
	if (number == 0) /* zeros have no number of their own yet */
		number = a->number++;
	changes++;
	((volatile uint64_t *)at)[change_place(number, changes)] = change_value(number, changes);
	page_set(p, number << 12 | changes << 4 | (p->content & 15));
}

/* Changes a word. The first change of a page of a private mapping copies what the file has then. */
void page_modify(struct actor *a, struct page *p, uint64_t *at)
{
	bool copies = p->flags & P_FILE && file_claim(p->file);

	if (copies && !(file_shadow(p->file)->flags & P_TORN))
		page_set(p, file_shadow(p->file)->content);
	modify(a, p, at);
	if (copies)
		file_release(p->file, 1);
}

static bool all_zero(const uint64_t *at)
{
	static const uint64_t zeros[WORDS];

	return memcmp(at, zeros, PAGE) == 0;
}

void page_verify(struct actor *a, struct page *p, uint64_t *at)
{
	beat(a);
	if (p->flags & P_FILE) {
		if (file_claim(p->file)) {
			page_verify(a, file_shadow(p->file), at);
			file_release(p->file, 1);
		}
		return;
	}
	if (p->flags & P_TORN)
		return;
	root->totals[a->index].verified++;
	content_make(p->content, a->expect);
	if (memcmp(at, a->expect, PAGE) == 0)
		return;
	/* MADV_FREE: the page may go at any moment, then it stays gone. */
	if (p->flags & P_FREED && all_zero(at)) {
		page_set(p, 0);
		return;
	}
	fail_page(a, p, at);
}

/* MADV_DONTNEED and its like work on it. */
bool page_discardable(const struct page *p)
{
	return !(p->flags & (P_ABSENT | P_LOCKED));
}
