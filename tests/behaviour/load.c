/* Programs that lean on the limit; the driver measures from outside. */
#include "behave.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A word in each page is written, as fast as that goes. */
static void touch(const struct area *a)
{
	for (size_t i = 0; i < a->pages; i++)
		((volatile uint64_t *)page_at(a, i))[i % WORDS] = a->salt + i + 1;
}

static void touch_check(const struct area *a)
{
	for (size_t i = 0; i < a->pages; i++) {
		const uint64_t *p = page_at(a, i);

		for (size_t w = 0; w < WORDS; w++)
			if (p[w] != (w == i % WORDS ? a->salt + i + 1 : 0))
				wrong("WRONG BYTES at %p, word %zu: found %#lx", (const void *)p, w,
				      p[w]);
	}
}

static void allocate_fast(void)
{
	size_t chunk = 4 * MIB / PAGE, n = mebibytes / 4;
	struct area *areas = calloc(n, sizeof *areas);

	for (size_t i = 0; i < n; i++) {
		areas[i] = area_map(chunk, 1 + i * 100000);
		touch(&areas[i]);
	}
	for (size_t i = 0; i < n; i++)
		touch_check(&areas[i]);
	free(areas);
}

static void *allocate_part(void *data)
{
	struct area *a = data;

	*a = area_map(a->pages, a->salt);
	touch(a);
	touch_check(a);
	return NULL;
}

static void allocate_threads(void)
{
	struct area areas[8];
	pthread_t ids[8];

	for (size_t i = 0; i < 8; i++) {
		areas[i] = (struct area){.pages = mebibytes * MIB / PAGE / 8, .salt = i * 1000000};
		must(pthread_create(&ids[i], NULL, allocate_part, &areas[i]) == 0);
	}
	for (size_t i = 0; i < 8; i++) {
		pthread_join(ids[i], NULL);
		touch_check(&areas[i]);
	}
}

/* 16 threads on plain malloc: sizes from bytes to hundreds of KiB, every block checked. */
static void *malloc_worker(void *data)
{
	enum { BLOCKS = 400 };
	static __thread struct {
		unsigned char *p;
		size_t n;
		unsigned char c;
	} blocks[BLOCKS];
	uint64_t x = (uint64_t)data * 2654435761u + 1;
	size_t total = 0, most = mebibytes * MIB / 16;

	for (int round = 0; round < 20000; round++) {
		size_t i;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		i = (x >> 33) % BLOCKS;
		for (size_t k = 0; blocks[i].p && k < blocks[i].n; k++)
			if (blocks[i].p[k] != blocks[i].c)
				wrong("malloc block %p, byte %zu: %#x, not %#x",
				      (void *)blocks[i].p, k, blocks[i].p[k], blocks[i].c);
		free(blocks[i].p);
		total -= blocks[i].n;
		blocks[i].n = (x >> 20) % 64 == 0 ? (x >> 40) % 262144 : (x >> 40) % 16384;
		if (total + blocks[i].n > most)
			blocks[i].n = 16;
		blocks[i].p = malloc(blocks[i].n + 1);
		must(blocks[i].p);
		blocks[i].c = (unsigned char)x;
		memset(blocks[i].p, blocks[i].c, blocks[i].n);
		total += blocks[i].n;
	}
	for (size_t i = 0; i < BLOCKS; i++)
		free(blocks[i].p);
	return NULL;
}

static void malloc_threads(void)
{
	pthread_t ids[16];

	for (size_t i = 0; i < 16; i++)
		must(pthread_create(&ids[i], NULL, malloc_worker, (void *)(i + 1)) == 0);
	for (size_t i = 0; i < 16; i++)
		pthread_join(ids[i], NULL);
}

/* Works for BEHAVE_SECONDS (default 5), so that the driver can change limits or kill things. */
static void busy(void)
{
	const char *text = getenv("BEHAVE_SECONDS");
	double end = now() + (text ? atof(text) : 5);
	struct area a = area_start();

	printf("ready\n");
	while (now() < end) {
		area_check(&a);
		area_refill(&a, a.salt + 1);
	}
	area_check(&a);
}

/* The same with a child. */
static void busy_family(void)
{
	struct area a = area_start();
	pid_t pid = fork();

	must(pid >= 0);
	if (pid == 0) {
		area_refill(&a, 12);
		busy();
		area_check(&a);
		_exit(0);
	}
	busy();
	area_check(&a);
	await(pid);
}

/* All memory is given back, and the program idles: what is left should be small. */
static void idle(void)
{
	struct area a = area_start();

	must(munmap(a.at, a.pages * PAGE) == 0);
	printf("ready\n");
	sleep(1);
}

const struct behaviour load_behaviours[] = {
	{"allocate-fast", allocate_fast},
	{"allocate-threads", allocate_threads},
	{"malloc-threads", malloc_threads},
	{"busy", busy},
	{"busy-family", busy_family},
	{"idle", idle},
	{0},
};
