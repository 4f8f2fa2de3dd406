/* COPY, ZEROPAGE, POISON, WAKE: what they install, refuse, report. Relied on by pager/fill.c. */
#include <setjmp.h>
#include <signal.h>

#include "kernel.h"

TestSuite(fill, .timeout = 20);

Test(fill, copy_installs_and_wakes)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
	silent(uffd);
}

Test(fill, a_write_to_a_missing_page_says_so)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_write(&d, at);
	fault(uffd, at, F_WRITE);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
	is_eq(at[0], 'w');
	is_eq(at[1], 7);
	silent(uffd);
}

/* Whoever waits for a page that came in otherwise has to be woken: fill_refused. */
Test(fill, eexist_does_not_wake)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, UFFDIO_COPY_MODE_DONTWAKE), PAGE);
	is_eq(copy_in(uffd, at, page_of(8), PAGE, 0), -EEXIST);
	is_eq(zero_in(uffd, at, PAGE, 0), -EEXIST);
	deed_waits(&d);
	is_eq(wake(uffd, at, PAGE), 0);
	is_eq(deed_end(&d), 7);
	silent(uffd);
}

/* sys/uffd.h: partial progress is a value. */
Test(fill, a_copy_that_meets_a_page_reports_what_it_did_before)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 4), *from = region(4);
	struct uffdio_copy copy = {
		.dst = (uintptr_t)at,
		.src = (uintptr_t)from,
		.len = 4 * PAGE,
	};

	is_eq(copy_in(uffd, at + 2 * PAGE, page_of(9), PAGE, 0), PAGE);
	memset(from, 1, 4 * PAGE);
	is_eq(err(ioctl(uffd, UFFDIO_COPY, &copy)), -EAGAIN);
	is_eq(copy.copy, 2 * PAGE);
	is_eq(at[PAGE], 1);
	is_eq(at[2 * PAGE], 9);
	cr_assert(!is_present(at + 3 * PAGE));
	copy = (struct uffdio_copy){
		.dst = (uintptr_t)at + 2 * PAGE,
		.src = (uintptr_t)from,
		.len = 2 * PAGE,
	};
	is_eq(err(ioctl(uffd, UFFDIO_COPY, &copy)), -EEXIST);
	is_eq(copy.copy, -EEXIST);
}

Test(fill, a_zeropage_that_meets_a_page_reports_what_it_did_before)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 4);
	struct uffdio_zeropage zero = {.range = {.start = (uintptr_t)at, .len = 4 * PAGE}};

	is_eq(copy_in(uffd, at + 2 * PAGE, page_of(9), PAGE, 0), PAGE);
	is_eq(err(ioctl(uffd, UFFDIO_ZEROPAGE, &zero)), -EAGAIN);
	is_eq(zero.zeropage, 2 * PAGE);
	is_eq(at[2 * PAGE], 9);
	zero.range.start += 2 * PAGE;
	zero.range.len -= 2 * PAGE;
	is_eq(err(ioctl(uffd, UFFDIO_ZEROPAGE, &zero)), -EEXIST);
	is_eq(zero.zeropage, -EEXIST);
}

/* fill_zero tries one page alone where a mapping ends sooner than it knew. */
Test(fill, a_fill_stays_within_one_mapping)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 4), *from = region(4);

	is_eq(err(mprotect(at + 2 * PAGE, 2 * PAGE, PROT_READ)), 0); /* two mappings, no event */
	silent(uffd);
	memset(from, 1, 4 * PAGE);
	is_eq(copy_in(uffd, at, from, 4 * PAGE, 0), -ENOENT);
	is_eq(zero_in(uffd, at, 4 * PAGE, 0), -ENOENT);
	cr_assert(!is_present(at));
	is_eq(copy_in(uffd, at, from, 2 * PAGE, 0), 2 * PAGE);
	is_eq(copy_in(uffd, at + 2 * PAGE, from, 2 * PAGE, 0), 2 * PAGE);
}

