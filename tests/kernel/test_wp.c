/* Write protection, and the marker that it leaves on an empty pte: upager's "evicted, not
 * discarded". */
#include <liburing.h>

#include "kernel.h"

TestSuite(wp, .timeout = 20);

/* A page of content, protected. */
static char *protected_page(int uffd, char byte)
{
	char *at = registered(uffd, 1);

	is_eq(copy_in(uffd, at, page_of(byte), PAGE, 0), PAGE);
	is_eq(protect(uffd, at, PAGE), 0);
	return at;
}

static char *marked(int uffd, size_t pages)
{
	char *at = registered(uffd, pages);

	is_eq(protect(uffd, at, pages * PAGE), 0);
	for (size_t i = 0; i < pages; i++)
		cr_assert(is_marker(at + i * PAGE));
	return at;
}

static void faults_as_missing(int uffd, char *at)
{
	struct deed d;

	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
	silent(uffd);
}

/* ---- present pages ---- */

/* pager/fault.c: do_wp_page */
Test(wp, a_write_to_a_protected_page_waits_until_it_is_unprotected)
{
	int uffd = uffd_new(WP);
	char *at = protected_page(uffd, 7);
	struct deed d;

	is_eq(entry(at) & (PM_PRESENT | PM_WP), PM_PRESENT | PM_WP);
	is_eq(read_unseen(uffd, at), 7);
	deed_write(&d, at);
	fault(uffd, at, F_WP);
	deed_waits(&d);
	is_eq(unprotect(uffd, at, PAGE), 0); /* and this wakes */
	is_eq(deed_end(&d), 'w');
	is_eq(entry(at) & (PM_PRESENT | PM_WP), PM_PRESENT);
	silent(uffd);
}

/* So a present page is unprotected, never merely woken: the message would come for ever. */
Test(wp, a_bare_wake_brings_the_write_again)
{
	int uffd = uffd_new(WP);
	char *at = protected_page(uffd, 7);
	struct deed d;

	deed_write(&d, at);
	for (int i = 0; i < 3; i++) {
		fault(uffd, at, F_WP);
		is_eq(wake(uffd, at, PAGE), 0);
	}
	fault(uffd, at, F_WP);
	is_eq(unprotect(uffd, at, PAGE), 0);
	is_eq(deed_end(&d), 'w');
}

/* clean = wp: what comes back after a read tells of its first write. */
Test(wp, copy_can_install_protected)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	is_eq(copy_in(uffd, at, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(entry(at) & (PM_PRESENT | PM_WP), PM_PRESENT | PM_WP);
	deed_write(&d, at);
	fault(uffd, at, F_WP);
	is_eq(unprotect(uffd, at, PAGE), 0);
	is_eq(deed_end(&d), 'w');
}

/* The write that brought it in comes a second time. */
Test(wp, a_write_to_a_missing_page_that_is_installed_protected_comes_twice)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_write(&d, at);
	fault(uffd, at, F_WRITE);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	fault(uffd, at, F_WP);
	is_eq(unprotect(uffd, at, PAGE), 0);
	is_eq(deed_end(&d), 'w');
	silent(uffd);
}

Test(wp, protection_of_a_present_page_goes_with_its_content)
{
	int uffd = uffd_new(WP);
	char *at = protected_page(uffd, 7);

	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	is_eq(entry(at), 0);
}

/* The agent's move_run protects first. What is not registered stops it there, and what came before
 * stays protected: not all or nothing. */
Test(wp, protecting_stops_at_a_mapping_that_is_not_registered)
{
	int uffd = uffd_new(MARKER);
	char *at = region(3);

	is_eq(reg(uffd, at, PAGE, MODE_MW), 0);
	is_eq(reg(uffd, at + 2 * PAGE, PAGE, MODE_MW), 0);
	at[PAGE] = 1;
	is_eq(protect(uffd, at, 3 * PAGE), -ENOENT);
	cr_assert(is_marker(at));
	is_eq(entry(at + PAGE) & (PM_PRESENT | PM_WP), PM_PRESENT);
	is_eq(entry(at + 2 * PAGE), 0);
}

