/* UFFDIO_MOVE, by which pages leave: what it takes, from where, and what it refuses. Relied on by
 * client/agent.c, whose results pager/evict.c reads. */
#include <liburing.h>

#include "kernel.h"

TestSuite(move, .timeout = 20);

#define PAGES 4

static char *source(int uffd)
{
	char *at = registered(uffd, PAGES);

	for (size_t i = 0; i < PAGES; i++)
		is_eq(copy_in(uffd, at + i * PAGE, page_of((char)(i + 1)), PAGE, 0), PAGE);
	return at;
}

static char *window(int uffd)
{
	char *at = region(PAGES);

	is_eq(reg(uffd, at, PAGES * PAGE, MODE_M), 0);
	return at;
}

Test(move, takes_a_run_away_and_tells_nobody)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);

	is_eq(move(uffd, to, from, PAGES * PAGE), PAGES * PAGE);
	silent(uffd);
	for (size_t i = 0; i < PAGES; i++) {
		is_eq(to[i * PAGE], i + 1);
		is_eq(entry(from + i * PAGE), 0);
	}
}

/* Between the two no event can have been read: the gate. */
Test(move, a_protected_run_that_is_moved_can_be_marked)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);

	is_eq(protect(uffd, from, PAGES * PAGE), 0);
	is_eq(move(uffd, to, from, PAGES * PAGE), PAGES * PAGE);
	is_eq(entry(from), 0); /* the protection has gone with the page */
	is_eq(entry(to) & (PM_PRESENT | PM_WP), PM_PRESENT);
	is_eq(protect(uffd, from, PAGES * PAGE), 0);
	for (size_t i = 0; i < PAGES; i++)
		cr_assert(is_marker(from + i * PAGE));
}

/* Why it is protected first, which fails there: else memory would be taken that nobody gave us. */
Test(move, does_not_ask_whether_its_source_is_registered)
{
	int uffd = uffd_new(ALL);
	char *from = region(1), *to = window(uffd);

	from[0] = 7;
	is_eq(protect(uffd, from, PAGE), -ENOENT);
	is_eq(move(uffd, to, from, PAGE), PAGE);
	is_eq(to[0], 7);
}

Test(move, asks_that_its_destination_is_registered)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = region(1);

	is_eq(move(uffd, to, from, PAGE), -EINVAL);
	is_eq(from[0], 1);
}

/* A result is a prefix; what stopped it is the result of the next call. */
Test(move, reports_what_it_did_before_it_stopped)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);
	struct uffdio_move m = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = PAGES * PAGE,
	};

	is_eq(move(uffd, to + 2 * PAGE, from + 2 * PAGE, PAGE), PAGE);
	is_eq(err(ioctl(uffd, UFFDIO_MOVE, &m)), -EAGAIN);
	is_eq(m.move, 2 * PAGE);
	m = (struct uffdio_move){
		.dst = (uintptr_t)to + 2 * PAGE,
		.src = (uintptr_t)from + 2 * PAGE,
		.len = 2 * PAGE,
	};
	is_eq(err(ioctl(uffd, UFFDIO_MOVE, &m)), -EEXIST); /* something is there already */
	is_eq(m.move, -EEXIST);
	is_eq(from[3 * PAGE], 4);
}

Test(move, refuses_an_empty_source)
{
	int uffd = uffd_new(ALL);
	char *from = registered(uffd, 2), *to = window(uffd);

	is_eq(protect(uffd, from + PAGE, PAGE), 0);
	is_eq(move(uffd, to, from, PAGE), -ENOENT);
	cr_assert(is_marker(from + PAGE));
	is_eq(move(uffd, to, from + PAGE, PAGE), -EFAULT);
	cr_assert(is_marker(from + PAGE)); /* it is left alone */
}

/* move_run tries one page where a run has come to span two. */
Test(move, stays_within_one_mapping)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);

	/* Two mappings now, and no event. */
	is_eq(err(madvise(from + 2 * PAGE, 2 * PAGE, MADV_DONTFORK)), 0);
	is_eq(move(uffd, to, from, PAGES * PAGE), -EINVAL);
	is_eq(move(uffd, to, from, PAGE), PAGE);
	is_eq(move(uffd, to + PAGE, from + PAGE, PAGE), PAGE);
}

/* There is a window for each protection that can leave; what else there is stays. */
Test(move, asks_for_the_same_protection)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);

	is_eq(err(mprotect(from, PAGES * PAGE, RW | PROT_EXEC)), 0);
	is_eq(move(uffd, to, from, PAGE), -EINVAL);
	is_eq(err(mprotect(to, PAGES * PAGE, RW | PROT_EXEC)), 0);
	is_eq(move(uffd, to, from, PAGE), PAGE);
	is_eq(err(mprotect(from, PAGES * PAGE, PROT_READ)), 0);
	is_eq(err(mprotect(to, PAGES * PAGE, PROT_READ)), 0);
	is_eq(move(uffd, to + PAGE, from + PAGE, PAGE), -EINVAL); /* writable both */
}

