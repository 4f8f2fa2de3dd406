#include "trace.h"

#include <stdlib.h>

#include "base/util.h"
#include "zipf.h"

void trace_done(struct trace *t)
{
	free(t->touches);
	*t = (struct trace){0};
}

static void add(struct trace *t, uint32_t page, enum touch touch)
{
	if (t->n == t->capacity) {
		t->capacity = t->capacity ? t->capacity * 2 : 1 << 16;
		t->touches = reallocarray(t->touches, t->capacity, sizeof(*t->touches));
		if (!t->touches)
			abort();
	}
	t->touches[t->n++] = page << 2 | touch;
	t->n_pages = MAX(t->n_pages, page + 1);
}

void trace_add(struct trace *t, uint32_t page, bool write)
{
	add(t, page, write ? TOUCH_WRITE : TOUCH_READ);
}

void trace_write(struct trace *t, uint64_t i)
{
	t->touches[i] = t->touches[i] >> 2 << 2 | TOUCH_WRITE;
}

void trace_discard(struct trace *t, uint32_t page)
{
	add(t, page, TOUCH_DISCARD);
	t->discards++;
}

/* ---- patterns ---- */

static uint64_t seed;

static uint64_t next_random(void)
{
	uint64_t x = seed += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(((unsigned __int128)next_random() * n) >> 64);
}

static void fill(struct trace *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		trace_add(t, i, true);
	t->warm = t->n;
}

static void loop(struct trace *t, uint32_t n, unsigned rounds, bool write)
{
	fill(t, n);
	for (unsigned round = 0; round < rounds; round++)
		for (uint32_t i = 0; i < n; i++)
			trace_add(t, i, write);
}

static void sequential(struct trace *t, uint32_t limit)
{
	loop(t, 2 * limit, 4, false);
}

static void sequential_write(struct trace *t, uint32_t limit)
{
	loop(t, 2 * limit, 4, true);
}

static void cyclic(struct trace *t, uint32_t limit)
{
	loop(t, limit / 4 * 5, 4, false);
}

/* In what is not resident after the fill: who holds on to what came first never gets there. */
static void small_loop(struct trace *t, uint32_t limit)
{
	fill(t, 2 * limit);
	for (unsigned round = 0; round < 20; round++)
		for (uint32_t i = 0; i < limit / 2; i++)
			trace_add(t, limit + i, false);
}

static void cyclic_long(struct trace *t, uint32_t limit)
{
	loop(t, limit / 4 * 5, 40, false);
}

static void uniform(struct trace *t, uint32_t limit)
{
	fill(t, 2 * limit);
	for (uint32_t i = 0; i < 4 * limit; i++)
		trace_add(t, below(2 * limit), false);
}

static void zipf_touches(struct trace *t, uint32_t n, uint64_t touches, bool scattered, bool write)
{
	struct zipf z;

	zipf_init(&z, n, 0.99);
	fill(t, n);
	for (uint64_t i = 0; i < touches; i++) {
		uint64_t random = next_random();

		trace_add(t, (uint32_t)(scattered ? zipf_draw(&z, random, n) : zipf_rank(&z, random)),
			  write);
	}
}

static void zipf_short(struct trace *t, uint32_t limit)
{
	zipf_touches(t, 2 * limit, 4ull * limit, true, false);
}

static void zipf_long(struct trace *t, uint32_t limit)
{
	zipf_touches(t, 2 * limit, 40ull * limit, true, false);
}

static void zipf_write(struct trace *t, uint32_t limit)
{
	zipf_touches(t, 2 * limit, 40ull * limit, true, true);
}

static void zipf_sorted(struct trace *t, uint32_t limit)
{
	zipf_touches(t, 2 * limit, 40ull * limit, false, false);
}

/* The ranks move on: what was hot cools down. */
static void drift(struct trace *t, uint32_t limit)
{
	uint64_t n = 2 * limit, prime = 2654435761u;
	struct zipf z;

	zipf_init(&z, n, 0.99);
	fill(t, (uint32_t)n);
	for (uint64_t i = 0; i < 20 * n; i++)
		trace_add(t, (uint32_t)((zipf_rank(&z, next_random()) + i / 40) % n * prime % n), false);
}

