/*
 * A program of which snapshots are taken: snapper MODE MIB [SECONDS].
 *
 * It prints "region ADDRESS PAGES", "ready", works for so many seconds or until SIGTERM, checks its own
 * bytes, and prints "ok". Page i of generation g is filled with the word i + 1 | g << 40;
 * what can be said of a snapshot is in test_snapshots.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE    4096ull
#define WORDS   (PAGE / 8)
#define THREADS 4
#define BLOCK   16 /* pages */

static uint64_t *region;
static uint64_t n_pages;
static double ends_at;
static volatile sig_atomic_t told;
static _Atomic uint64_t turn;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *map(uint64_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

static void on_signal(int number)
{
	told = number;
}

static bool ended(void)
{
	return told || now() > ends_at;
}

static uint64_t word_of(uint64_t page, uint64_t generation)
{
	return (page + 1) | generation << 40;
}

static void fill(volatile uint64_t *at, uint64_t page, uint64_t generation)
{
	for (unsigned i = 0; i < WORDS; i++)
		at[i] = word_of(page, generation);
}

static void check(const uint64_t *at, uint64_t page, uint64_t generation)
{
	for (unsigned i = 0; i < WORDS; i++) {
		if (at[i] != word_of(page, generation)) {
			fprintf(stderr, "WRONG BYTES: page %llu word %u: %llx, not %llx\n",
				(unsigned long long)page, i, (unsigned long long)at[i],
				(unsigned long long)word_of(page, generation));
			exit(1);
		}
	}
}

static void begin(uint64_t pages)
{
	n_pages = pages;
	region = map(pages * PAGE);
	for (uint64_t i = 0; i < pages; i++)
		fill(region + i * WORDS, i, 0);
}

static void ready(void)
{
	printf("region %llu %llu\nready\n", (unsigned long long)(uintptr_t)region,
	       (unsigned long long)n_pages);
	fflush(stdout);
}

/* ---- order: threads take turns, page after page; each writes what the one before has not ---- */

static void *order_thread(void *argument)
{
	uint64_t me = (uintptr_t)argument;

	for (uint64_t n = me;; n += THREADS) {
		while (atomic_load(&turn) != n)
			if (atomic_load(&turn) == UINT64_MAX)
				return NULL;
			else
				sched_yield();
		if (n % n_pages < THREADS && ended()) {
			atomic_store(&turn, UINT64_MAX);
			return (void *)(uintptr_t)n;
		}
		fill(region + n % n_pages * WORDS, n % n_pages, n / n_pages + 1);
		atomic_store(&turn, n + 1);
	}
}

static void order(void)
{
	pthread_t threads[THREADS];
	uint64_t written = 0;

	ready();
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, order_thread, (void *)i);
	for (unsigned i = 0; i < THREADS; i++) {
		void *last;

		pthread_join(threads[i], &last);
		written += (uintptr_t)last;
	}
	for (uint64_t i = 0; i < n_pages; i++)
		check(region + i * WORDS, i, written / n_pages + (i < written % n_pages));
}

/* ---- slices: each thread writes its own pages, as fast as it can ---- */

static void *slice_thread(void *argument)
{
	uint64_t me = (uintptr_t)argument, n = n_pages / THREADS, generation = 0;
	uint64_t *mine = region + me * n * WORDS;

	while (!ended()) {
		generation++;
		for (uint64_t i = 0; i < n; i++)
			fill(mine + i * WORDS, me * n + i, generation);
	}
	for (uint64_t i = 0; i < n; i++)
		check(mine + i * WORDS, me * n + i, generation);
	return NULL;
}

static void slices(void)
{
	pthread_t threads[THREADS];

	ready();
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, slice_thread, (void *)i);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* ---- forks: one writer, and children that write to what they share ---- */

static void forks(void)
{
	uint64_t generation = 0;

	ready();
	while (!ended()) {
		pid_t child = fork();

		if (child == 0) {
			for (uint64_t i = 0; i < n_pages; i += 3)
				region[i * WORDS + 1] = ~0ull;
			_exit(0);
		}
		generation++;
		for (uint64_t i = 0; i < n_pages; i++)
			fill(region + i * WORDS, i, generation);
		if (child > 0)
			waitpid(child, NULL, 0);
	}
	for (uint64_t i = 0; i < n_pages; i++)
		check(region + i * WORDS, i, generation);
}

/* ---- child: of the two, the child writes ---- */

