/* Merging of same pages (KSM): why a page's checksum, not its protection, says that it is clean. */
#include <criterion/hooks.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

TestSuite(ksm, .timeout = 30);

#define KSM "/sys/kernel/mm/ksm/"

/* The runner turns it on, and leaves it as it was. */
static struct {
	const char *path;
	long wanted, before;
} settings[] = {
    {KSM "pages_to_scan", 10000, -1},
    {KSM "sleep_millisecs", 1, -1},
    {KSM "run", 1, -1},
};

#define N_SETTINGS (sizeof(settings) / sizeof(*settings))

static long read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	long n = -1;

	if (file) {
		if (fscanf(file, "%ld", &n) != 1)
			n = -1;
		fclose(file);
	}
	return n;
}

static void write_number(const char *path, long n)
{
	FILE *file = fopen(path, "we");

	if (file) {
		fprintf(file, "%ld\n", n);
		fclose(file);
	}
}

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	(void)set;
	for (size_t i = 0; i < N_SETTINGS; i++) {
		settings[i].before = read_number(settings[i].path);
		if (settings[i].before >= 0)
			write_number(settings[i].path, settings[i].wanted);
	}
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	for (size_t i = N_SETTINGS; i-- > 0;)
		if (settings[i].before >= 0)
			write_number(settings[i].path, settings[i].before);
}

/* Two protected pages of the same bytes, merged. */
static char *merged(int uffd)
{
	char *at = registered(uffd, 2);
	int tries = 5000;

	if (read_number(KSM "run") != 1)
		cr_skip_test("KSM is not there, or cannot be turned on");
	for (size_t i = 0; i < 2; i++)
		is_eq(copy_in(uffd, at + i * PAGE, page_of('k'), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(entry(at) & PM_WP, PM_WP);
	if (madvise(at, 2 * PAGE, MADV_MERGEABLE))
		cr_skip_test("this kernel has no KSM: %s", strerror(errno));
	while (read_number("/proc/self/ksm_merging_pages") < 2 && --tries)
		usleep(1000);
	if (!tries)
		cr_skip_test("KSM did not merge in time");
	return at;
}

/* The bit goes silently, and the write that it would have told of. (clean = wp, writeback.c) */
Test(ksm, merging_drops_protection_and_the_write_is_unseen)
{
	int uffd = uffd_new(WP);
	char *at = merged(uffd);

	is_eq(entry(at) & (PM_PRESENT | PM_WP), PM_PRESENT);
	is_eq(write_unseen(uffd, at), 'w');
	is_eq(byte_at(at + PAGE), 'k');
}

Test(ksm, move_refuses_a_merged_page)
{
	int uffd = uffd_new(WP | UFFD_FEATURE_MOVE);
	char *at = merged(uffd), *to = registered(uffd, 1);

	is_eq(move(uffd, to, at, PAGE), -EBUSY);
	is_eq(write_unseen(uffd, at), 'w');
	is_eq(move(uffd, to, at, PAGE), PAGE);
}