/* A loop whose order is not that of addresses, as over a list. */
static void list(struct trace *t, uint32_t limit)
{
	uint32_t n = limit / 4 * 5, *order = calloc(n, sizeof(*order));

	if (!order)
		abort();
	fill(t, n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = below(i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (unsigned round = 0; round < 10; round++)
		for (uint32_t i = 0; i < n; i++)
			trace_add(t, order[i], false);
	free(order);
}

/* Runs of 512 pages of a scan over as much as the limit, between touches of a hot set of that size. */
static void mixed(struct trace *t, uint32_t limit)
{
	struct zipf z;
	uint32_t at = 0;

	zipf_init(&z, limit, 0.99);
	fill(t, 2 * limit);
	while (t->n - t->warm < 8ull * limit) {
		for (unsigned i = 0; i < 512; i++)
			trace_add(t, limit + at++ % limit, false);
		for (unsigned i = 0; i < 512; i++)
			trace_add(t, (uint32_t)zipf_draw(&z, next_random(), limit), false);
	}
}

/* A working set of 0.8 × the limit that is elsewhere after a while, in 3 × the limit. */
static void phases(struct trace *t, uint32_t limit)
{
	uint32_t all = 3 * limit, set = limit / 5 * 4;

	fill(t, all);
	for (unsigned phase = 0; phase < 6; phase++)
		for (uint32_t i = 0; i < 3 * limit; i++)
			trace_add(t, i % 20 ? (phase * (limit / 2) + below(set)) % all : below(all), false);
}

/* The same, in memory that is new each time. */
static void renewed(struct trace *t, uint32_t limit)
{
	uint32_t set = limit / 5 * 4;

	fill(t, limit);
	for (unsigned phase = 1; phase <= 6; phase++)
		for (uint32_t i = 0; i < 4 * limit; i++)
			trace_add(t, phase * limit + (i < set ? i : below(set)), true);
}

/* Halves are sorted, then merged: each line is looked at, wherever in the range it is. */
static void sort_range(struct trace *t, uint32_t from, uint32_t n)
{
	if (n > 16) {
		sort_range(t, from, n / 2);
		sort_range(t, from + n / 2, n - n / 2);
	}
	for (uint32_t i = 0; i < 4 * n; i++)
		trace_add(t, from + below(n), i % 4 == 0);
}

static void merge_sort(struct trace *t, uint32_t limit)
{
	fill(t, 2 * limit);
	sort_range(t, 0, 2 * limit);
}

const struct pattern patterns[] = {
	{"sequential", "2 x the limit from end to end", sequential},
	{"sequential-write", "the same, written to", sequential_write},
	{"cyclic", "1.25 x the limit, over and over, 4 times", cyclic},
	{"cyclic-long", "the same, 40 times", cyclic_long},
	{"small-loop", "0.5 x the limit, 20 times, after 2 x the limit was filled", small_loop},
	{"list", "the same 10 times, not in the order of addresses", list},
	{"random", "uniform in 2 x the limit", uniform},
	{"zipf", "zipf 0.99 in 2 x the limit, scattered, 4 x the limit touches", zipf_short},
	{"zipf-long", "the same, 40 x the limit touches", zipf_long},
	{"zipf-write", "the same, written to", zipf_write},
	{"zipf-sorted", "the same, what is hot lies together", zipf_sorted},
	{"drift", "zipf whose ranks move on", drift},
	{"mixed", "scans of the limit's size between zipf touches of as much", mixed},
	{"phases", "a working set of 0.8 x the limit that moves", phases},
	{"renewed", "a working set of 0.8 x the limit in ever new memory", renewed},
	{"sort", "merges over ever larger parts of 2 x the limit", merge_sort},
	{0},
};

void trace_make(struct trace *ret, const struct pattern *pattern, uint32_t limit)
{
	*ret = (struct trace){0};
	seed = 1;
	pattern->make(ret, limit);
}