static void child(void)
{
	pid_t pid = fork();
	uint64_t generation = 0;

	if (pid)
		ready();
	while (!ended()) {
		generation += !pid;
		for (uint64_t i = 0; i < n_pages && !pid; i++)
			fill(region + i * WORDS, i, generation);
		if (pid)
			usleep(10000);
	}
	for (uint64_t i = 0; i < n_pages; i++)
		check(region + i * WORDS, i, generation);
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

/* ---- still: memory of every kind, and nobody writes ---- */

static void still(void)
{
	for (uint64_t i = 0; i < n_pages; i++) {
		if (i % 7 == 3) /* never there */
			madvise(region + i * WORDS, PAGE, MADV_DONTNEED);
		else if (i % 7 == 4) /* same-filled */
			memset(region + i * WORDS, 0x5a, PAGE);
		else if (i % 7 == 5) /* memory, but zeros */
			memset(region + i * WORDS, 0, PAGE);
	}
	mprotect(region, 64 * PAGE, PROT_READ);
	mprotect(region + 64 * WORDS, 64 * PAGE, PROT_NONE);
	ready();
	while (!ended())
		usleep(10000);
	for (uint64_t i = 128; i < n_pages; i++)
		if (i % 7 < 3)
			check(region + i * WORDS, i, 0);
}

/* ---- moves: blocks change places by mremap; each exists once at any time ---- */

static void moves(void)
{
	uint64_t n = n_pages / BLOCK, **places = malloc(n * sizeof(*places)), seed = 1;

	for (uint64_t i = 0; i < n; i++)
		places[i] = region + i * BLOCK * WORDS;
	ready();
	while (!ended()) {
		uint64_t i = (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33;
		uint64_t *to = map(BLOCK * PAGE);

		i %= n;
		if (mremap(places[i], BLOCK * PAGE, BLOCK * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
		    MAP_FAILED) {
			if (errno != EFAULT) /* the one known difference */
				die("mremap");
			munmap(to, BLOCK * PAGE);
			continue;
		}
		places[i] = to;
	}
	for (uint64_t i = 0; i < n; i++)
		for (uint64_t k = 0; k < BLOCK; k++)
			check(places[i] + k * WORDS, i * BLOCK + k, 0);
}

/* ---- discards: even blocks come and go, odd ones stay ---- */

static void discards(void)
{
	uint64_t n = n_pages / BLOCK;

	ready();
	for (uint64_t round = 0; !ended(); round++)
		for (uint64_t i = 0; i < n; i += 2) {
			uint64_t *at = region + i * BLOCK * WORDS;

			if (round % 2)
				for (uint64_t k = 0; k < BLOCK; k++)
					fill(at + k * WORDS, i * BLOCK + k, 0);
			else if (i % 4)
				madvise(at, BLOCK * PAGE, MADV_DONTNEED);
			else if (munmap(at, BLOCK * PAGE) < 0 ||
				 mmap(at, BLOCK * PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
				die("mmap");
		}
	for (uint64_t i = 1; i < n; i += 2)
		for (uint64_t k = 0; k < BLOCK; k++)
			check(region + (i * BLOCK + k) * WORDS, i * BLOCK + k, 0);
}

/* ---- maps: new memory all the time, with events all the time; the region is in order ---- */

static void *maps_thread(void *argument)
{
	(void)argument;
	while (!ended()) {
		char *at = map(64 * PAGE);

		for (unsigned i = 0; i < 64; i += 8)
			at[i * PAGE] = 1;
		munmap(at, 64 * PAGE);
	}
	return NULL;
}

static void maps(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, maps_thread, NULL);
	slices();
	pthread_join(thread, NULL);
}

static const struct mode {
	const char *name;
	void (*run)(void);
} modes[] = {{"order", order}, {"slices", slices}, {"forks", forks},	   {"still", still},
	     {"moves", moves}, {"maps", maps},	   {"discards", discards},
	     {"child", child}};

int main(int argc, char **argv)
{
	if (argc < 3) {
		for (unsigned i = 0; i < sizeof(modes) / sizeof(*modes); i++)
			printf("%s\n", modes[i].name);
		return 0;
	}
	signal(SIGTERM, on_signal);
	begin(strtoull(argv[2], NULL, 10) << 8);
	ends_at = now() + (argc > 3 ? strtod(argv[3], NULL) : 3600);
	for (unsigned i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		if (strcmp(modes[i].name, argv[1]))
			continue;
		modes[i].run();
		printf("ok %s\n", argv[1]);
		return 0;
	}
	return 2;
}
