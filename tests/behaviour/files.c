/*
 * File behaviours: what programs do with files that they map through libupager.
 *
 * `files NAME [MIB]`, with the file's path in $FILES_PATH (made if it is missing, MIB mebibytes of a
 * pattern), does NAME, checks every byte and prints "ok NAME". As `behave`: wrong bytes end it with
 * status 1 and a line on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "behave.h"
#include "upager/upager.h"

#define SALT 7ul /* of the file as it is at first */

const char *subject;
size_t mebibytes = 16;
static struct upager *pager;
static int file = -1;
static const char *path;

_Noreturn void wrong(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s (pid %d): ", subject, (int)getpid());
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(1);
}

static uint64_t word_of(uint64_t salt, unsigned i)
{
	uint64_t x = (salt * 1000003 + i) * 0xd6e8feb86659fd93ull;

	return x ^ x >> 31;
}

void page_fill(void *at, uint64_t salt)
{
	for (unsigned i = 0; i < WORDS; i++)
		((uint64_t *)at)[i] = word_of(salt, i);
}

void page_check(const void *at, uint64_t salt)
{
	const uint64_t *words = at;

	for (unsigned i = 0; i < WORDS; i++)
		if (words[i] != word_of(salt, i))
			wrong("WRONG BYTES at %p, word %u: expected %#lx, found %#lx", at, i,
			      word_of(salt, i), words[i]);
}

static size_t pages(void)
{
	return mebibytes * MIB / PAGE;
}

