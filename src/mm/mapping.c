#include "mm/mapping.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static int reserve(struct mapping **list, size_t n, size_t *capacity)
{
	size_t larger = *capacity ? *capacity * 2 : 16;
	struct mapping *grown;

	if (n <= *capacity)
		return 0;
	grown = reallocarray(*list, larger, sizeof(**list));
	if (!grown)
		return -ENOMEM;
	*list = grown;
	*capacity = larger;
	return 0;
}

/* The first entry that ends above the address. */
static size_t lower_bound(const struct mappings *m, uint64_t address)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->list[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct mapping *mappings_find(const struct mappings *m, uint64_t address)
{
	size_t i = lower_bound(m, address);

	return i < m->n && m->list[i].start <= address ? &m->list[i] : NULL;
}

void mappings_gap(const struct mappings *m, uint64_t address, uint64_t *start, uint64_t *end)
{
	size_t i = lower_bound(m, address);

	if (i)
		*start = MAX(*start, m->list[i - 1].end);
	if (i < m->n)
		*end = MIN(*end, m->list[i].start);
}

/* The part of a mapping that lies in [start, end). */
static struct mapping part_of(const struct mapping *mapping, uint64_t start, uint64_t end)
{
	struct mapping part = *mapping;

	part.start = MAX(start, mapping->start);
	part.end = MIN(end, mapping->end);
	part.page = mapping_page(mapping, part.start);
	return part;
}

static int insert(struct mappings *m, size_t at, const struct mapping *mapping)
{
	if (reserve(&m->list, m->n + 1, &m->capacity) < 0)
		return -ENOMEM;
	memmove(&m->list[at + 1], &m->list[at], (m->n - at) * sizeof(*m->list));
	m->list[at] = *mapping;
	m->n++;
	m->used = true;
	image_get(mapping->image);
	atomic_fetch_add(&mapping->image->mapped, 1);
	return 0;
}

static void erase(struct mappings *m, size_t at)
{
	atomic_fetch_sub(&m->list[at].image->mapped, 1);
	image_put(m->list[at].image);
	m->n--;
	memmove(&m->list[at], &m->list[at + 1], (m->n - at) * sizeof(*m->list));
}

static int keep_old(struct mappings *m, const struct mapping *part)
{
	if (reserve(&m->old, m->n_old + 1, &m->old_capacity) < 0)
		return -ENOMEM;
	m->old[m->n_old++] = *part;
	image_get(part->image);
	return 0;
}

int mappings_remove(struct mappings *m, uint64_t start, uint64_t end)
{
	size_t i = lower_bound(m, start);

	while (i < m->n && m->list[i].start < end) {
		struct mapping whole = m->list[i];
		struct mapping cut = part_of(&whole, start, end);

		if (keep_old(m, &cut) < 0)
			return -ENOMEM;
		if (whole.start < cut.start && cut.end < whole.end) {
			struct mapping rest = part_of(&whole, cut.end, whole.end);

			if (insert(m, i + 1, &rest) < 0)
				return -ENOMEM;
			m->list[i].end = cut.start;
			return 0;
		}
		if (whole.start < cut.start)
			m->list[i++].end = cut.start;
		else if (cut.end < whole.end)
			m->list[i] = part_of(&whole, cut.end, whole.end);
		else
			erase(m, i);
	}
	return 0;
}

/* Is that known already? */
static bool covers(const struct mapping *known, const struct mapping *mapping)
{
	return known && known->start <= mapping->start && mapping->end <= known->end &&
	       known->image == mapping->image && known->shared == mapping->shared &&
	       mapping_page(known, mapping->start) == mapping->page;
}

int mappings_add(struct mappings *m, const struct mapping *mapping)
{
	int r;

	if (covers(mappings_find(m, mapping->start), mapping))
		return 0;
	r = mappings_remove(m, mapping->start, mapping->end);
	return r < 0 ? r : insert(m, lower_bound(m, mapping->start), mapping);
}

int mappings_move(struct mappings *m, uint64_t from, uint64_t to, uint64_t length)
{
	size_t first_cut = m->n_old, last_cut;
	int r;

	if (!m->n)
		return 0;
	r = mappings_remove(m, from, from + length);
	last_cut = m->n_old;
	for (size_t i = first_cut; i < last_cut && r == 0; i++) {
		struct mapping moved = m->old[i];

		moved.start = to + (moved.start - from);
		moved.end = to + (moved.end - from);
		r = mappings_add(m, &moved);
	}
	return r;
}

int mappings_clone(const struct mappings *from, struct mappings *to)
{
	int r = 0;

	/* What was removed last comes last, and what is mapped now replaces it. */
	for (size_t i = 0; i < from->n_old && r == 0; i++)
		r = mappings_add(to, &from->old[i]);
	for (size_t i = 0; i < from->n && r == 0; i++)
		r = mappings_add(to, &from->list[i]);
	mappings_forget_old(to);
	return r;
}

void mappings_forget_old(struct mappings *m)
{
	while (m->n_old)
		image_put(m->old[--m->n_old].image);
}

void mappings_done(struct mappings *m)
{
	mappings_forget_old(m);
	while (m->n)
		erase(m, m->n - 1);
	free(m->list);
	free(m->old);
	*m = (struct mappings){0};
}
