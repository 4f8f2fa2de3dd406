#include "history.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"

#define GAP  64u /* pages: what lies further apart is not near */
#define NONE UINT32_MAX

/* Where a task has, or had, a page. */
struct place {
	uint64_t number;
	uint32_t task, page; /* NONE: it has moved elsewhere */
	uint32_t next;       /* of the task; NONE: the last */
};

struct inhabitants {
	uint64_t id;
	uint32_t first, n; /* places */
};

void history_done(struct history *h)
{
	trace_done(&h->raw);
	free(h->pages);
	free(h->places);
	free(h->tasks);
	free(h->table);
	*h = (struct history){0};
}

/* Room for one more. */
static void *grown(void *list, size_t n, size_t *capacity, size_t size)
{
	if (n < *capacity)
		return list;
	*capacity = *capacity ? 2 * *capacity : 1024;
	list = reallocarray(list, *capacity, size);
	if (!list)
		abort();
	return list;
}

uint32_t history_task(struct history *h, uint64_t id)
{
	if (h->last_task < h->n_tasks && h->tasks[h->last_task].id == id)
		return h->last_task;
	for (uint32_t i = 0; i < h->n_tasks; i++)
		if (h->tasks[i].id == id)
			return h->last_task = i;
	h->tasks = grown(h->tasks, h->n_tasks, &h->task_capacity, sizeof(*h->tasks));
	h->tasks[h->n_tasks] = (struct inhabitants){.id = id, .first = NONE};
	return h->last_task = h->n_tasks++;
}

/* ---- places ---- */