Test(fill, enoent_where_nothing_is_registered_or_mapped)
{
	int uffd = uffd_new(WP);
	char *at = region(2);

	is_eq(munmap(at + PAGE, PAGE), 0);
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), -ENOENT);
	is_eq(copy_in(uffd, at + PAGE, page_of(1), PAGE, 0), -ENOENT);
	is_eq(zero_in(uffd, at, PAGE, 0), -ENOENT);
	is_eq(protect(uffd, at, PAGE), -ENOENT);
	is_eq(protect(uffd, at + PAGE, PAGE), -ENOENT);
}

/* WAKE asks for nothing: it is the answer to everything that has changed. */
Test(fill, wake_succeeds_anywhere)
{
	int uffd = uffd_new(WP);
	char *at = region(1);

	is_eq(wake(uffd, at, PAGE), 0);
	is_eq(munmap(at, PAGE), 0);
	is_eq(wake(uffd, at, PAGE), 0);
}

/* What is read of ZEROPAGE is no memory yet (PAGEMAP_RESIDENT); the kernel alone makes it memory,
 * unseen, with the first write. So fill_zero protects after a read. */
Test(fill, zeropage_maps_the_zero_page_and_a_write_to_it_is_unseen)
{
	int uffd = uffd_new(WP), pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *at = registered(uffd, 1);

	is_eq(zero_in(uffd, at, PAGE, 0), PAGE);
	is_eq(categories(pagemap, at) & (PAGE_IS_PRESENT | PAGE_IS_PFNZERO),
	      PAGE_IS_PRESENT | PAGE_IS_PFNZERO);
	is_eq(write_unseen(uffd, at), 'w');
	is_eq(categories(pagemap, at) & (PAGE_IS_PRESENT | PAGE_IS_PFNZERO), PAGE_IS_PRESENT);
}

Test(fill, a_protected_zero_page_tells_of_its_first_write)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	is_eq(zero_in(uffd, at, PAGE, 0), PAGE);
	is_eq(protect(uffd, at, PAGE), 0);
	is_eq(read_unseen(uffd, at), 0);
	deed_write(&d, at);
	fault(uffd, at, F_WP);
	is_eq(unprotect(uffd, at, PAGE), 0);
	is_eq(deed_end(&d), 'w');
	is_eq(at[0], 'w');
	is_eq(at[1], 0);
}

/* ---- guard pages: zero_over_marker, and why first touches are never copied ---- */

static char *guarded(int uffd)
{
	char *at = registered(uffd, 1);
	long r = err(madvise(at, PAGE, MADV_GUARD_INSTALL));

	if (r == -EINVAL)
		cr_skip_test("this kernel has no guard pages (MADV_GUARD_INSTALL)");
	is_eq(r, 0);
	return at;
}

Test(fill, zeropage_refuses_a_guard_page)
{
	int uffd = uffd_new(WP);
	char *at = guarded(uffd);

	is_eq(zero_in(uffd, at, PAGE, 0), -EEXIST);
	cr_assert(!is_present(at));
}

Test(fill, copy_destroys_a_guard_page)
{
	int uffd = uffd_new(WP);
	char *at = guarded(uffd);

	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(read_unseen(uffd, at), 7);
}

static sigjmp_buf caught;
static volatile sig_atomic_t signal_number;

static void on_signal(int number)
{
	signal_number = number;
	siglongjmp(caught, 1);
}

/* The signal that a read raises; 0: it went well. */
static int signal_of_read(const volatile char *at)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	signal_number = 0;
	if (sigsetjmp(caught, 1) == 0)
		(void)*at;
	return signal_number;
}

/* The kernel resolves it alone. */
Test(fill, a_touch_of_a_guard_page_is_sigsegv_and_no_message)
{
	int uffd = uffd_new(WP);
	char *at = guarded(uffd);

	is_eq(signal_of_read(at), SIGSEGV);
	silent(uffd);
}

