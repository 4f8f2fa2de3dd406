/*
 * Files: everything at once. Each thread has a part of the file to itself, knows what every page of
 * it holds, and does at random what programs do; pages of all threads meet in image_memory, in
 * reads and in write-back. $FILES_SECONDS is how long, $FILES_SEED repeats it (as far as threads
 * allow).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "files.h"

#define THREADS 4

struct part {
	size_t first, n; /* pages */
	uint64_t *salts; /* shared with children */
	char *shared, *private;
	uint64_t seed;
};

static time_t end;
static _Atomic size_t operations;

static size_t dice(struct part *p, size_t n)
{
	p->seed = p->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (size_t)(p->seed >> 33) % n;
}

static void op_check(struct part *p)
{
	size_t from = dice(p, p->n), n = 1 + dice(p, 40);
	const char *at = dice(p, 2) ? p->shared : p->private;

	for (size_t i = from; i < from + n && i < p->n; i++)
		page_check(at + i * PAGE, p->salts[i]);
}

static void op_write(struct part *p)
{
	size_t from = dice(p, p->n), n = 1 + dice(p, 8);

	for (size_t i = from; i < from + n && i < p->n; i++) {
		p->salts[i] = p->seed + i;
		page_fill(p->shared + i * PAGE, p->salts[i]);
	}
}

static void op_sync(struct part *p)
{
	size_t from = dice(p, p->n), n = 1 + dice(p, p->n - from);

	ok(upager_sync(pager, p->shared + from * PAGE, n * PAGE), "upager_sync");
	for (size_t i = from; i < from + n; i++)
		check_file(p->first + i, p->salts[i]);
}

static void op_map_anew(struct part *p)
{
	ok(upager_unmap(pager, p->shared, p->n * PAGE), "upager_unmap");
	p->shared = map_part(UPAGER_SHARED, PROT_READ | PROT_WRITE, p->first, p->n,
			     dice(p, 2) ? 16 * PAGE : 0);
}

static void op_move(struct part *p)
{
	char **at = dice(p, 2) ? &p->shared : &p->private;
	void *to = mmap(NULL, p->n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(to != MAP_FAILED);
	must(mremap(*at, p->n * PAGE, p->n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	*at = to;
}

/* Copies of a private mapping, given back. */
static void op_copy(struct part *p)
{
	size_t i = dice(p, p->n);

	page_fill(p->private + i * PAGE, 12345);
	page_check(p->private + i * PAGE, 12345);
	ok(upager_advise(pager, p->private + i * PAGE, PAGE, UPAGER_DONTNEED), "DONTNEED");
	page_check(p->private + i * PAGE, p->salts[i]);
}

static void op_advise(struct part *p)
{
	static const enum upager_advice advice[] = {UPAGER_COLD, UPAGER_WILLNEED, UPAGER_RANDOM,
						    UPAGER_SEQUENTIAL, UPAGER_NORMAL};
	size_t from = dice(p, p->n), n = 1 + dice(p, MIB / PAGE);
	size_t which = dice(p, sizeof advice / sizeof *advice);

	n = n < p->n - from ? n : p->n - from;
	ok(upager_advise(pager, p->private + from * PAGE, n * PAGE, advice[which]), "advice");
}

static void op_fork(struct part *p)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		for (unsigned i = 0; i < 20; i++) {
			op_check(p);
			op_write(p);
		}
		op_move(p);
		op_check(p);
		_exit(0);
	}
	await(pid);
}

static void *storm_thread(void *argument)
{
	static void (*const ops[])(struct part *) = {
		op_check, op_check, op_check, op_check, op_check, op_check, op_write, op_write,
		op_write, op_write, op_sync,  op_move,  op_copy,  op_copy,  op_advise};
	struct part *p = argument;

	while (time(NULL) < end) {
		size_t which = dice(p, 1000);

		if (which == 0)
			op_fork(p);
		else if (which < 10)
			op_map_anew(p);
		else
			ops[which % (sizeof ops / sizeof *ops)](p);
		atomic_fetch_add(&operations, 1);
	}
	return NULL;
}

static void storm(void)
{
	const char *seconds = getenv("FILES_SECONDS"), *seed = getenv("FILES_SEED");
	struct part parts[THREADS];
	pthread_t threads[THREADS];
	uint64_t *salts = mmap(NULL, pages() * sizeof(*salts), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(salts != MAP_FAILED);
	end = time(NULL) + (seconds ? atoi(seconds) : 5);
	for (size_t k = 0; k < THREADS; k++) {
		size_t n = pages() / THREADS;

		parts[k] = (struct part){.first = k * n, .n = n, .salts = salts + k * n};
		parts[k].seed = (seed ? strtoul(seed, NULL, 10) : 1) * THREADS + k;
		parts[k].shared = map_part(UPAGER_SHARED, PROT_READ | PROT_WRITE, k * n, n, 0);
		parts[k].private = map_part(UPAGER_PRIVATE, PROT_READ | PROT_WRITE, k * n, n, 0);
		for (size_t i = 0; i < n; i++)
			parts[k].salts[i] = SALT + k * n + i;
	}
	for (size_t k = 0; k < THREADS; k++)
		must(pthread_create(&threads[k], NULL, storm_thread, &parts[k]) == 0);
	for (size_t k = 0; k < THREADS; k++)
		must(pthread_join(threads[k], NULL) == 0);
	for (size_t k = 0; k < THREADS; k++)
		for (size_t i = 0; i < parts[k].n; i++)
			page_check(parts[k].shared + i * PAGE, parts[k].salts[i]);
	printf("%zu operations\n", operations);
}

const struct behaviour storm_files[] = {{"storm", storm}, {NULL, NULL}};
