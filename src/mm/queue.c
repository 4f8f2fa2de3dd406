#include "mm/queue.h"

#include <stdlib.h>

#include "base/util.h"

#define FIRST    64u
#define LARGEST  (1u << 22) /* runs: 32 MiB, for a task that holds a terabyte */
#define LOW_BITS (PAGE_SIZE - 1ull)

static uint64_t *at(const struct queue *queue, uint32_t n)
{
	return &queue->runs[n & (queue->capacity - 1)];
}

static uint32_t length(uint64_t run)
{
	return (uint32_t)(run & LOW_BITS) + 1;
}

void queue_done(struct queue *queue)
{
	free(queue->runs);
	*queue = (struct queue){0};
}

static bool grow(struct queue *queue)
{
	uint32_t capacity = queue->capacity ? queue->capacity * 2 : FIRST, n = 0;
	uint64_t *runs = capacity <= LARGEST ? malloc(capacity * sizeof(*runs)) : NULL;

	if (!runs)
		return false;
	for (uint32_t i = queue->tail; i != queue->head; i++)
		runs[n++] = *at(queue, i);
	free(queue->runs);
	queue->runs = runs;
	queue->capacity = capacity;
	queue->tail = 0;
	queue->head = n;
	return true;
}

static bool joins(struct queue *queue, uint64_t address, uint32_t pages)
{
	uint64_t *last;

	if (queue->head == queue->tail)
		return false;
	last = at(queue, queue->head - 1);
	if ((*last & ~LOW_BITS) + pages_to_bytes(length(*last)) != address ||
	    length(*last) + pages > QUEUE_RUN)
		return false;
	*last += pages;
	queue->pages += pages;
	return true;
}

void queue_push(struct queue *queue, uint64_t address, uint32_t pages)
{
	while (pages && !joins(queue, address, pages)) {
		uint32_t n = MIN(pages, QUEUE_RUN);

		if (queue->head - queue->tail == queue->capacity && !grow(queue)) {
			if (!queue->capacity)
				return;
			queue->pages -= length(*at(queue, queue->tail++));
		}
		*at(queue, queue->head++) = address | (n - 1);
		queue->pages += n;
		address += pages_to_bytes(n);
		pages -= n;
	}
}

uint64_t queue_peek(const struct queue *queue, uint32_t runs)
{
	uint64_t pages = 0;

	for (uint32_t i = queue->tail; i != queue->head && runs; i++, runs--)
		pages += length(*at(queue, i));
	return pages;
}

uint32_t queue_take(struct queue *queue, uint32_t max, uint64_t *ret_address)
{
	uint64_t *run;
	uint32_t n;

	if (queue->head == queue->tail)
		return 0;
	run = at(queue, queue->tail);
	n = MIN(length(*run), max);
	*ret_address = *run & ~LOW_BITS;
	if (n < length(*run))
		*run = (*ret_address + pages_to_bytes(n)) | (length(*run) - n - 1);
	else
		queue->tail++;
	queue->pages -= n;
	return n;
}
