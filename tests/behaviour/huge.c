/* Huge pages. Each scenario is a row of the kernel's fault tree in which a whole pmd is at stake. */
#include "behave.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE	   (2 * MIB)
#define HUGE_PAGES (HUGE / PAGE)
#define SALT	   5000

/* ---- memory ---- */

static struct area huge_map(void)
{
	struct area a = area_map(mebibytes * MIB / PAGE + HUGE_PAGES, SALT);

	a.at = (char *)(((uint64_t)a.at + HUGE - 1) & ~(HUGE - 1));
	a.pages -= HUGE_PAGES;
	if (madvise(a.at, a.pages * PAGE, MADV_HUGEPAGE))
		skip("MADV_HUGEPAGE: %s", strerror(errno));
	return a;
}

/* Kilobytes of the mapping at `at` that are mapped as huge pages. */
static size_t huge_kib(const char *at)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[512];
	bool here = false;
	size_t kib = 0;

	must(file);
	while (fgets(line, sizeof line, file)) {
		uint64_t start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uint64_t)at >= start && (uint64_t)at < end;
		else if (here)
			sscanf(line, "AnonHugePages: %zu", &kib);
	}
	fclose(file);
	return kib;
}

static struct area huge_area(void)
{
	struct area a = huge_map();

	a.at[0] = 1;
	if (!huge_kib(a.at))
		skip("the kernel gives no huge pages");
	area_fill(&a);
	return a;
}

static size_t huge_pages_of(const struct area *a)
{
	return a->pages / HUGE_PAGES;
}

/* The test outside changes the limit meanwhile. */
static void wait_for_go(void)
{
	const char *result = getenv("BEHAVE_RESULT");
	char path[512];

	printf("ready\n");
	if (!getenv("UPAGER_SOCKET"))
		return;
	must(result);
	snprintf(path, sizeof path, "%s.go", result);
	for (int i = 0; access(path, F_OK) != 0; i++) {
		must(i < 3000);
		usleep(10000);
	}
}

/* ---- threads ---- */

static _Atomic bool stop;
static struct area common;

static void *start_thread(pthread_t *thread, void *(*run)(void *))
{
	must(pthread_create(thread, NULL, run, NULL) == 0);
	return NULL;
}

/* Runs until stop: checks one page after the other, all over the area. */
static void *checker(void *unused)
{
	for (size_t i = 0; !stop; i = (i * 5 + 12347) % common.pages)
		page_check(page_at(&common, i), common.salt + i);
	return unused;
}

static void for_seconds(double seconds, void *(*run)(void *))
{
	pthread_t other, threads[2];

	stop = false;
	start_thread(&threads[0], checker);
	start_thread(&threads[1], checker);
	if (run)
		start_thread(&other, run);
	usleep((useconds_t)(seconds * 1e6));
	stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	if (run)
		pthread_join(other, NULL);
}

/* ---- rows ---- */

/* One page of each huge page is touched while there is no room for the others. */
static void cluster_fallback(void)
{
	struct area a = huge_area();

	for (size_t round = 0; round < 3; round++)
		for (size_t i = 0; i < huge_pages_of(&a); i++) {
			size_t page = i * HUGE_PAGES + (i * 37 + round * 211) % HUGE_PAGES;

			page_check(page_at(&a, page), a.salt + page);
		}
	area_check(&a);
}

/* The limit has been lowered and raised again: one touch brings 512 pages. */
static void cluster_returns(void)
{
	struct area a = huge_area();

	wait_for_go();
	for (size_t i = 0; i < huge_pages_of(&a); i++)
		page_check(page_at(&a, i * HUGE_PAGES + i % HUGE_PAGES),
			   a.salt + i * HUGE_PAGES + i % HUGE_PAGES);
	usleep(100000);
	area_check(&a);
}

static void huge_zero_read(void)
{
	struct area a = huge_map(), touched = huge_area();

	a.salt = 0;
	area_check(&a);
	area_check(&touched);
	area_check(&a);
}