/* ---- poison: fill_poison ---- */

Test(fill, poison_is_sigbus_and_a_copy_heals_it)
{
	int uffd = uffd_new(WP | UFFD_FEATURE_POISON);
	char *at = registered(uffd, 1);

	is_eq(poison(uffd, at, PAGE), PAGE);
	is_eq(signal_of_read(at), SIGBUS);
	is_eq(signal_of_read(at), SIGBUS);
	silent(uffd);
	is_eq(poison(uffd, at, PAGE), -EEXIST);
	is_eq(zero_in(uffd, at, PAGE, 0), -EEXIST);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(read_unseen(uffd, at), 7);
}

static long poisoned_read(void *at)
{
	return signal_of_read(at);
}

Test(fill, poison_wakes_who_waits)
{
	int uffd = uffd_new(WP | UFFD_FEATURE_POISON);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_run(&d, poisoned_read, at);
	fault(uffd, at, F_READ);
	is_eq(poison(uffd, at, PAGE), PAGE);
	is_eq(deed_end(&d), SIGBUS);
}

Test(fill, a_present_page_is_not_poisoned)
{
	int uffd = uffd_new(WP | UFFD_FEATURE_POISON);
	char *at = registered(uffd, 1);

	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(poison(uffd, at, PAGE), -EEXIST);
	is_eq(read_unseen(uffd, at), 7);
}

/* ---- duplicates: every message is answered, whatever has happened to its page since ---- */

Test(fill, a_bare_wake_brings_the_fault_again)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_read(&d, at);
	fault(uffd, at, F_READ);
	silent(uffd); /* a message that has been read is not delivered again */
	is_eq(wake(uffd, at, PAGE), 0);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
}

static void nothing(int number)
{
	(void)number;
}

Test(fill, a_signal_brings_the_fault_again)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct sigaction action = {.sa_handler = nothing};
	struct deed d;

	sigaction(SIGUSR1, &action, NULL);
	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(pthread_kill(d.thread, SIGUSR1), 0);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
	silent(uffd);
}

/* Each thread has a message of its own, and one fill wakes them all. */
Test(fill, one_fill_wakes_all_who_wait_for_the_page)
{
	enum { N = 4 };
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d[N];

	for (int i = 0; i < N; i++)
		deed_read(&d[i], at);
	for (int i = 0; i < N; i++)
		fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	for (int i = 0; i < N; i++)
		is_eq(deed_end(&d[i]), 7);
	silent(uffd);
}

/* ---- what the client can do besides touching ---- */

Test(fill, populate_and_mlock_fault_through_the_uffd)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 2);
	struct deed d;

	deed_call(&d, SYS_madvise, at, PAGE, MADV_POPULATE_WRITE);
	fault(uffd, at, F_WRITE);
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 0);
	deed_call(&d, SYS_mlock, at + PAGE, PAGE, 0);
	fault(uffd, at + PAGE, F_WRITE);
	is_eq(copy_in(uffd, at + PAGE, page_of(1), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 0);
	silent(uffd);
}

Test(fill, mprotect_keeps_the_registration)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	is_eq(err(mprotect(at, PAGE, PROT_NONE)), 0);
	is_eq(signal_of_read(at), SIGSEGV); /* the kernel's own answer comes first */
	silent(uffd);
	is_eq(err(mprotect(at, PAGE, RW)), 0);
	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
}

/* What is mapped beside registered memory does not join it: pager/adopt.c has to find it. */
Test(fill, memory_mapped_beside_a_registered_mapping_is_not_registered)
{
	int uffd = uffd_new(WP), flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	char *at = region(2);

	is_eq(munmap(at + PAGE, PAGE), 0);
	is_eq(reg(uffd, at, PAGE, MODE_MW), 0);
	cr_assert(mmap(at + PAGE, PAGE, RW, flags, -1, 0) == at + PAGE);
	is_eq(write_unseen(uffd, at + PAGE), 'w');
}