/* Where in the table it is, or would be. */
static uint32_t table_at(const struct history *h, uint32_t task, uint64_t number)
{
	uint64_t hash = (number + task * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
	uint32_t at = (uint32_t)(hash >> 32) & (h->n_table - 1);

	for (; h->table[at] != NONE; at = (at + 1) & (h->n_table - 1)) {
		const struct place *place = &h->places[h->table[at]];

		if (place->task == task && place->number == number)
			break;
	}
	return at;
}

static void grow_table(struct history *h)
{
	h->n_table = h->n_table ? 2 * h->n_table : 1 << 12;
	free(h->table);
	h->table = malloc(h->n_table * sizeof(*h->table));
	if (!h->table)
		abort();
	for (uint32_t i = 0; i < h->n_table; i++)
		h->table[i] = NONE;
	for (uint32_t i = 0; i < h->n_places; i++)
		h->table[table_at(h, h->places[i].task, h->places[i].number)] = i;
}

/* NONE: nothing was ever there. */
static uint32_t find(const struct history *h, uint32_t task, uint64_t number)
{
	return h->n_table ? h->table[table_at(h, task, number)] : NONE;
}

static uint32_t find_or_add(struct history *h, uint32_t task, uint64_t number)
{
	struct inhabitants *t = &h->tasks[task];
	uint32_t i = find(h, task, number);

	if (i != NONE)
		return i;
	if (h->n_places >= h->n_table / 2)
		grow_table(h);
	h->places = grown(h->places, h->n_places, &h->place_capacity, sizeof(*h->places));
	i = h->n_places++;
	if (i >= TRACE_PAGES_MAX)
		abort();
	h->places[i] = (struct place){.number = number, .task = task, .page = NONE, .next = t->first};
	h->table[table_at(h, task, number)] = i;
	t->first = i;
	h->n_inhabited += t->n++ == 0;
	return i;
}

typedef void place_visitor(struct history *h, uint32_t place, void *context);

/* Calls f for the places of a range that have a page. f may add places. */
static void each(struct history *h, uint32_t task, uint64_t first, uint64_t n, place_visitor *f,
		 void *context)
{
	uint32_t place;

	if (n > h->tasks[task].n) {
		for (place = h->tasks[task].first; place != NONE; place = h->places[place].next)
			if (h->places[place].number - first < n && h->places[place].page != NONE)
				f(h, place, context);
		return;
	}
	for (uint64_t i = 0; i < n; i++) {
		place = find(h, task, first + i);
		if (place != NONE && h->places[place].page != NONE)
			f(h, place, context);
	}
}

/* ---- pages ---- */

struct known_page *history_page(struct history *h, uint32_t task, uint64_t number)
{
	uint32_t at = find_or_add(h, task, number);
	struct place *place = &h->places[at];

	if (place->page == NONE) {
		h->pages = grown(h->pages, h->n_pages, &h->page_capacity, sizeof(*h->pages));
		h->pages[h->n_pages] = (struct known_page){.home = number, .task = task};
		place->page = h->n_pages++;
	}
	return &h->pages[place->page];
}

struct known_page *history_known(struct history *h, uint32_t task, uint64_t number)
{
	uint32_t place = find(h, task, number);

	return place == NONE || h->places[place].page == NONE ? NULL : &h->pages[h->places[place].page];
}

void history_touch(struct history *h, struct known_page *page, bool write)
{
	page->live = true;
	trace_add(&h->raw, (uint32_t)(page - h->pages), write);
}

static void forget(struct history *h, uint32_t place, void *unused)
{
	struct known_page *page = &h->pages[h->places[place].page];

	(void)unused;
	if (page->live)
		trace_discard(&h->raw, h->places[place].page);
	page->live = page->along = false;
	page->asked = 0;
}

uint64_t history_discard(struct history *h, uint32_t task, uint64_t first, uint64_t n)
{
	uint64_t before = h->raw.discards;

	each(h, task, first, n, forget, NULL);
	return h->raw.discards - before;
}

static void not_along(struct history *h, uint32_t place, void *unused)
{
	(void)unused;
	h->pages[h->places[place].page].along = false;
}

void history_left(struct history *h, uint32_t task, uint64_t first, uint64_t n)
{
	each(h, task, first, n, not_along, NULL);
}

/* by: from the old address to the new, modulo 2^64. */
static void move(struct history *h, uint32_t place, void *by)
{
	uint32_t page = h->places[place].page;
	uint32_t to = find_or_add(h, h->places[place].task,
				  h->places[place].number + *(const uint64_t *)by);

	if (to == place)
		return;
	if (h->places[to].page != NONE)
		forget(h, to, NULL);
	h->places[place].page = NONE;
	h->places[to].page = page;
}

void history_move(struct history *h, uint32_t task, uint64_t from, uint64_t to, uint64_t n)
{
	each(h, task, from, n, move, &(uint64_t){to - from});
}

/* ---- the trace ---- */

static int by_home(const void *a, const void *b, void *context)
{
	const struct known_page *pages = context;
	const struct known_page *left = &pages[*(const uint32_t *)a];
	const struct known_page *right = &pages[*(const uint32_t *)b];

	if (left->task != right->task)
		return left->task < right->task ? -1 : 1;
	return left->home < right->home ? -1 : left->home > right->home;
}

/* Two pages may have the same home, if one moved out before the other was seen. */
static uint64_t distance(const struct known_page *left, const struct known_page *right)
{
	return left->task != right->task ? GAP : MAX(MIN(right->home - left->home, GAP), 1ull);
}

int history_trace(const struct history *h, struct trace *ret)
{
	uint32_t *order = calloc(h->n_pages + 1ul, sizeof(*order));
	uint32_t *numbers = calloc(h->n_pages + 1ul, sizeof(*numbers));
	uint64_t number = 0;

	if (!order || !numbers)
		abort();
	*ret = (struct trace){0};
	for (uint32_t i = 0; i < h->n_pages; i++)
		order[i] = i;
	qsort_r(order, h->n_pages, sizeof(*order), by_home, h->pages);
	for (uint32_t i = 0; i < h->n_pages && number < TRACE_PAGES_MAX; i++) {
		if (i)
			number += distance(&h->pages[order[i - 1]], &h->pages[order[i]]);
		numbers[order[i]] = (uint32_t)number;
		if (h->pages[order[i]].before && number < TRACE_PAGES_MAX)
			trace_add(ret, (uint32_t)number, true);
	}
	ret->warm = ret->n;
	for (uint64_t i = 0; i < h->raw.n && number < TRACE_PAGES_MAX; i++) {
		uint32_t page = numbers[trace_page(&h->raw, i)];

		if (trace_is_discard(&h->raw, i))
			trace_discard(ret, page);
		else
			trace_add(ret, page, trace_is_write(&h->raw, i));
	}
	free(order);
	free(numbers);
	if (number < TRACE_PAGES_MAX)
		return 0;
	trace_done(ret);
	return -EFBIG;
}
