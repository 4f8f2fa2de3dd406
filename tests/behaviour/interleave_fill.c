/* Swap is slow: a page is being read while its range is discarded, unmapped, moved or forked. */
#include "interleave.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGES 2048ul
#define STEP  256ul /* between the pages that are touched: beyond readahead */
#define N     (PAGES / STEP)
#define SALT  1000

static char *at;
static struct op touches[N];
static unsigned overlapped;

/* Threads touch pages of which each takes long to come; returns while they are under way. */
static void begin(void)
{
	at = map(PAGES);
	fill(at, PAGES, SALT);
	push_out(at, PAGES);
	sleep_ms(100); /* what is on its way to swap arrives there */
	for (unsigned i = 0; i < N; i++) {
		touches[i].run = op_touch;
		touches[i].a = at + (i * STEP + 7) * PAGE;
		atomic_store(&touches[i].done, false);
	}
	ops_prepare(touches, N);
	ops_go();
	sleep_ms(8);
	for (unsigned i = 0; i < N; i++)
		overlapped += !atomic_load(&touches[i].done);
}

static void end(size_t pages)
{
	ops_join(touches, N);
	for (unsigned i = 0; i < N; i++) {
		fill(at + i * STEP * PAGE, 16, 400000);
		check(at + i * STEP * PAGE, 16, 400000);
	}
	must(munmap(at, pages * PAGE) == 0);
	printf("overlapped %u\n", overlapped);
}

static void discard(void)
{
	begin();
	must(madvise(at, PAGES * PAGE, MADV_DONTNEED) == 0);
	check(at, PAGES, 0);
	fill(at, PAGES / 2, 50000);
	sleep_ms(100); /* the reads have ended: they must not bring old bytes */
	check(at, PAGES / 2, 50000);
	check(at + PAGES / 2 * PAGE, PAGES / 2, 0);
	end(PAGES);
}

static void discard_one(void)
{
	begin();
	for (unsigned i = 0; i < N; i++)
		must(madvise(touches[i].a, PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < N; i++)
		check(touches[i].a, 1, 0);
	sleep_ms(100);
	for (unsigned i = 0; i < N; i++) {
		check(touches[i].a, 1, 0);
		check(touches[i].a + PAGE, 16, SALT + i * STEP + 8);
		check(touches[i].a - PAGE, 1, SALT + i * STEP + 6);
	}
	end(PAGES);
}

static void unmap_map(void)
{
	begin();
	/* One call: a touch that is woken must find a mapping. */
	must(mmap(at, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		  -1, 0) == at);
	check(at, PAGES, 0);
	fill(at, PAGES, 50000);
	sleep_ms(100);
	check(at, PAGES, 50000);
	end(PAGES);
}

static void unmap_then_map(void)
{
	begin();
	must(munmap(at, PAGES * PAGE) == 0);
	map_at(at, PAGES);
	fill(at, PAGES / 4, 50000);
	sleep_ms(100);
	check(at, PAGES / 4, 50000);
	check(at + PAGES / 4 * PAGE, PAGES - PAGES / 4, 0);
	end(PAGES);
}

static void remap(void)
{
	char *to = map(PAGES);

	begin();
	must(mremap(at, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	map_at(at, PAGES);
	fill(at, PAGES / 4, 50000);
	check(to, PAGES, SALT);
	sleep_ms(100);
	check(to, PAGES, SALT);
	check(at, PAGES / 4, 50000);
	check(at + PAGES / 4 * PAGE, PAGES - PAGES / 4, 0);
	end(PAGES);
	must(munmap(to, PAGES * PAGE) == 0);
}

static void remap_dontunmap(void)
{
	char *to;

	begin();
	to = mremap(at, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	must(to != MAP_FAILED);
	check(at, 1024, 0);
	check(to, PAGES, SALT);
	sleep_ms(100);
	check(at, PAGES, 0);
	check(to, PAGES, SALT);
	end(PAGES);
	must(munmap(to, PAGES * PAGE) == 0);
}

static void fork_during(void)
{
	pid_t pid;

	begin();
	pid = fork_check(at, PAGES, SALT, false);
	check(at, PAGES, SALT);
	await(pid);
	end(PAGES);
}

static void fork_discard(void)
{
	pid_t pid;

	begin();
	pid = fork_check(at, PAGES, SALT, false);
	must(madvise(at, PAGES * PAGE, MADV_DONTNEED) == 0);
	check(at, PAGES, 0);
	await(pid);
	end(PAGES);
}

const struct interleaving fill_interleavings[] = {
    {"fill-discard", discard},
    {"fill-discard-one", discard_one},
    {"fill-unmap", unmap_map},
    {"fill-unmap-map", unmap_then_map},
    {"fill-remap", remap},
    {"fill-dontunmap", remap_dontunmap},
    {"fill-fork", fork_during},
    {"fill-fork-discard", fork_discard},
    {NULL, NULL},
};