Test(move, leaves_locked_memory)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);

	is_eq(err(mlock(from, PAGES * PAGE)), 0);
	is_eq(move(uffd, to, from, PAGE), -EINVAL);
	is_eq(from[0], 1);
}

Test(move, is_for_anonymous_memory)
{
	int uffd = uffd_new(ALL), memfd = memfd_new(PAGE, 0);
	char *to = window(uffd), *shared = memfd_map(memfd, PAGE, MAP_SHARED);
	char *cow = memfd_map(memfd, PAGE, MAP_PRIVATE);

	shared[0] = cow[0] = 7;
	is_eq(move(uffd, to, shared, PAGE), -EINVAL);
	is_eq(move(uffd, to, cow, PAGE), -EINVAL);
}

Test(move, refuses_a_guard_page)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);

	if (madvise(from, PAGE, MADV_GUARD_INSTALL))
		cr_skip_test("this kernel has no guard pages (MADV_GUARD_INSTALL)");
	is_eq(move(uffd, to, from, PAGE), -EFAULT);
}

/* EXCHANGE_BUSY: the only way to learn of a pin. */
Test(move, refuses_a_pinned_page)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);
	struct iovec iov = {.iov_base = from, .iov_len = PAGE};
	struct io_uring ring;
	int r = io_uring_queue_init(4, &ring, 0);

	if (r < 0)
		cr_skip_test("no io_uring: %s", strerror(-r));
	is_eq(io_uring_register_buffers(&ring, &iov, 1), 0);
	is_eq(move(uffd, to, from, PAGE), -EBUSY);
	is_eq(move(uffd, to + PAGE, from + PAGE, PAGE), PAGE);
	is_eq(io_uring_unregister_buffers(&ring), 0);
	is_eq(move(uffd, to, from, PAGE), PAGE);
	io_uring_queue_exit(&ring);
}

static int waits(void *argument)
{
	turn_wait(argument, 1);
	return 0;
}

/* EXCHANGE_POPULATE, for tasks that have forked. */
Test(move, refuses_what_a_fork_has_shared_until_it_is_written)
{
	int uffd = uffd_new(MARKER | UFFD_FEATURE_MOVE);
	char *from = source(uffd), *to = window(uffd);
	struct turns *turns = turns_new();
	pid_t pid = child_new(waits, turns);

	is_eq(entry(from) & PM_EXCLUSIVE, 0);
	is_eq(move(uffd, to, from, PAGE), -EBUSY);
	is_eq(write_unseen(uffd, from), 'w'); /* copied: the child has the old one */
	is_eq(move(uffd, to, from, PAGE), PAGE);
	turn_set(turns, 1);
	is_eq(child_end(pid), 0);
	is_eq(entry(from + PAGE) & PM_EXCLUSIVE, PM_EXCLUSIVE); /* mapped once, and yet */
	is_eq(move(uffd, to + PAGE, from + PAGE, PAGE), -EBUSY);
	is_eq(err(madvise(from + PAGE, PAGE, MADV_POPULATE_WRITE)), 0);
	is_eq(move(uffd, to + PAGE, from + PAGE, PAGE), PAGE);
	is_eq(to[PAGE], 2);
}

/* do_wp_page: WAKE, and the writer comes back as a missing fault. */
Test(move, does_not_wake_who_waits_to_write)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd);
	struct deed d;

	is_eq(protect(uffd, from, PAGE), 0);
	deed_write(&d, from);
	fault(uffd, from, F_WP);
	is_eq(move(uffd, to, from, PAGE), PAGE);
	is_eq(protect(uffd, from, PAGE), 0);
	deed_waits(&d);
	is_eq(wake(uffd, from, PAGE), 0);
	fault(uffd, from, F_WRITE);
	cr_assert(is_marker(from));
	is_eq(move(uffd, from, to, PAGE), -EEXIST);
	is_eq(copy_in(uffd, from, to, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
	is_eq(from[1], 1);
	silent(uffd);
}

/* Unread events refuse it, so nothing is moved that an event has taken away: test_events.c. The
 * event need not concern either range. */
Test(move, is_refused_while_any_event_is_unread)
{
	int uffd = uffd_new(ALL);
	char *from = source(uffd), *to = window(uffd), *other = registered(uffd, 1);
	struct deed d;

	deed_call(&d, SYS_munmap, other, PAGE, 0);
	pending(uffd);
	is_eq(move(uffd, to, from, PAGE), -EAGAIN);
	event(uffd, UFFD_EVENT_UNMAP, other, PAGE);
	is_eq(deed_end(&d), 0);
	is_eq(move(uffd, to, from, PAGE), PAGE);
}
