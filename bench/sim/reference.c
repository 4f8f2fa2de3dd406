/*
 * References: they hold as many pages as the limit allows, have neither standby nor readahead, and
 * know more than a pager can.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "sim.h"

#define NONE UINT32_MAX

static sim_progress *progress;

/* A touch that missed. What follows the page that missed just before it comes with a stream. */
static void miss(struct outcome *o, uint32_t page, bool fresh)
{
	static uint32_t last;

	if (fresh) {
		o->fresh++;
		o->us += COST_FRESH;
	} else {
		o->faults++;
		o->reads++;
		o->us += COST_READ + (page == last + 1 ? 0 : COST_FAULT);
	}
	last = page;
}

static void leave(struct outcome *o)
{
	o->out++;
	o->out_runs++;
	o->us += COST_OUT;
}

static void *make(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		abort();
	return p;
}

/* ---- lists of pages ---- */

struct lists {
	uint32_t *next, *previous; /* of each page; list k begins at n_pages + k */
	uint32_t n_pages;
};

static struct lists lists_of(uint32_t n_pages, unsigned n_lists)
{
	struct lists l = {make(n_pages + n_lists, sizeof(uint32_t)),
			  make(n_pages + n_lists, sizeof(uint32_t)), n_pages};

	for (uint32_t k = n_pages; k < n_pages + n_lists; k++)
		l.next[k] = l.previous[k] = k;
	return l;
}

static void lists_done(struct lists *l)
{
	free(l->next);
	free(l->previous);
}

static void take_out(struct lists *l, uint32_t page)
{
	l->next[l->previous[page]] = l->next[page];
	l->previous[l->next[page]] = l->previous[page];
}

static void put_in(struct lists *l, unsigned list, uint32_t page)
{
	uint32_t head = l->n_pages + list;

	l->next[page] = l->next[head];
	l->previous[page] = head;
	l->previous[l->next[head]] = page;
	l->next[head] = page;
}

static uint32_t oldest(const struct lists *l, unsigned list)
{
	uint32_t page = l->previous[l->n_pages + list];

	return page < l->n_pages ? page : NONE;
}

/* ---- LRU and FIFO ---- */

static void one_list(const struct trace *t, uint32_t limit, struct outcome *o, bool moves_up)
{
	struct lists l = lists_of(t->n_pages, 1);
	enum { NEVER, HERE, OUT } *state = make(t->n_pages, sizeof(*state));
	uint32_t held = 0;

	for (uint64_t i = 0; i < t->n; i++) {
		uint32_t page = trace_page(t, i);

		sim_tell(progress, i, t->n);
		if (i == t->warm)
			*o = (struct outcome){0};
		if (trace_is_discard(t, i)) {
			if (state[page] == HERE) {
				take_out(&l, page);
				held--;
			}
			state[page] = NEVER;
			continue;
		}
		if (state[page] == HERE) {
			if (moves_up) {
				take_out(&l, page);
				put_in(&l, 0, page);
			}
			continue;
		}
		miss(o, page, state[page] == NEVER);
		if (held++ == limit) {
			uint32_t victim = oldest(&l, 0);

			take_out(&l, victim);
			state[victim] = OUT;
			leave(o);
			held--;
		}
		put_in(&l, 0, page);
		state[page] = HERE;
	}
	free(state);
	lists_done(&l);
}

static void run_lru(const struct trace *t, uint32_t limit, struct outcome *o)
{
	one_list(t, limit, o, true);
}

static void run_fifo(const struct trace *t, uint32_t limit, struct outcome *o)
{
	one_list(t, limit, o, false);
}

/* ---- two lists, as the kernel has them: accessed bits, looked at when a page's turn has come ---- */