/* What is registered when it is first written gets small pages. */
static void huge_write_copy(void)
{
	struct area a;

	usleep(200000); /* the pager comes to look */
	a = huge_map();
	usleep(200000);
	area_fill(&a);
	if (getenv("UPAGER_SOCKET"))
		must(huge_kib(a.at) == 0);
	area_check(&a);
}

/* Threads write to one huge page at once, each its own bytes: nobody's are lost. */
#define WRITERS 8
static pthread_barrier_t barrier;

static void *write_bytes(void *argument)
{
	size_t me = (size_t)argument;

	for (size_t i = 0; i < huge_pages_of(&common); i++) {
		pthread_barrier_wait(&barrier);
		for (size_t k = 0; k < HUGE_PAGES; k += 3)
			common.at[i * HUGE + k * PAGE + me] = (char)(me + 1);
	}
	return NULL;
}

static void pmd_race(void)
{
	pthread_t threads[WRITERS];

	common = huge_map();
	pthread_barrier_init(&barrier, NULL, WRITERS);
	for (size_t i = 0; i < WRITERS; i++)
		must(pthread_create(&threads[i], NULL, write_bytes, (void *)i) == 0);
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < common.pages; i++)
		for (size_t k = 0; k < PAGE; k++)
			if (((char *)page_at(&common, i))[k] !=
			    (k < WRITERS && i % HUGE_PAGES % 3 == 0 ? (char)(k + 1) : 0))
				wrong("WRONG BYTES in page %zu at %zu", i, k);
}

