/* Files, by the rows of the fault tree. */
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"

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

/* A page that could not be read stays lost where it was asked for: also to a child, without being
 * read again. */
static void lost_to_child(char *at)
{
	if (!bus_at(at) || !bus_at(at))
		wrong("no SIGBUS in a child, for a page that its parent could not have");
}

static void row_36_known_to_be_lost(void)
{
	char *at = map_whole(UPAGER_PRIVATE);

	if (!bus_at(at) || !bus_at(at))
		wrong("no SIGBUS for a page that cannot be read");
	in_child(lost_to_child, at);
}

/* The file has become shorter: a store past its end is refused, and none before it is lost. */
static void row_40_write_past_a_new_end(void)
{
	char *at = map_whole(UPAGER_SHARED);
	size_t half = pages() / 2;

	page_check(at + half * PAGE, SALT + half); /* in memory, not written to */
	page_fill(at + (half - 1) * PAGE, 3);
	must(ftruncate(file, (off_t)(half * PAGE)) == 0);
	ok(upager_sync(pager, at, pages() * PAGE), "upager_sync");
	if (!write_fails(at + half * PAGE))
		wrong("a store past the end went somewhere");
	must(lseek(file, 0, SEEK_END) == (off_t)(half * PAGE));
	check_file(half - 1, 3);
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

const struct behaviour row_files[] = {
#define X(name) {#name, name}
	X(row_30_fault_around), X(row_31_read_cached_page), X(row_32_read_miss),
	X(row_34_past_eof), X(row_35_io_error), X(row_36_known_to_be_lost), X(row_37_race),
	X(row_38_private_write), X(row_40_write_past_a_new_end),
	X(row_39_shared_write), X(row_62_wp_private_file), X(row_63_wp_shared),
	X(unit_is_read_at_once), X(some_reads_fail), {NULL, NULL},
#undef X
};