static void run_lists(const struct trace *t, uint32_t limit, struct outcome *o)
{
	enum { INACTIVE, ACTIVE, NEVER, OUT };
	struct lists l = lists_of(t->n_pages, 2);
	struct { uint8_t state, accessed; uint64_t shadow; } *pages = make(t->n_pages, sizeof(*pages));
	uint64_t held[2] = {0}, evictions = 0;

	for (uint32_t p = 0; p < t->n_pages; p++)
		pages[p].state = NEVER;
	for (uint64_t i = 0; i < t->n; i++) {
		uint32_t page = trace_page(t, i), victim;
		bool soon;

		sim_tell(progress, i, t->n);
		if (i == t->warm)
			*o = (struct outcome){0};
		if (trace_is_discard(t, i)) {
			if (pages[page].state <= ACTIVE) {
				take_out(&l, page);
				held[pages[page].state]--;
			}
			memset(&pages[page], 0, sizeof(*pages));
			pages[page].state = NEVER;
			continue;
		}
		if (pages[page].state <= ACTIVE) {
			pages[page].accessed = true;
			continue;
		}
		miss(o, page, pages[page].state == NEVER);
		while (held[INACTIVE] + held[ACTIVE] >= limit) {
			unsigned from = held[ACTIVE] > 2 * held[INACTIVE] ? ACTIVE : INACTIVE, to;

			victim = oldest(&l, from);
			take_out(&l, victim);
			held[from]--;
			to = from == ACTIVE ? INACTIVE : pages[victim].accessed ? ACTIVE : OUT;
			pages[victim].accessed = false;
			pages[victim].state = (uint8_t)to;
			if (to == OUT) {
				pages[victim].shadow = ++evictions;
				leave(o);
			} else {
				put_in(&l, to, victim);
				held[to]++;
			}
		}
		soon = pages[page].shadow && evictions - pages[page].shadow <= held[ACTIVE];
		pages[page].state = soon ? ACTIVE : INACTIVE;
		put_in(&l, pages[page].state, page);
		held[pages[page].state]++;
	}
	free(pages);
	lists_done(&l);
}

/* ---- OPT (Belady): what is needed latest leaves ---- */

struct due {
	uint64_t at;
	uint32_t page;
};

struct heap {
	struct due *list; /* latest first */
	uint64_t n, capacity;
};

static void heap_add(struct heap *h, struct due due)
{
	uint64_t i = h->n++;

	if (i == h->capacity) {
		h->capacity = h->capacity ? h->capacity * 2 : 1024;
		h->list = reallocarray(h->list, h->capacity, sizeof(*h->list));
		if (!h->list)
			abort();
	}
	for (; i && h->list[(i - 1) / 2].at < due.at; i = (i - 1) / 2)
		h->list[i] = h->list[(i - 1) / 2];
	h->list[i] = due;
}

static struct due heap_take(struct heap *h)
{
	struct due top = h->list[0], last = h->list[--h->n];
	uint64_t i = 0, child;

	while ((child = 2 * i + 1) < h->n) {
		if (child + 1 < h->n && h->list[child + 1].at > h->list[child].at)
			child++;
		if (h->list[child].at <= last.at)
			break;
		h->list[i] = h->list[child];
		i = child;
	}
	h->list[i] = last;
	return top;
}

static void run_opt(const struct trace *t, uint32_t limit, struct outcome *o)
{
	uint64_t *next = make(t->n, sizeof(*next)); /* when is the page of touch i touched again? */
	uint64_t *due = make(t->n_pages, sizeof(*due));
	enum { NEVER, HERE, OUT } *state = make(t->n_pages, sizeof(*state));
	struct heap heap = {0}; /* outdated entries stay in it */
	uint32_t held = 0;

	memset(due, 0xff, t->n_pages * sizeof(*due));
	for (uint64_t i = t->n; i--;) {
		next[i] = due[trace_page(t, i)];
		due[trace_page(t, i)] = trace_is_discard(t, i) ? UINT64_MAX : i;
	}
	for (uint64_t i = 0; i < t->n; i++) {
		uint32_t page = trace_page(t, i);

		sim_tell(progress, i, t->n);
		if (i == t->warm)
			*o = (struct outcome){0};
		if (trace_is_discard(t, i)) {
			held -= state[page] == HERE;
			state[page] = NEVER;
			continue;
		}
		if (state[page] != HERE) {
			miss(o, page, state[page] == NEVER);
			while (held == limit) {
				struct due latest = heap_take(&heap);

				if (state[latest.page] != HERE || due[latest.page] != latest.at)
					continue;
				state[latest.page] = OUT;
				leave(o);
				held--;
			}
			held++;
			state[page] = HERE;
		}
		due[page] = next[i];
		heap_add(&heap, (struct due){next[i], page});
	}
	free(heap.list);
	free(state);
	free(due);
	free(next);
}

const struct reference references[] = {
	{"opt", "the future (Belady)", run_opt},
	{"lru", "every touch", run_lru},
	{"2 lists", "accessed bits, as the kernel has", run_lists},
	{"fifo", "faults", run_fifo},
	{0},
};

void reference_run(const struct reference *reference, const struct trace *trace, uint32_t limit,
		   sim_progress *told, struct outcome *ret)
{
	progress = told;
	*ret = (struct outcome){0};
	reference->run(trace, limit, ret);
	ret->touches = trace->n - trace->warm - trace->discards;
}
