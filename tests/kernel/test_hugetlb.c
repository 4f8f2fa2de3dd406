/* Reserved huge pages: what a fault there takes, in pages of their own size. upager leaves them
 * where they are, since MOVE is for anonymous memory; these are the facts for serving them. */
#include <criterion/hooks.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

TestSuite(hugetlb, .timeout = 20);

#define HUGE	 (2ul << 20)
#define TWO_MIB	 (21u << MAP_HUGE_SHIFT)
#define RESERVED 8
#define POOL	 "/proc/sys/vm/nr_hugepages"

#define FEATURES                                                                                   \
	(WP | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS |                      \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

/* ---- the pool: grown by the runner, which outlives the tests, and given back by it ---- */

static int reserved;

static int pool_size(void)
{
	FILE *file = fopen(POOL, "re");
	int n = -1;

	if (file) {
		if (fscanf(file, "%d", &n) != 1)
			n = -1;
		fclose(file);
	}
	return n;
}

static void pool_add(int n)
{
	FILE *file = fopen(POOL, "we");

	if (file) {
		fprintf(file, "%d\n", pool_size() + n);
		fclose(file);
	}
}

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	int before = pool_size();

	(void)set;
	if (before < 0)
		return;
	pool_add(RESERVED);
	reserved = pool_size() - before;
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	(void)stats;
	if (reserved > 0)
		pool_add(-reserved);
}

/* ---- */

static char *huge_map(int fd, int flags)
{
	char *at = mmap(NULL, HUGE, RW, flags, fd, 0);

	if (at == MAP_FAILED)
		cr_skip_test("no 2 MiB pages could be reserved: %s", strerror(errno));
	return at;
}

static char *anonymous(int uffd)
{
	char *at = huge_map(-1, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (int)TWO_MIB);

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	return at;
}

static int huge_memfd(void)
{
	unsigned flags = MFD_CLOEXEC | MFD_HUGETLB | TWO_MIB;
	int fd = memfd_create("kernel-facts", flags);

	if (fd < 0)
		cr_skip_test("this kernel has no 2 MiB memfds: %s", strerror(errno));
	is_eq(err(ftruncate(fd, HUGE)), 0);
	return fd;
}

static char *source(char byte)
{
	char *from = region(HUGE / PAGE);

	memset(from, byte, HUGE);
	return from;
}

Test(hugetlb, a_missing_page_is_told_by_the_address_of_the_huge_page)
{
	int uffd = uffd_new(FEATURES);
	char *at = anonymous(uffd);
	struct deed d;

	deed_read(&d, at + 5 * PAGE + 17);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(deed_end(&d), 7);
	is_eq(at[HUGE - 1], 7);
	silent(uffd);
}

Test(hugetlb, a_write_to_a_missing_page_says_so)
{
	int uffd = uffd_new(FEATURES);
	char *at = anonymous(uffd);
	struct deed d;

	deed_write(&d, at + PAGE);
	fault(uffd, at, F_WRITE);
	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(deed_end(&d), 'w');
	is_eq(at[0], 7);
}

Test(hugetlb, only_whole_huge_pages_are_filled_and_there_is_no_zeropage)
{
	int uffd = uffd_new(FEATURES);
	char *at = anonymous(uffd);

	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), -EINVAL);
	is_eq(zero_in(uffd, at, HUGE, 0), -EINVAL);
	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(copy_in(uffd, at, source(8), HUGE, 0), -EEXIST);
	is_eq(at[0], 7);
}

Test(hugetlb, what_is_cached_and_not_mapped_is_a_minor_fault)
{
	int uffd = uffd_new(FEATURES), fd = huge_memfd();
	char *at = huge_map(fd, MAP_SHARED), *other = huge_map(fd, MAP_SHARED);
	struct deed d;

	is_eq(reg(uffd, at, HUGE, MODE_M | MODE_N), 0);
	other[HUGE - 1] = 7;
	deed_read(&d, at + HUGE - 1);
	fault(uffd, at, F_MINOR);
	is_eq(proceed(uffd, at, HUGE, 0), HUGE);
	is_eq(deed_end(&d), 7);
	silent(uffd);
}

Test(hugetlb, a_write_to_a_protected_page_waits)
{
	int uffd = uffd_new(FEATURES);
	char *at = anonymous(uffd);
	struct deed d;

	is_eq(copy_in(uffd, at, source(7), HUGE, UFFDIO_COPY_MODE_WP), HUGE);
	is_eq(read_unseen(uffd, at), 7);
	deed_write(&d, at + 3 * PAGE);
	fault(uffd, at, F_WP);
	is_eq(unprotect(uffd, at, HUGE), 0);
	is_eq(deed_end(&d), 'w');
	is_eq(at[3 * PAGE], 'w');
}

Test(hugetlb, a_part_cannot_be_protected)
{
	int uffd = uffd_new(FEATURES);
	char *at = anonymous(uffd);

	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(protect(uffd, at, PAGE), -EINVAL);
	is_eq(entry(at) & PM_WP, 0);
}

static int reads(void *at)
{
	return *(volatile unsigned char *)at;
}

/* A private huge page that a fork shares is copied when it is written: the child keeps the old. */
Test(hugetlb, after_fork_a_write_leaves_the_child_its_bytes)
{
	int uffd = uffd_new(FEATURES);
	char *at = anonymous(uffd);

	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(child_run(reads, at), 7);
	is_eq(write_unseen(uffd, at), 'w');
	is_eq(child_run(reads, at), 'w');
}

Test(hugetlb, move_refuses_huge_pages)
{
	int uffd = uffd_new(FEATURES | UFFD_FEATURE_MOVE);
	char *at = anonymous(uffd), *to = anonymous(uffd);

	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(move(uffd, to, at, HUGE), -EINVAL);
	is_eq(at[0], 7);
}

/* ---- an empty pool: that of 1 GiB pages, which nobody fills ---- */

#define GIANT	(1ul << 30)
#define ONE_GIB (30u << MAP_HUGE_SHIFT)

static char *unbacked(int uffd)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_HUGETLB | (int)ONE_GIB;
	char *at = mmap(NULL, GIANT, RW, flags, -1, 0);

	if (at == MAP_FAILED)
		cr_skip_test("no pages of 1 GiB: %s", strerror(errno));
	is_eq(reg(uffd, at, GIANT, MODE_MW), 0);
	return at;
}

/* EEXIST where there is a page table already: who takes that for a page that is there waits for ever. */
Test(hugetlb, a_copy_that_gets_nothing_from_the_pool_says_enomem_or_eexist)
{
	int uffd = uffd_new(FEATURES);
	char *at = unbacked(uffd);
	long r = copy_in(uffd, at, at, GIANT, 0);

	if (r == (long)GIANT)
		cr_skip_test("the pool has pages of 1 GiB");
	cr_assert(r == -ENOMEM || r == -EEXIST, "%ld", r);
	is_eq(entry(at) & PM_PRESENT, 0);
}

Test(hugetlb, a_poisoned_huge_page_is_missing_again_when_it_is_discarded)
{
	int uffd = uffd_new(FEATURES | UFFD_FEATURE_POISON);
	char *at = anonymous(uffd);
	struct uffdio_poison poison = {.range = {.start = (uintptr_t)at, .len = HUGE}};
	struct deed d;

	is_eq(err(ioctl(uffd, UFFDIO_POISON, &poison)), 0);
	is_eq(err(madvise(at, HUGE, MADV_DONTNEED)), 0);
	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, source(7), HUGE, 0), HUGE);
	is_eq(deed_end(&d), 7);
}
