/* Files: the address space changes, memory is short, the program dies. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"

#define DELAY_US 200000 /* image_delay_us of mapped_again_while_read */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

/* ---- address space ---- */

static void fork_child(char *at)
{
	check_all(at, SALT);
	check_all(at + pages() * PAGE, 3);
	page_fill(at, 99);
	page_fill(at + pages() * PAGE, 99);
}

static void fork_keeps_mappings(void)
{
	char *private, *shared, *both;
	size_t size = pages() * PAGE;

	both = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	private = map_whole(UPAGER_PRIVATE);
	check_all(private, SALT);
	shared = map_whole(UPAGER_SHARED);
	for (size_t i = 0; i < pages() / 2; i++)
		page_fill(shared + i * PAGE, 3 + i);
	/* Side by side, and moved: the child finds them where they are now. */
	must(mremap(private, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, both) == both);
	must(mremap(shared, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, both + size) == both + size);
	for (size_t i = pages() / 2; i < pages(); i++)
		page_fill(both + size + i * PAGE, 3 + i);
	/* The private mapping sees the file, which has changed where it is not a copy. */
	for (size_t i = 0; i < pages(); i++)
		page_fill(both + i * PAGE, SALT + i);
	for (unsigned i = 0; i < 3; i++) {
		in_child(fork_child, both);
		page_check(both, SALT);
		page_check(both + size, 99);
		page_fill(both + size, 3);
	}
}

static void mremap_moves_and_grows(void)
{
	size_t half = pages() / 2;
	char *at = map_part(UPAGER_SHARED, PROT_READ | PROT_WRITE, 0, half, 0), *moved;

	for (size_t i = 0; i < half; i += 2)
		page_fill(at + i * PAGE, 3 + i);
	moved = mremap(at, half * PAGE, pages() * PAGE, MREMAP_MAYMOVE);
	must(moved != MAP_FAILED);
	for (size_t i = 0; i < pages(); i++)
		page_check(moved + i * PAGE, i < half && i % 2 == 0 ? 3 + i : SALT + i);
	for (size_t i = 0; i < pages(); i++)
		page_fill(moved + i * PAGE, 5 + i);
	ok(upager_sync(pager, moved, pages() * PAGE), "upager_sync");
	for (size_t i = 0; i < pages(); i++)
		check_file(i, 5 + i);
	/* What was mapped writable before the sync must not be so any more. */
	for (size_t i = 0; i < pages(); i++)
		page_fill(moved + i * PAGE, 17 + i);
	ok(upager_sync(pager, moved, pages() * PAGE), "upager_sync");
	for (size_t i = 0; i < pages(); i++)
		check_file(i, 17 + i);
}

