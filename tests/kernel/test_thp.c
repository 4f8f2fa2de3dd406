/* Transparent huge pages in registered memory. */
#include "kernel.h"

TestSuite(thp, .timeout = 20);

#define HUGE  (2ul << 20)
#define PAGES (HUGE / PAGE)

/* Aligned memory where the kernel may use a huge page. */
static char *huge_region(void)
{
	char *at = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert(at != MAP_FAILED);
	at = (char *)(((uintptr_t)at + HUGE) & ~(HUGE - 1));
	cr_assert(mmap(at, HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
	if (madvise(at, HUGE, MADV_HUGEPAGE))
		cr_skip_test("this kernel has no huge pages: %s", strerror(errno));
	return at;
}

static bool is_huge(const char *at)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	long c = categories(pagemap, at);

	close(pagemap);
	return c >= 0 && c & PAGE_IS_HUGE;
}

static char *huge_page(void)
{
	char *at = huge_region();

	at[0] = 1;
	if (!is_huge(at))
		cr_skip_test("the kernel gave no huge page");
	memset(at, 7, HUGE);
	return at;
}

/* Registration below the limit has its price. */
Test(thp, registered_memory_gets_small_pages)
{
	int uffd = uffd_new(WP);
	char *at = huge_region(), *from = huge_region();
	struct deed d;

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	deed_write(&d, at + 5 * PAGE);
	fault(uffd, at + 5 * PAGE, F_WRITE);
	is_eq(zero_in(uffd, at + 5 * PAGE, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
	cr_assert(!is_present(at));
	is_eq(copy_in(uffd, at, from, 5 * PAGE, 0), 5 * PAGE);
	cr_assert(!is_huge(at));
}

Test(thp, a_copy_of_a_whole_huge_page_is_made_of_small_ones)
{
	int uffd = uffd_new(WP);
	char *at = huge_region(), *from = huge_page();

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(copy_in(uffd, at, from, HUGE, 0), HUGE);
	cr_assert(is_present(at + HUGE - PAGE) && !is_huge(at));
}

Test(thp, a_huge_page_stays_when_it_is_registered_and_refuses_fills)
{
	int uffd = uffd_new(WP);
	char *at = huge_page();

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	cr_assert(is_huge(at));
	is_eq(copy_in(uffd, at + PAGE, page_of(1), PAGE, 0), -EEXIST);
	is_eq(zero_in(uffd, at + PAGE, PAGE, 0), -EEXIST);
	is_eq(at[PAGE], 7);
}

/* Protecting a part splits; its neighbours keep what they had. */
Test(thp, protecting_a_part_splits_and_leaves_the_rest)
{
	int uffd = uffd_new(WP);
	char *at = huge_page();

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(protect(uffd, at + PAGE, PAGE), 0);
	cr_assert(!is_huge(at));
	is_eq(entry(at) & (PM_PRESENT | PM_WP), PM_PRESENT);
	is_eq(entry(at + PAGE) & (PM_PRESENT | PM_WP), PM_PRESENT | PM_WP);
	is_eq(entry(at + 2 * PAGE) & (PM_PRESENT | PM_WP), PM_PRESENT);
	is_eq(write_unseen(uffd, at), 'w');
}

Test(thp, unprotecting_a_part_leaves_the_rest_protected)
{
	int uffd = uffd_new(WP);
	char *at = huge_page();
	struct deed d;

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(protect(uffd, at, HUGE), 0);
	deed_write(&d, at + 3 * PAGE);
	fault(uffd, at + 3 * PAGE, F_WP);
	is_eq(unprotect(uffd, at + 3 * PAGE, PAGE), 0);
	is_eq(deed_end(&d), 'w');
	is_eq(entry(at + 2 * PAGE) & PM_WP, PM_WP);
	is_eq(entry(at + 3 * PAGE) & PM_WP, 0);
	is_eq(entry(at + 4 * PAGE) & PM_WP, PM_WP);
}

/* What the agent does with a run in the middle of one: protect, move, mark. */
Test(thp, a_part_of_a_huge_page_leaves)
{
	int uffd = uffd_new(ALL);
	char *at = huge_page(), *to = registered(uffd, 2);

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(protect(uffd, at + 8 * PAGE, 2 * PAGE), 0);
	is_eq(move(uffd, to, at + 8 * PAGE, 2 * PAGE), 2 * PAGE);
	is_eq(protect(uffd, at + 8 * PAGE, 2 * PAGE), 0);
	is_eq(to[PAGE], 7);
	cr_assert(is_present(at + 7 * PAGE) && is_marker(at + 8 * PAGE));
	cr_assert(is_marker(at + 9 * PAGE) && is_present(at + 10 * PAGE));
}

Test(thp, a_whole_huge_page_moves_as_one)
{
	int uffd = uffd_new(ALL);
	char *at = huge_page(), *to = huge_region();

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(reg(uffd, to, HUGE, MODE_M), 0);
	is_eq(move(uffd, to, at, HUGE), HUGE);
	cr_assert(is_huge(to));
	is_eq(to[HUGE - 1], 7);
	is_eq(entry(at), 0);
}

/* What the agent relies on: its window is used for small pages and for huge ones. */
Test(thp, a_whole_huge_page_moves_where_small_ones_were_discarded)
{
	int uffd = uffd_new(ALL);
	char *at = huge_page(), *to = huge_region();

	to[0] = 1;
	is_eq(err(madvise(to, HUGE, MADV_NOHUGEPAGE)), 0);
	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(protect(uffd, at, HUGE), 0);
	is_eq(err(madvise(to, HUGE, MADV_DONTNEED)), 0);
	memset(to, 3, 5 * PAGE);
	is_eq(err(madvise(to, HUGE, MADV_DONTNEED)), 0);
	is_eq(reg(uffd, to, HUGE, MODE_M), 0);
	is_eq(move(uffd, to, at, HUGE), HUGE);
	if (!is_huge(to))
		cr_skip_test("this kernel keeps empty page tables (CONFIG_PT_RECLAIM, 6.14)");
	is_eq(protect(uffd, at, HUGE), 0);
	cr_assert(is_marker(at) && is_marker(at + HUGE - PAGE));
}

/* Collapsing must not fill what is missing, nor swallow markers. */
Test(thp, collapse_leaves_a_missing_page_missing)
{
	int uffd = uffd_new(MARKER);
	char *at = huge_region(), *from = huge_page();

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(copy_in(uffd, at, from, HUGE - PAGE, 0), HUGE - PAGE);
	is_eq(err(madvise(at, HUGE, MADV_COLLAPSE)), -EBUSY);
	cr_assert(!is_huge(at));
	is_eq(entry(at + HUGE - PAGE), 0);
	silent(uffd);
}

Test(thp, collapse_leaves_a_marker_and_what_is_protected)
{
	int uffd = uffd_new(MARKER);
	char *at = huge_region(), *from = huge_page();

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(copy_in(uffd, at, from, HUGE - PAGE, 0), HUGE - PAGE);
	is_eq(protect(uffd, at + HUGE - PAGE, PAGE), 0);
	is_eq(err(madvise(at, HUGE, MADV_COLLAPSE)), -EINVAL);
	cr_assert(is_marker(at + HUGE - PAGE));
	is_eq(copy_in(uffd, at + HUGE - PAGE, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(err(madvise(at, HUGE, MADV_COLLAPSE)), -EINVAL);
	cr_assert(!is_huge(at));
	is_eq(entry(at + HUGE - PAGE) & PM_WP, PM_WP);
	silent(uffd);
}

/* A huge page may come into being under us, where all is present. */
Test(thp, collapse_makes_a_huge_page_of_registered_pages)
{
	int uffd = uffd_new(MARKER);
	char *at = huge_region(), *from = huge_page();
	long r;

	is_eq(reg(uffd, at, HUGE, MODE_MW), 0);
	is_eq(copy_in(uffd, at, from, HUGE, 0), HUGE);
	r = err(madvise(at, HUGE, MADV_COLLAPSE));
	if (r == -ENOMEM || r == -EAGAIN)
		cr_skip_test("no huge page could be had: %s", strerror((int)-r));
	is_eq(r, 0);
	cr_assert(is_huge(at));
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), -EEXIST);
	is_eq(write_unseen(uffd, at + PAGE), 'w');
}