Test(wp, protecting_passes_over_what_is_not_mapped)
{
	int uffd = uffd_new(MARKER);
	char *at = registered(uffd, 3);

	is_eq(munmap(at + PAGE, PAGE), 0);
	is_eq(protect(uffd, at + PAGE, PAGE), -ENOENT); /* but there must be something */
	is_eq(protect(uffd, at, 3 * PAGE), 0);
	cr_assert(is_marker(at) && is_marker(at + 2 * PAGE));
}

/* Eviction of a page that a device writes to is refused by MOVE; protection does not hold it off.
 */
Test(wp, a_write_to_a_pinned_page_passes_by_protection)
{
	int uffd = uffd_new(WP), file = memfd_new(PAGE, 0);
	char *at = registered(uffd, 1);
	struct iovec iov = {.iov_base = at, .iov_len = PAGE};
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	int r = io_uring_queue_init(4, &ring, 0);

	if (r < 0)
		cr_skip_test("no io_uring: %s", strerror(-r));
	is_eq(err(pwrite(file, "changed", 7, 0)), 7);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(io_uring_register_buffers(&ring, &iov, 1), 0);
	is_eq(protect(uffd, at, PAGE), 0);
	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), file, at, 7, 0, 0);
	is_eq(io_uring_submit(&ring), 1);
	is_eq(io_uring_wait_cqe(&ring, &cqe), 0);
	is_eq(cqe->res, 7);
	is_eq(memcmp(at, "changed", 7), 0);
	is_eq(entry(at) & PM_WP, PM_WP);
	silent(uffd);
	io_uring_queue_exit(&ring);
}

/* ---- markers ---- */

/* Without it no eviction: pager/gate.c, sys/uffd.c. */
Test(wp, protecting_an_empty_pte_leaves_a_marker_only_with_wp_unpopulated)
{
	int uffd = uffd_new(MARKER), other = uffd_new(WP);
	char *at = registered(uffd, 1), *bare = registered(other, 1);

	is_eq(protect(uffd, at, PAGE), 0);
	is_eq(entry(at), PM_SWAP | PM_WP);
	is_eq(protect(other, bare, PAGE), 0);
	is_eq(entry(bare), 0);
}

/* sys/pagemap.c: PAGEMAP_MARKER */
Test(wp, a_marker_shows_in_pagemap_scan_as_swapped_and_not_written)
{
	int uffd = uffd_new(MARKER), pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *at = marked(uffd, 1);

	is_eq(categories(pagemap, at), PAGE_IS_SWAPPED);
}

Test(wp, a_marker_faults_as_missing)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 2);
	struct deed d;

	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
	deed_write(&d, at + PAGE);
	fault(uffd, at + PAGE, F_WRITE);
	is_eq(copy_in(uffd, at + PAGE, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
	silent(uffd);
}

/* A fill without MODE_WP leaves nothing behind that would fault again. */
Test(wp, copy_replaces_a_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 2);

	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(entry(at) & (PM_PRESENT | PM_WP), PM_PRESENT);
	is_eq(write_unseen(uffd, at), 'w');
	is_eq(copy_in(uffd, at + PAGE, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(entry(at + PAGE) & (PM_PRESENT | PM_WP), PM_PRESENT | PM_WP);
}

/* pager/fill.c: zero_over_marker; and the probe for a child that has not said hello, fill_is_ours.
 */
Test(wp, zeropage_refuses_a_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(zero_in(uffd, at, PAGE, 0), -EEXIST);
	cr_assert(is_marker(at));
	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	is_eq(zero_in(uffd, at, PAGE, 0), PAGE);
}

/* So a message about a page that is not present is answered by WAKE alone. */
Test(wp, unprotecting_a_hole_erases_the_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(unprotect(uffd, at, PAGE), 0);
	is_eq(entry(at), 0);
}

Test(wp, waking_leaves_the_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(wake(uffd, at, PAGE), 0);
	cr_assert(is_marker(at));
}

Test(wp, protecting_again_leaves_the_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(protect(uffd, at, PAGE), 0);
	cr_assert(is_marker(at));
}

/* ---- what keeps a marker ---- */

/* pager/event.c: a moved range takes its words along, and the markers say which. */
Test(wp, a_marker_moves_with_mremap)
{
	int uffd = uffd_new(MARKER | UFFD_FEATURE_EVENT_REMAP);
	char *at = marked(uffd, 2), *to = region(2);
	struct deed d;

	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), PAGE);
	deed_mremap(&d, at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	event_remap(uffd, at, to, 2 * PAGE);
	is_eq(deed_end(&d), (long)to);
	is_eq(to[0], 1);
	cr_assert(is_marker(to + PAGE));
	faults_as_missing(uffd, to + PAGE);
}

Test(wp, a_marker_stays_through_mprotect)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(err(mprotect(at, PAGE, PROT_NONE)), 0);
	cr_assert(is_marker(at));
	is_eq(err(mprotect(at, PAGE, RW)), 0);
	cr_assert(is_marker(at));
}

