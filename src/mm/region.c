#include "mm/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int grow(struct regions *regions)
{
	size_t capacity = regions->capacity ? regions->capacity * 2 : 64;
	struct region *list = reallocarray(regions->list, capacity, sizeof(*list));

	if (!list)
		return -ENOMEM;
	regions->list = list;
	regions->capacity = capacity;
	return 0;
}

int regions_add(struct regions *regions, const struct region *region)
{
	if (regions->n == regions->capacity && grow(regions) < 0)
		return -ENOMEM;
	regions->list[regions->n++] = *region;
	return 0;
}

struct region *regions_find(const struct regions *regions, uint64_t address)
{
	size_t low = 0, high = regions->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (regions->list[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < regions->n ? &regions->list[low] : NULL;
}

int regions_remove(struct regions *regions, uint64_t start, uint64_t end)
{
	struct region *r = regions_find(regions, start);
	struct region *last = regions->list + regions->n;
	struct region *to;

	if (!r || r->start >= end)
		return 0;
	if (r->start < start && r->end > end) {
		size_t at = (size_t)(r - regions->list);

		if (regions->n == regions->capacity && grow(regions) < 0)
			return -ENOMEM;
		r = &regions->list[at];
		memmove(r + 1, r, (regions->n - at) * sizeof(*r));
		regions->n++;
		r[0].end = start;
		r[1].start = end;
		return 0;
	}
	if (r->start < start) {
		r->end = start;
		r++;
	}
	for (to = r; r < last && r->end <= end;)
		r++;
	if (r < last && r->start < end)
		r->start = end;
	memmove(to, r, (size_t)(last - r) * sizeof(*r));
	regions->n -= (size_t)(r - to);
	return 0;
}

int regions_put(struct regions *regions, const struct region *region)
{
	struct region *next;
	size_t at;

	if (regions_remove(regions, region->start, region->end) < 0 ||
	    (regions->n == regions->capacity && grow(regions) < 0))
		return -ENOMEM;
	next = regions_find(regions, region->start);
	at = next ? (size_t)(next - regions->list) : regions->n;
	memmove(&regions->list[at + 1], &regions->list[at],
		(regions->n - at) * sizeof(*regions->list));
	regions->list[at] = *region;
	regions->n++;
	return 0;
}

void regions_done(struct regions *regions)
{
	free(regions->list);
	*regions = (struct regions){0};
}