/* Page 5 of each huge page is discarded, page 9 protected and unprotected, and all is read. */
static void *splitter(void *unused)
{
	for (size_t i = 0; !stop; i = (i + 1) % huge_pages_of(&common)) {
		char *at = common.at + i * HUGE;

		must(madvise(at + 5 * PAGE, PAGE, MADV_DONTNEED) == 0);
		page_check(at + 5 * PAGE, 0);
		page_fill(at + 5 * PAGE, common.salt + i * HUGE_PAGES + 5);
		must(mprotect(at + 9 * PAGE, PAGE, PROT_READ) == 0);
		page_check(at + 9 * PAGE, common.salt + i * HUGE_PAGES + 9);
		must(mprotect(at + 9 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
		usleep(200);
	}
	return unused;
}

/* The checkers leave page 5 alone. */
static void *checker_but_5(void *unused)
{
	for (size_t i = 0; !stop; i = (i * 5 + 12347) % common.pages)
		if (i % HUGE_PAGES != 5)
			page_check(page_at(&common, i), common.salt + i);
	return unused;
}

static void pmd_splitting(void)
{
	pthread_t threads[2];

	common = huge_area();
	stop = false;
	start_thread(&threads[0], splitter);
	start_thread(&threads[1], checker_but_5);
	usleep(2500000);
	stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	area_check(&common);
}

/* What has just left is still on standby: it comes back without being read. */
static void standby_run(void)
{
	struct area a = huge_area();

	wait_for_go();
	area_check(&a);
}

/* Writers meet protection that is on its way out: they wait, and write. */
static void *writer(void *unused)
{
	for (size_t i = 0; !stop; i = (i * 5 + 12347) % common.pages)
		page_fill(page_at(&common, i), common.salt + i);
	return unused;
}

static void wp_reuse(void)
{
	common = huge_area();
	wait_for_go();
	for_seconds(1, writer);
	area_check(&common);
}

/* Parent and child each write every 100th page: neither sees the other's. */
static void shared_write(void)
{
	struct area a = huge_area();
	pid_t pid = fork();

	must(pid >= 0);
	for (size_t i = 0; i < a.pages; i += 100)
		page_fill(page_at(&a, i), pid ? 1 : 2);
	for (size_t i = 0; i < a.pages; i++)
		page_check(page_at(&a, i), i % 100 ? a.salt + i : pid ? 1 : 2);
	if (!pid)
		_exit(0);
	await(pid);
	for (size_t i = 0; i < a.pages; i += 100)
		page_fill(page_at(&a, i), a.salt + i);
	area_check(&a);
}

static void zero_write(void)
{
	struct area a = huge_map(), pressure;

	a.salt = 0;
	area_check(&a);
	for (size_t i = 0; i < huge_pages_of(&a); i++)
		a.at[i * HUGE + i * PAGE] = 7;
	pressure = huge_area();
	for (size_t i = 0; i < a.pages; i++) {
		char *at = page_at(&a, i);

		must(*at == (i % HUGE_PAGES == i / HUGE_PAGES ? 7 : 0));
		*at = 0;
		page_check(at, 0);
	}
	area_check(&pressure);
}

/* The child writes one page of each huge page: the 511 others stay what they were, for both. */
static void shared_fallback(void)
{
	struct area a = huge_area();
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		for (size_t i = 0; i < huge_pages_of(&a); i++)
			page_fill(page_at(&a, i * HUGE_PAGES + 100), 3);
		for (size_t i = 0; i < a.pages; i++)
			page_check(page_at(&a, i), i % HUGE_PAGES == 100 ? 3 : a.salt + i);
		_exit(0);
	}
	area_check(&a);
	await(pid);
	area_check(&a);
}

/* Parts of huge pages are unmapped, mapped anew, and moved to and fro while they leave. */
static void pmd_changes(void)
{
	struct area a = huge_area();
	char *other = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(other != MAP_FAILED);
	for (size_t round = 0; round < 6; round++)
		for (size_t i = 0; i < huge_pages_of(&a); i++) {
			char *at = a.at + i * HUGE;

			switch ((i + round) % 3) {
			case 0:
				must(mmap(at + 64 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
				     at + 64 * PAGE);
				for (size_t k = 64; k < 72; k++) {
					page_check(at + k * PAGE, 0);
					page_fill(at + k * PAGE, a.salt + i * HUGE_PAGES + k);
				}
				break;
			case 1:
				/* A seam, see the README: then it stays where it is. */
				if (mremap(at, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, other) != other)
					break;
				page_check(other + 77 * PAGE, a.salt + i * HUGE_PAGES + 77);
				must(mremap(other, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at);
				break;
			default:
				page_check(at + 100 * PAGE, a.salt + i * HUGE_PAGES + 100);
			}
		}
	area_check(&a);
}

/* Below the limit a program keeps its huge pages, and the pager is not asked. */
static void write_allowed(void)
{
	struct area a = huge_area();

	area_refill(&a, 900);
	area_check(&a);
	must(huge_kib(a.at) > 0);
}

/* Huge pages come into being under the pager: nothing is overwritten. */
static void *collapser(void *unused)
{
	for (size_t i = 0; !stop; i = (i + 1) % huge_pages_of(&common))
		madvise(common.at + i * HUGE, HUGE, MADV_COLLAPSE);
	return unused;
}

static void pmd_materialised(void)
{
	common = huge_area();
	for_seconds(2.5, collapser);
	area_check(&common);
}

const struct behaviour huge_behaviours[] = {
	{"row_07_cluster_fallback", cluster_fallback},
	{"row_07_cluster_returns", cluster_returns},
	{"row_09_huge_zero_read", huge_zero_read},
	{"row_10_huge_write_copy", huge_write_copy},
	{"row_11_pmd_filled_race", pmd_race},
	{"row_13_pmd_splitting", pmd_splitting},
	{"row_14_standby_run", standby_run},
	{"row_15_wp_reuse_huge", wp_reuse},
	{"row_16_shared_huge_write", shared_write},
	{"row_17_huge_zero_write", zero_write},
	{"row_18_shared_huge_fallback", shared_fallback},
	{"row_19_pmd_changed", pmd_changes},
	{"row_20_huge_write_allowed", write_allowed},
	{"row_22_pmd_materialised", pmd_materialised},
	{0},
};
