/*
 * Sixteen threads on plain malloc: allocate, grow, shrink and free blocks of 16 bytes to 2 MiB,
 * pass some of them to the next thread to free, and check every block's contents whenever it is
 * looked at. What it prints depends on the seed alone, not on the threads' order.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 16
#define BLOCKS	600
#define ROUNDS	9000
#define PASSED	64

struct block {
	uint64_t *data;
	size_t words;
	uint64_t seed;
};

/* Blocks that one thread leaves to the next: freed in an arena they do not come from. */
struct mailbox {
	pthread_mutex_t lock;
	struct block block[PASSED];
	size_t n;
};

struct worker {
	pthread_t thread;
	struct mailbox mailbox;
	struct worker *next;
	struct block block[BLOCKS];
	uint64_t random;
	uint64_t sum; /* of all that was read; independent of who frees a passed block */
	uint64_t wrong;
};

static struct worker workers[THREADS];

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t draw(struct worker *worker, uint64_t n)
{
	worker->random = mix(worker->random);
	return (uint64_t)(((unsigned __int128)worker->random * n) >> 64);
}

static void *checked(void *pointer)
{
	if (!pointer) {
		fputs("malloc16: out of memory\n", stderr);
		exit(2);
	}
	return pointer;
}

/* Mostly small, some of pages, few beyond the threshold where malloc maps. */
static size_t draw_words(struct worker *worker)
{
	uint64_t kind = draw(worker, 100);

	if (kind < 60)
		return 2 + draw(worker, 200);
	if (kind < 95)
		return 512 + draw(worker, 4096);
	return 16384 + draw(worker, 65536);
}

static void block_fill(struct block *block, size_t from)
{
	for (size_t i = from; i < block->words; i++)
		block->data[i] = block->seed + i;
}

static void block_check(struct worker *worker, const struct block *block)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < block->words; i++) {
		worker->wrong += block->data[i] != block->seed + i;
		sum += block->data[i];
	}
	/* Added, not mixed in order: a mailbox is emptied at no set time. */
	__atomic_fetch_add(&workers[0].sum, mix(sum), __ATOMIC_RELAXED);
}

static void block_new(struct worker *worker, struct block *block)
{
	block->words = draw_words(worker);
	block->seed = worker->random;
	if (draw(worker, 8) == 0)
		block->data = checked(calloc(block->words, sizeof(*block->data)));
	else
		block->data = checked(malloc(block->words * sizeof(*block->data)));
	block_fill(block, 0);
}

static void block_resize(struct worker *worker, struct block *block)
{
	size_t had = block->words;

	block->words = draw_words(worker);
	block->data = checked(realloc(block->data, block->words * sizeof(*block->data)));
	if (block->words > had)
		block_fill(block, had);
}

static void block_end(struct worker *worker, struct block *block)
{
	block_check(worker, block);
	free(block->data);
	*block = (struct block){0};
}

static bool pass_on(struct worker *worker, struct block *block)
{
	struct mailbox *mailbox = &worker->next->mailbox;
	bool room;

	pthread_mutex_lock(&mailbox->lock);
	room = mailbox->n < PASSED;
	if (room)
		mailbox->block[mailbox->n++] = *block;
	pthread_mutex_unlock(&mailbox->lock);
	if (room)
		*block = (struct block){0};
	return room;
}

static void empty_mailbox(struct worker *worker)
{
	struct block block[PASSED];
	size_t n;

	pthread_mutex_lock(&worker->mailbox.lock);
	n = worker->mailbox.n;
	memcpy(block, worker->mailbox.block, n * sizeof(*block));
	worker->mailbox.n = 0;
	pthread_mutex_unlock(&worker->mailbox.lock);
	for (size_t i = 0; i < n; i++)
		block_end(worker, &block[i]);
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	for (int round = 0; round < ROUNDS; round++) {
		struct block *block = &worker->block[draw(worker, BLOCKS)];
		uint64_t what = draw(worker, 100);

		if (!block->data) {
			block_new(worker, block);
		} else if (what < 40) {
			block_check(worker, block);
		} else if (what < 75) {
			block_resize(worker, block);
		} else if (what < 85 || !pass_on(worker, block)) {
			block_end(worker, block);
		}
		if (round % 50 == 0)
			empty_mailbox(worker);
	}
	for (size_t i = 0; i < BLOCKS; i++)
		if (worker->block[i].data)
			block_end(worker, &worker->block[i]);
	return NULL;
}

int main(void)
{
	uint64_t wrong = 0;

	for (size_t i = 0; i < THREADS; i++) {
		workers[i].random = i + 1;
		workers[i].next = &workers[(i + 1) % THREADS];
		pthread_mutex_init(&workers[i].mailbox.lock, NULL);
	}
	for (size_t i = 0; i < THREADS; i++) {
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) {
			fputs("malloc16: cannot start a thread\n", stderr);
			return 2;
		}
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (size_t i = 0; i < THREADS; i++) {
		empty_mailbox(&workers[i]);
		wrong += workers[i].wrong;
	}
	printf("sum %016" PRIx64 ", wrong %" PRIu64 "\n", workers[0].sum, wrong);
	return wrong != 0;
}