static void munmap_of_a_part(void)
{
	char *at = map_whole(UPAGER_SHARED);
	size_t third = pages() / 3;

	for (size_t i = 0; i < pages(); i++)
		page_fill(at + i * PAGE, 3 + i);
	ok(upager_unmap(pager, at + third * PAGE, third * PAGE), "upager_unmap");
	for (size_t i = 0; i < pages(); i++)
		if (i < third || i >= 2 * third) {
			page_check(at + i * PAGE, 3 + i);
			page_fill(at + i * PAGE, 5 + i);
		}
	/* Anonymous memory where the file was. */
	must(mmap(at + third * PAGE, third * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	for (size_t i = third; i < 2 * third; i++) {
		must(!at[i * PAGE]);
		page_fill(at + i * PAGE, 1);
	}
	ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
	/* What was unmapped is written some time: at the latest when nobody maps it any more. */
	ok(upager_sync(pager, map_whole(UPAGER_SHARED), pages() * PAGE), "upager_sync");
	for (size_t i = 0; i < pages(); i++)
		check_file(i, i < third || i >= 2 * third ? 5 + i : 3 + i);
}

static void truncated_under_a_mapping(void)
{
	char *at = map_whole(UPAGER_SHARED);
	size_t half = pages() / 2;

	page_fill(at, 3);
	page_fill(at + (pages() - 1) * PAGE, 3);
	must(ftruncate(file, (off_t)(half * PAGE)) == 0);
	ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
	must(lseek(file, 0, SEEK_END) == (off_t)(half * PAGE));
	check_file(0, 3);
	if (!bus_at(at + (pages() - 1) * PAGE) || !bus_at(at + half * PAGE))
		wrong("no SIGBUS past the new end");
	page_check(at + (half - 1) * PAGE, SALT + half - 1);
}

/* ---- image_memory ---- */

static void smaller_than_the_file(void)
{
	char *shared = map_whole(UPAGER_SHARED), *private = map_whole(UPAGER_PRIVATE);
	uint64_t *salts = calloc(pages(), sizeof(*salts)), seed = 1;

	for (size_t i = 0; i < pages(); i++)
		salts[i] = SALT + i;
	check_all(private, SALT);
	check_all(shared, SALT);
	for (size_t i = 0; i < pages() * 2; i++) {
		size_t page;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		page = (seed >> 33) % pages();
		page_check((i & 1 ? private : shared) + page * PAGE, salts[page]);
		if (i % 3 == 0) {
			salts[page] = seed;
			page_fill(shared + page * PAGE, seed);
		}
	}
	for (size_t i = 0; i < pages(); i++)
		page_check(private + i * PAGE, salts[i]);
	ok(upager_sync(pager, shared, pages() * PAGE), "upager_sync");
	for (size_t i = 0; i < pages(); i++)
		check_file(i, salts[i]);
	if (figures().image_resident > figures().image_limit)
		wrong("images hold %lu bytes of %lu", figures().image_resident,
		      figures().image_limit);
}

static void advice(void)
{
	char *at = map_whole(UPAGER_PRIVATE);
	size_t size = pages() * PAGE;
	void *anonymous;

	ok(upager_advise(pager, at, size, UPAGER_WILLNEED), "WILLNEED");
	must(figures().image_resident == size);
	ok(upager_advise(pager, at, size, UPAGER_COLD), "COLD");
	must(figures().image_resident == 0);
	ok(upager_advise(pager, at, size, UPAGER_RANDOM), "RANDOM");
	page_check(at, SALT);
	must(figures().image_resident == PAGE);
	ok(upager_advise(pager, at, size, UPAGER_SEQUENTIAL), "SEQUENTIAL");
	page_check(at + 100 * PAGE, SALT + 100);
	must(figures().image_resident > 64 * PAGE);
	page_fill(at, 3);
	ok(upager_advise(pager, at, size, UPAGER_DONTNEED), "DONTNEED");
	check_all(at, SALT);
	ok(upager_map_anon(pager, size, &anonymous), "upager_map_anon");
	memset(anonymous, 1, size);
	ok(upager_advise(pager, anonymous, size, UPAGER_COLD), "COLD");
	must(upager_advise(pager, anonymous, size, UPAGER_RANDOM) == -EINVAL);
	must(upager_sync(pager, anonymous, size) == -ENOMEM);
	ok(upager_unmap(pager, anonymous, size), "upager_unmap");
}

/* mremap tells the daemon of moves, not of growth: it is asked for, and is like the rest. */
static void advice_after_growth(void)
{
	size_t half = pages() / 2;
	char *at = map_part(UPAGER_PRIVATE, PROT_READ | PROT_WRITE, 0, half, 0);

	at = mremap(at, half * PAGE, (pages() - 1) * PAGE, MREMAP_MAYMOVE);
	must(at != MAP_FAILED);
	ok(upager_advise(pager, at + half * PAGE, PAGE, UPAGER_SEQUENTIAL), "SEQUENTIAL");
	page_check(at + half * PAGE, SALT + half);
	must(figures().image_resident > 64 * PAGE);
	ok(upager_advise(pager, at, pages() * PAGE, UPAGER_COLD), "COLD");
	at = mremap(at, (pages() - 1) * PAGE, pages() * PAGE, MREMAP_MAYMOVE);
	must(at != MAP_FAILED);
	ok(upager_advise(pager, at + (pages() - 1) * PAGE, PAGE, UPAGER_RANDOM), "RANDOM");
	page_check(at + half * PAGE, SALT + half);
	must(figures().image_resident > 64 * PAGE);
}

/* One that was opened for reading only is private inside: its sync writes what others have stored. */
static void sync_of_a_reader(void)
{
	int read_only = open(getenv("FILES_PATH"), O_RDONLY | O_CLOEXEC);
	char *writer = map_whole(UPAGER_SHARED);
	void *reader;

	ok(upager_map_file(pager, read_only, 0, 2 * PAGE, UPAGER_SHARED, PROT_READ, 0, &reader), "map");
	page_fill(writer + PAGE, 3);
	page_check((char *)reader + PAGE, 3);
	ok(upager_sync(pager, reader, 2 * PAGE), "upager_sync");
	check_file(1, 3);
}

static bool is_guard(const char *at)
{
	int ends[2];
	bool refused;

	must(pipe(ends) == 0);
	refused = write(ends[1], at, 1) < 0 && errno == EFAULT;
	close(ends[0]);
	close(ends[1]);
	return refused;
}

/* Neither what is read ahead nor what is there already, and mapped with what is touched, comes where
 * a guard is. */
static void guards_stay(void)
{
	char *at = map_whole(UPAGER_PRIVATE), *other = map_whole(UPAGER_SHARED);

	for (size_t i = 5; i < pages(); i += 10)
		if (madvise(at + i * PAGE, PAGE, MADV_GUARD_INSTALL) ||
		    madvise(other + i * PAGE, PAGE, MADV_GUARD_INSTALL)) {
			must(errno == EINVAL);
			fprintf(stderr, "no guards in files before Linux 6.15\n");
			_exit(77);
		}
	for (size_t i = 0; i < pages(); i++)
		if (i % 10 != 5)
			page_check(at + i * PAGE, SALT + i);
	for (size_t i = 0; i < pages(); i++)
		if (i % 10 != 5)
			page_check(other + i * PAGE, SALT + i);
	for (size_t i = 5; i < pages(); i += 10) {
		must(is_guard(at + i * PAGE) && is_guard(other + i * PAGE));
		must(madvise(at + i * PAGE, PAGE, MADV_GUARD_REMOVE) == 0);
		page_check(at + i * PAGE, SALT + i);
	}
}

/* A limit that upager_open() has set ($FILES_MEMORY). On a busy machine the first look at a program
 * that has just been attached may come late. */
static void limit_holds(void)
{
	size_t n = 2 * strtoul(getenv("FILES_MEMORY"), NULL, 10) / PAGE;
	struct upager_stat stat;
	void *at;

	ok(upager_map_anon(pager, n * PAGE, &at), "upager_map_anon");
	for (size_t i = 0; i < n; i++)
		page_fill((char *)at + i * PAGE, i);
	for (unsigned round = 0; round < 100; round++) {
		for (size_t i = 0; i < n; i++)
			page_check((char *)at + i * PAGE, i);
		stat = figures();
		if (stat.evicted && stat.resident <= stat.limit)
			return;
	}
	wrong("resident %lu, peak %lu, evicted %lu of limit %lu", stat.resident, stat.peak,
	      stat.evicted, stat.limit);
}

/* Written by other ways while nobody maps it: the next mapping sees that. */
static void mapped_again(void)
{
	char page[PAGE], *at;

	for (unsigned round = 0; round < 5; round++) {
		at = map_whole(UPAGER_SHARED);
		page_check(at + PAGE, SALT + 1);
		page_check(at, round ? round : SALT);
		page_fill(at + 2 * PAGE, round);
		ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
		ok(upager_unmap(pager, at, pages() * PAGE), "upager_unmap");
		check_file(2, round);
		page_fill(page, round + 1);
		must(pwrite(file, page, PAGE, 0) == PAGE);
	}
}

static void *will_need(void *at)
{
	madvise(at, PAGE, MADV_POPULATE_READ); /* the page is unmapped before it is there */
	return NULL;
}

/* The same, while a page is still being read for the mapping that was there before. */
static void mapped_again_while_read(void)
{
	char page[PAGE], *at = map_part(UPAGER_PRIVATE, PROT_READ, 0, 1, 0);
	pthread_t thread;

	must(pthread_create(&thread, NULL, will_need, at) == 0);
	usleep(DELAY_US / 4);
	ok(upager_unmap(pager, at, PAGE), "upager_unmap");
	page_fill(page, 3);
	must(pwrite(file, page, PAGE, 0) == PAGE);
	page_check(map_part(UPAGER_PRIVATE, PROT_READ, 0, 1, 0), 3);
	must(pthread_join(thread, NULL) == 0);
}

static void arguments(void)
{
	int read_only = open(getenv("FILES_PATH"), O_RDONLY | O_CLOEXEC), folder = open("/", O_RDONLY | O_CLOEXEC);
	int append = open(getenv("FILES_PATH"), O_RDWR | O_APPEND | O_CLOEXEC), ends[2];
	const int rw = PROT_READ | PROT_WRITE;
	void *at;

	must(pipe(ends) == 0);
	must(upager_map_file(pager, file, 1, PAGE, UPAGER_PRIVATE, rw, 0, &at) == -EINVAL);
	must(upager_map_file(pager, file, 0, 0, UPAGER_PRIVATE, rw, 0, &at) == -EINVAL);
	must(upager_map_file(pager, file, 0, PAGE, 3, rw, 0, &at) == -EINVAL);
	must(upager_map_file(pager, file, 0, PAGE, UPAGER_PRIVATE, rw, 12345, &at) == -EINVAL);
	must(upager_map_file(pager, folder, 0, PAGE, UPAGER_PRIVATE, rw, 0, &at) == -EINVAL);
	must(upager_map_file(pager, ends[0], 0, PAGE, UPAGER_PRIVATE, rw, 0, &at) == -EINVAL);
	must(upager_map_file(pager, append, 0, PAGE, UPAGER_SHARED, rw, 0, &at) == -EINVAL);
	must(upager_map_file(pager, read_only, 0, PAGE, UPAGER_SHARED, rw, 0, &at) == -EACCES);
	ok(upager_map_file(pager, read_only, 0, PAGE, UPAGER_SHARED, PROT_READ, 0, &at), "read-only");
	page_check(at, SALT);
	page_fill(map_whole(UPAGER_SHARED), 3);
	page_check(at, 3);
	must(upager_sync(pager, (void *)PAGE, PAGE) == -ENOMEM);
	must(upager_advise(pager, at, PAGE, (enum upager_advice)77) == -EINVAL);
}

/* ---- what the test does something to ---- */

static void synced(void)
{
	char *at = map_whole(UPAGER_SHARED);

	for (size_t i = 0; i < pages(); i++)
		page_fill(at + i * PAGE, 23 + i);
	ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
	printf("ready\n");
	fflush(stdout);
	pause();
}

static void written(void)
{
	char *at = map_whole(UPAGER_SHARED);

	for (size_t i = 0; i < pages(); i++)
		page_fill(at + i * PAGE, 23 + i);
	printf("ready\n");
	fflush(stdout);
	pause();
}

/* Eight processes with one image, each writes a twentieth of it. */
static void golden(void)
{
	enum { N = 8 };
	int ready[2];
	char byte;

	must(pipe(ready) == 0);
	for (unsigned k = 0; k < N; k++)
		if (fork() == 0) {
			char *at = map_whole(UPAGER_PRIVATE);

			check_all(at, SALT);
			for (size_t i = k; i < pages(); i += 20)
				page_fill(at + i * PAGE, k + i);
			for (size_t i = 0; i < pages(); i++)
				page_check(at + i * PAGE, i % 20 == k ? k + i : SALT + i);
			must(write(ready[1], "x", 1) == 1);
			pause();
		}
	for (unsigned k = 0; k < N; k++)
		must(read(ready[0], &byte, 1) == 1);
	printf("ready\n");
	fflush(stdout);
	pause();
}

const struct behaviour space_files[] = {
#define X(name) {#name, name}
	X(fork_keeps_mappings), X(mremap_moves_and_grows), X(munmap_of_a_part),
	X(truncated_under_a_mapping), X(smaller_than_the_file), X(advice),
	X(advice_after_growth), X(sync_of_a_reader), X(guards_stay), X(arguments), X(mapped_again), X(mapped_again_while_read),
	X(limit_holds), X(synced), X(written), X(golden), {NULL, NULL},
#undef X
};