Test(wp, a_marker_stays_through_mlock_and_advice)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(err(mlock2(at, PAGE, MLOCK_ONFAULT)), 0);
	is_eq(err(munlock(at, PAGE)), 0);
	is_eq(err(madvise(at, PAGE, MADV_COLD)), 0);
	is_eq(err(madvise(at, PAGE, MADV_PAGEOUT)), 0);
	is_eq(err(madvise(at, PAGE, MADV_RANDOM)), 0);
	cr_assert(is_marker(at));
}

Test(wp, a_marker_stays_when_its_range_is_registered_again)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(reg(uffd, at, PAGE, MODE_MW), 0);
	cr_assert(is_marker(at));
}

/* ---- what clears it: all that discards ---- */

Test(wp, dontneed_clears_a_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	is_eq(entry(at), 0);
	faults_as_missing(uffd, at);
}

/* MADV_FREE says that the content may go: it leaves the marker, and the word dies by the event. */
Test(wp, madv_free_keeps_a_marker)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(err(madvise(at, PAGE, MADV_FREE)), 0);
	cr_assert(is_marker(at));
}

Test(wp, unmapping_and_mapping_anew_clears_a_marker)
{
	int uffd = uffd_new(MARKER), flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *at = marked(uffd, 1);

	is_eq(munmap(at, PAGE), 0);
	cr_assert(mmap(at, PAGE, RW, flags | MAP_FIXED_NOREPLACE, -1, 0) == at);
	is_eq(entry(at), 0);
	is_eq(read_unseen(uffd, at), 0); /* and it is not registered */
}

Test(wp, mapping_over_it_clears_a_marker)
{
	int uffd = uffd_new(MARKER), flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *at = marked(uffd, 1);

	cr_assert(mmap(at, PAGE, RW, flags | MAP_FIXED, -1, 0) == at);
	is_eq(entry(at), 0);
	is_eq(read_unseen(uffd, at), 0);
}

/* pager/adopt.c: nothing of the client's is ever unregistered. */
Test(wp, unregister_erases_markers)
{
	int uffd = uffd_new(MARKER);
	char *at = marked(uffd, 1);

	is_eq(unreg(uffd, at, PAGE), 0);
	is_eq(entry(at), 0);
	is_eq(read_unseen(uffd, at), 0);
}

/* ---- who waits at a protected page that leaves ---- */

/* evict.c: stays(), fault.c: the writer is woken and comes back as a missing fault. */
Test(wp, a_writer_whose_page_is_discarded_is_not_woken)
{
	int uffd = uffd_new(MARKER);
	char *at = protected_page(uffd, 7);
	struct deed d;

	deed_write(&d, at);
	fault(uffd, at, F_WP);
	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	deed_waits(&d);
	is_eq(wake(uffd, at, PAGE), 0);
	fault(uffd, at, F_WRITE);
	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
}

Test(wp, unregister_does_not_wake_a_writer)
{
	int uffd = uffd_new(WP);
	char *at = region(1);
	struct deed d;

	at[0] = 7;
	is_eq(reg(uffd, at, PAGE, MODE_W), 0);
	is_eq(protect(uffd, at, PAGE), 0);
	deed_write(&d, at);
	fault(uffd, at, F_WP);
	is_eq(unreg(uffd, at, PAGE), 0);
	deed_waits(&d);
	is_eq(wake(uffd, at, PAGE), 0);
	is_eq(deed_end(&d), 'w');
}