static void make_file(void)
{
	char page[PAGE];

	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(file >= 0);
	if (lseek(file, 0, SEEK_END) > 0)
		return;
	for (size_t i = 0; i < pages(); i++) {
		page_fill(page, SALT + i);
		must(pwrite(file, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	}
}

static char *map_part(unsigned flags, int prot, size_t first, size_t n, size_t unit)
{
	void *at = NULL;
	int r = upager_map_file(pager, file, first * PAGE, n * PAGE, flags, prot, unit, &at);

	if (r < 0)
		wrong("upager_map_file: %s", strerror(-r));
	return at;
}

static char *map_whole(unsigned flags)
{
	return map_part(flags, PROT_READ | PROT_WRITE, 0, pages(), 0);
}

static void check_all(const char *at, uint64_t salt)
{
	for (size_t i = 0; i < pages(); i++)
		page_check(at + i * PAGE, salt + i);
}

/* The file's own bytes, past every mapping. */
static void check_file(size_t i, uint64_t salt)
{
	char page[PAGE];

	must(pread(file, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	page_check(page, salt);
}

static void ok(int r, const char *what)
{
	if (r < 0)
		wrong("%s: %s", what, strerror(-r));
}

static struct upager_stat figures(void)
{
	struct upager_stat stat;

	ok(upager_stat(pager, &stat), "upager_stat");
	return stat;
}

/* ---- SIGBUS ---- */

static sigjmp_buf bus_back;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(bus_back, 1);
}

static bool bus_at(volatile char *at)
{
	struct sigaction action = {.sa_handler = on_bus};

	sigaction(SIGBUS, &action, NULL);
	if (sigsetjmp(bus_back, 1))
		return true;
	*at;
	return false;
}

static void in_child(void (*run)(char *at), char *at)
{
	pid_t pid = fork();
	int status;

	must(pid >= 0);
	if (!pid) {
		run(at);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid);
	if (status)
		wrong("a child ended with %#x", status);
}

/* ---- rows of the tree ---- */

static void row_30_fault_around(void)
{
	char *first = map_whole(UPAGER_PRIVATE), *second;
	struct upager_stat before, after;

	check_all(first, SALT);
	before = figures();
	second = map_whole(UPAGER_PRIVATE);
	check_all(second, SALT);
	after = figures();
	if (after.major != before.major)
		wrong("%lu pages were read again", after.major - before.major);
	if (after.minor - before.minor > pages() / 4)
		wrong("%lu faults for %zu pages in order", after.minor - before.minor, pages());
}

static void row_31_read_cached_page(void)
{
	char *first = map_whole(UPAGER_PRIVATE), *second = map_whole(UPAGER_PRIVATE);
	struct upager_stat before, after;

	page_check(first + 5 * PAGE, SALT + 5);
	before = figures();
	page_check(second + 5 * PAGE, SALT + 5);
	after = figures();
	if (after.major != before.major || after.minor != before.minor + 1)
		wrong("major %lu → %lu, minor %lu → %lu", before.major, after.major, before.minor,
		      after.minor);
}

static void row_32_read_miss(void)
{
	char *at = map_whole(UPAGER_PRIVATE);
	struct upager_stat stat;

	page_check(at + 9 * PAGE, SALT + 9);
	stat = figures();
	if (stat.major != 1)
		wrong("%lu pages were read", stat.major);
	check_all(at, SALT);
	for (size_t i = 0; i < pages(); i += 3)
		page_fill(at + i * PAGE, SALT + 1000000 + i);
	for (size_t i = 0; i < pages(); i++) {
		page_check(at + i * PAGE, i % 3 ? SALT + i : SALT + 1000000 + i);
		check_file(i, SALT + i);
	}
}

static void unit_is_read_at_once(void)
{
	char *at = map_part(UPAGER_PRIVATE, PROT_READ, 0, pages(), 64 * PAGE);
	struct upager_stat stat;

	for (size_t i = 0; i < pages(); i += 64)
		for (size_t k = 0; k < 64; k += 7)
			page_check(at + (i + (k * 13) % 64) * PAGE, SALT + i + (k * 13) % 64);
	stat = figures();
	if (stat.major > pages() / 64 * 2)
		wrong("%lu reads for %zu units", stat.major, pages() / 64);
}

static void row_34_past_eof(void)
{
	char *at;

	must(ftruncate(file, (off_t)((pages() - 1) * PAGE + 100)) == 0);
	at = map_part(UPAGER_PRIVATE, PROT_READ, 0, pages() + 8, 0);
	for (size_t i = 0; i + 1 < pages(); i++)
		page_check(at + i * PAGE, SALT + i);
	for (size_t i = 100; i < PAGE; i++)
		if (at[(pages() - 1) * PAGE + i])
			wrong("WRONG BYTES: byte %zu of the last page is not zero", i);
	if (!bus_at(at + pages() * PAGE) || !bus_at(at + (pages() + 7) * PAGE))
		wrong("no SIGBUS past the end");
}

static void row_35_io_error(void)
{
	char *at = map_whole(UPAGER_PRIVATE);

	if (!bus_at(at) || !bus_at(at + 9 * PAGE) || !bus_at(at))
		wrong("no SIGBUS for a page that cannot be read");
}

/* Some reads fail: a page has its bytes or raises SIGBUS. */
static void some_reads_fail(void)
{
	char *at = map_whole(UPAGER_PRIVATE);
	size_t lost = 0;

	for (size_t i = 0; i < pages(); i++) {
		if (bus_at(at + i * PAGE))
			lost++;
		else
			page_check(at + i * PAGE, SALT + i);
	}
	printf("lost %zu\n", lost);
}

#define RACERS 8
static pthread_barrier_t barrier;
static char *race_at;

static void *race(void *argument)
{
	(void)argument;
	for (size_t i = 0; i < 64; i++) {
		size_t page = i * 37 % pages();

		pthread_barrier_wait(&barrier);
		page_check(race_at + page * PAGE, SALT + page);
	}
	return NULL;
}

static void row_37_race(void)
{
	pthread_t threads[RACERS];
	struct upager_stat stat;

	race_at = map_whole(UPAGER_PRIVATE);
	ok(upager_advise(pager, race_at, pages() * PAGE, UPAGER_RANDOM), "upager_advise");
	pthread_barrier_init(&barrier, NULL, RACERS);
	for (size_t i = 0; i < RACERS; i++)
		must(pthread_create(&threads[i], NULL, race, NULL) == 0);
	for (size_t i = 0; i < RACERS; i++)
		must(pthread_join(threads[i], NULL) == 0);
	stat = figures();
	if (stat.image_resident != 64 * PAGE)
		wrong("%lu pages are in memory, not 64", stat.image_resident / PAGE);
}

static void private_child(char *at)
{
	for (size_t i = 0; i < pages(); i++)
		page_check(at + i * PAGE, i % 4 == 0 ? 3 + i : SALT + i);
	for (size_t i = 0; i < pages(); i += 2)
		page_fill(at + i * PAGE, 5 + i);
	for (size_t i = 0; i < pages(); i++)
		page_check(at + i * PAGE, i % 2 == 0 ? 5 + i : SALT + i);
}

static void row_38_private_write(void)
{
	char *at = map_whole(UPAGER_PRIVATE), *other = map_whole(UPAGER_PRIVATE);

	for (size_t i = 0; i < pages(); i += 4)
		page_fill(at + i * PAGE, 3 + i);
	check_all(other, SALT);
	in_child(private_child, at);
	for (size_t i = 0; i < pages(); i++)
		page_check(at + i * PAGE, i % 4 == 0 ? 3 + i : SALT + i);
	check_all(other, SALT);
}

static void shared_child(char *at)
{
	char *mine = map_whole(UPAGER_SHARED);

	for (size_t i = 0; i < pages(); i++)
		page_check((i & 1 ? at : mine) + i * PAGE, 11 + i);
	for (size_t i = 0; i < pages(); i++)
		page_fill((i & 2 ? at : mine) + i * PAGE, 13 + i);
}

static void row_39_shared_write(void)
{
	char *at = map_whole(UPAGER_SHARED);

	for (size_t i = 0; i < pages(); i++)
		page_fill(at + i * PAGE, 11 + i);
	in_child(shared_child, at);
	check_all(at, 13);
	ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
	for (size_t i = 0; i < pages(); i++)
		check_file(i, 13 + i);
}

/* A page that is mapped, then written: the kernel's copy; the image stays as it was. */
static void row_62_wp_private_file(void)
{
	char *at = map_whole(UPAGER_PRIVATE), *other = map_whole(UPAGER_PRIVATE);

	check_all(at, SALT);
	for (size_t i = 0; i < pages(); i += 2)
		page_fill(at + i * PAGE, 3 + i);
	check_all(other, SALT);
	for (size_t i = 0; i < pages(); i++)
		page_check(at + i * PAGE, i % 2 == 0 ? 3 + i : SALT + i);
}

/* A page that is mapped, then written, written back, and written again: each time it is dirty. */
static void row_63_wp_shared(void)
{
	char *at = map_whole(UPAGER_SHARED);

	check_all(at, SALT);
	for (unsigned round = 1; round <= 3; round++) {
		for (size_t i = 0; i < pages(); i += 5)
			page_fill(at + i * PAGE, round * 100 + i);
		ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
		for (size_t i = 0; i < pages(); i++)
			check_file(i, i % 5 == 0 ? round * 100 + i : SALT + i);
	}
}

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

/* A limit that upager_open() has set ($FILES_MEMORY). */
static void limit_holds(void)
{
	size_t n = 2 * strtoul(getenv("FILES_MEMORY"), NULL, 10) / PAGE;
	struct upager_stat stat;
	void *at;

	ok(upager_map_anon(pager, n * PAGE, &at), "upager_map_anon");
	for (size_t i = 0; i < n; i++)
		page_fill((char *)at + i * PAGE, i);
	for (size_t i = 0; i < n; i++)
		page_check((char *)at + i * PAGE, i);
	stat = figures();
	if (!stat.evicted || stat.resident > stat.limit ||
	    stat.peak > stat.limit + stat.limit / 20)
		wrong("resident %lu, peak %lu, evicted %lu of limit %lu", stat.resident, stat.peak,
		      stat.evicted, stat.limit);
}

static void arguments(void)
{
	int read_only = open(path, O_RDONLY | O_CLOEXEC), folder = open("/", O_RDONLY | O_CLOEXEC);
	int append = open(path, O_RDWR | O_APPEND | O_CLOEXEC), ends[2];
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

static const struct behaviour behaviours[] = {
#define X(name) {#name, name}
	X(row_30_fault_around), X(row_31_read_cached_page), X(row_32_read_miss),
	X(row_34_past_eof), X(row_35_io_error), X(row_37_race), X(row_38_private_write),
	X(row_39_shared_write), X(row_62_wp_private_file), X(row_63_wp_shared),
	X(unit_is_read_at_once), X(some_reads_fail), X(fork_keeps_mappings),
	X(mremap_moves_and_grows), X(munmap_of_a_part), X(truncated_under_a_mapping),
	X(smaller_than_the_file), X(advice), X(arguments), X(limit_holds), X(synced), X(written), X(golden),
};

int main(int argc, char **argv)
{
	struct upager_options options = {.size = sizeof options};
	int r;

	subject = argc > 1 ? argv[1] : "";
	path = getenv("FILES_PATH");
	if (argc > 2)
		mebibytes = strtoul(argv[2], NULL, 10);
	must(path);
	make_file();
	if (getenv("FILES_MEMORY"))
		options.memory = strtoul(getenv("FILES_MEMORY"), NULL, 10);
	r = upager_open(&options, &pager);
	if (r < 0)
		wrong("upager_open: %s", strerror(-r));
	for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++)
		if (!strcmp(behaviours[i].name, subject)) {
			behaviours[i].run();
			upager_close(pager);
			printf("ok %s\n", subject);
			return 0;
		}
	wrong("no such behaviour");
}
