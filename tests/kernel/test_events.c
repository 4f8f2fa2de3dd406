/* What the client does to its mappings, as pager/event.c hears of it: order, ranges, and what fails
 * meanwhile. */
#include <sched.h>

#include "kernel.h"

TestSuite(events, .timeout = 20);

#define REMOVE UFFD_FEATURE_EVENT_REMOVE
#define UNMAP  UFFD_FEATURE_EVENT_UNMAP
#define REMAP  UFFD_FEATURE_EVENT_REMAP

#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static char *filled(int uffd, size_t pages)
{
	char *at = registered(uffd, pages);

	for (size_t i = 0; i < pages; i++)
		is_eq(copy_in(uffd, at + i * PAGE, page_of(7), PAGE, 0), PAGE);
	return at;
}

/* ---- each event ---- */

/* So REMOVE kills the words of its range when it is read. */
Test(events, remove_is_told_before_the_pages_go)
{
	int uffd = uffd_new(WP | REMOVE);
	char *at = filled(uffd, 3);
	struct deed d;

	deed_call(&d, SYS_madvise, at, 2 * PAGE, MADV_DONTNEED);
	pending(uffd);
	cr_assert(is_present(at) && is_present(at + PAGE));
	deed_waits(&d);
	event(uffd, UFFD_EVENT_REMOVE, at, 2 * PAGE);
	is_eq(deed_end(&d), 0);
	is_eq(entry(at), 0);
	is_eq(entry(at + PAGE), 0);
	cr_assert(is_present(at + 2 * PAGE));
	silent(uffd);
}

Test(events, madv_free_raises_remove)
{
	int uffd = uffd_new(WP | REMOVE);
	char *at = filled(uffd, 1);
	struct deed d;

	deed_call(&d, SYS_madvise, at, PAGE, MADV_FREE);
	event(uffd, UFFD_EVENT_REMOVE, at, PAGE);
	is_eq(deed_end(&d), 0);
}

Test(events, locked_pages_are_not_discarded)
{
	int uffd = uffd_new(WP | REMOVE);
	char *at = filled(uffd, 1);

	is_eq(err(mlock(at, PAGE)), 0);
	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), -EINVAL);
	silent(uffd);
	is_eq(at[0], 7);
}

static bool is_mapped(char *at)
{
	unsigned char resident;

	return err(mincore(at, PAGE, &resident)) == 0;
}

Test(events, unmap_is_told_after_the_mapping_is_gone)
{
	int uffd = uffd_new(WP | UNMAP);
	char *at = filled(uffd, 2);
	struct deed d;

	deed_call(&d, SYS_munmap, at, 2 * PAGE, 0);
	pending(uffd);
	cr_assert(!is_mapped(at) && !is_mapped(at + PAGE));
	deed_waits(&d);
	event(uffd, UFFD_EVENT_UNMAP, at, 2 * PAGE);
	is_eq(deed_end(&d), 0);
	silent(uffd);
}

Test(events, mapping_over_registered_memory_raises_unmap_and_is_not_registered)
{
	int uffd = uffd_new(WP | UNMAP);
	char *at = filled(uffd, 3);
	struct deed d;

	deed_start(&d, SYS_mmap, (long)at + (long)PAGE, PAGE, RW, ANON | MAP_FIXED, -1);
	event(uffd, UFFD_EVENT_UNMAP, at + PAGE, PAGE);
	is_eq(deed_end(&d), (long)at + (long)PAGE);
	is_eq(read_unseen(uffd, at + PAGE), 0);
	is_eq(at[0], 7);
	is_eq(at[2 * PAGE], 7);
}

Test(events, remap_is_told_after_the_pages_have_moved)
{
	int uffd = uffd_new(WP | REMAP | UNMAP);
	char *at = filled(uffd, 2), *to = region(2);
	struct deed d;

	deed_mremap(&d, at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	pending(uffd);
	cr_assert(!is_mapped(at) && is_present(to) && is_present(to + PAGE));
	deed_waits(&d);
	event_remap(uffd, at, to, 2 * PAGE);
	event(uffd, UFFD_EVENT_UNMAP, at, 2 * PAGE);
	is_eq(deed_end(&d), (long)to);
	is_eq(to[0], 7);
	silent(uffd);
}

/* The moved range stays registered, and with it what it grew by. */
Test(events, a_moved_range_is_registered_where_it_is)
{
	int uffd = uffd_new(WP | REMAP);
	char *at = registered(uffd, 1), *to = region(2);
	struct deed d;

	deed_mremap(&d, at, PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	event_remap(uffd, at, to, PAGE);
	is_eq(deed_end(&d), (long)to);
	for (size_t i = 0; i < 2; i++) {
		deed_read(&d, to + i * PAGE);
		fault(uffd, to + i * PAGE, F_READ);
		is_eq(zero_in(uffd, to + i * PAGE, PAGE, 0), PAGE);
		deed_end(&d);
	}
}

/* Which is why the event is asked for even where nobody acts on it. */
Test(events, without_remap_events_a_moved_range_is_no_longer_registered)
{
	int uffd = uffd_new(MARKER);
	char *at = registered(uffd, 1), *to = region(1);

	is_eq(protect(uffd, at, PAGE), 0);
	cr_assert(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	is_eq(entry(to), 0);
	is_eq(read_unseen(uffd, to), 0);
}

/* A fault may lie beyond what is known of a mapping. */
Test(events, growth_in_place_is_registered_and_untold)
{
	int uffd = uffd_new(WP | REMAP | UNMAP);
	char *at = region(2);
	struct deed d;

	is_eq(munmap(at + PAGE, PAGE), 0);
	is_eq(reg(uffd, at, PAGE, MODE_MW), 0);
	cr_assert(mremap(at, PAGE, 2 * PAGE, 0) == at);
	silent(uffd);
	deed_read(&d, at + PAGE);
	fault(uffd, at + PAGE, F_READ);
	is_eq(zero_in(uffd, at + PAGE, PAGE, 0), PAGE);
	deed_end(&d);
}

Test(events, dontunmap_raises_remap_alone_and_leaves_the_old_range_empty)
{
	int uffd = uffd_new(WP | REMAP | UNMAP);
	char *at = filled(uffd, 1), *to = region(1);
	struct deed d;

	deed_mremap(&d, at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);
	event_remap(uffd, at, to, PAGE);
	is_eq(deed_end(&d), (long)to);
	silent(uffd);
	is_eq(to[0], 7);
	cr_assert(is_mapped(at));
	is_eq(entry(at), 0);
	/* Empty, and still registered. */
	deed_read(&d, at);
	fault(uffd, at, F_READ);
	is_eq(zero_in(uffd, at, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 0);
}

/* Why whole mappings are registered, and a seam is closed at once: pager/adopt.c. */
Test(events, mremap_fails_across_the_edge_of_what_is_registered)
{
	int uffd = uffd_new(WP | REMAP | UNMAP);
	char *at = region(4), *to = region(4);
	struct deed d;

	is_eq(reg(uffd, at, 2 * PAGE, MODE_MW), 0);
	is_eq(err(mremap(at, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE)), -EFAULT);
	silent(uffd);
	is_eq(reg(uffd, at + 2 * PAGE, 2 * PAGE, MODE_MW), 0); /* the two become one again */
	deed_mremap(&d, at, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	event_remap(uffd, at, to, 4 * PAGE);
	event(uffd, UFFD_EVENT_UNMAP, at, 4 * PAGE);
	is_eq(deed_end(&d), (long)to);
}

/* Only what is registered is told of, and of what is told only that part. */
Test(events, nothing_is_told_of_memory_that_is_not_registered)
{
	int uffd = uffd_new(WP | REMOVE | UNMAP | REMAP);
	char *at = region(3), *to = region(1);

	is_eq(reg(uffd, at + PAGE, PAGE, MODE_MW), 0);
	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	cr_assert(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	is_eq(munmap(at + 2 * PAGE, PAGE), 0);
	silent(uffd);
}

/* client/agent.c: staging_clear. To discard a registered window would stop all fills. */
Test(events, after_unregister_discarding_is_untold)
{
	int uffd = uffd_new(WP | REMOVE);
	char *at = filled(uffd, 1);

	is_eq(unreg(uffd, at, PAGE), 0);
	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	silent(uffd);
	is_eq(reg(uffd, at, PAGE, MODE_M), 0);
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), PAGE);
}

/* ---- what fails meanwhile ---- */

/* sys/uffd.c: UFFD_RETRY; event.c: limbo_purge asks so whether all events have been read. */
Test(events, while_an_event_is_unread_whatever_installs_answers_eagain)
{
	int uffd = uffd_new(MARKER | REMOVE | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON);
	char *at = filled(uffd, 4);
	struct uffdio_copy copy = {
		.dst = (uintptr_t)at + PAGE,
		.src = (uintptr_t)page_of(1),
		.len = PAGE,
	};
	struct deed d;

	is_eq(err(madvise(at + PAGE, 0, MADV_DONTNEED)), 0); /* nothing: no event */
	silent(uffd);
	deed_call(&d, SYS_madvise, at, PAGE, MADV_DONTNEED);
	pending(uffd);
	is_eq(err(ioctl(uffd, UFFDIO_COPY, &copy)), -EAGAIN);
	cr_assert(copy.copy <= 0, "copy says %lld", copy.copy);
	is_eq(zero_in(uffd, at + PAGE, PAGE, 0), -EAGAIN);
	is_eq(protect(uffd, at + PAGE, PAGE), -EAGAIN);
	is_eq(unprotect(uffd, at + PAGE, PAGE), -EAGAIN);
	is_eq(poison(uffd, at + PAGE, PAGE), -EAGAIN);
	is_eq(move(uffd, at + PAGE, at + 2 * PAGE, PAGE), -EAGAIN);
	is_eq(wake(uffd, at + PAGE, PAGE), 0);
	is_eq(reg(uffd, at, 4 * PAGE, MODE_MW), 0);
	event(uffd, UFFD_EVENT_REMOVE, at, PAGE);
	is_eq(deed_end(&d), 0);
	is_eq(protect(uffd, at + PAGE, PAGE), 0);
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), PAGE);
}

static void on_processor(pid_t tid, int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	is_eq(err(sched_setaffinity(tid, sizeof(set), &set)), 0);
}

/* No further message tells that it is over: so who was refused asks again after a while
 * (worker.c, task_retry). The event's thread is kept from running by our greed for its
 * processor. */
Test(events, eagain_lasts_until_the_thread_of_the_event_has_run)
{
	struct sched_param first = {.sched_priority = 1}, last = {0};
	int uffd = uffd_new(WP | REMOVE), processor = sched_getcpu();
	char *at = filled(uffd, 2);
	struct deed d;
	long results[50];
	bool ran;

	is_eq(err(madvise(at + PAGE, PAGE, MADV_NORMAL)), 0);
	deed_call(&d, SYS_madvise, at, PAGE, MADV_DONTNEED);
	pending(uffd);
	deed_waits(&d); /* it sleeps by now */
	on_processor(d.tid, processor);
	on_processor(0, processor);
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		cr_skip_test("no SCHED_FIFO: %s", strerror(errno));
	event(uffd, UFFD_EVENT_REMOVE, at, PAGE);
	for (int i = 0; i < 50; i++)
		results[i] = copy_in(uffd, at + PAGE, page_of(1), PAGE, 0);
	ran = d.done;
	is_eq(sched_setscheduler(0, SCHED_OTHER, &last), 0);
	cr_assert(!ran);
	for (int i = 0; i < 50; i++)
		is_eq(results[i], -EAGAIN);
	is_eq(deed_end(&d), 0);
	is_eq(copy_in(uffd, at + PAGE, page_of(1), PAGE, 0), -EEXIST);
}

/* client/agent.c discards no memory of the client's: this is how that lost data. */
Test(events, dontneed_is_not_held_off_by_an_unread_unmap)
{
	int uffd = uffd_new(WP | UNMAP | UFFD_FEATURE_MOVE);
	char *at = filled(uffd, 1), *window = registered(uffd, 1);
	struct deed d;

	deed_call(&d, SYS_munmap, at, PAGE, 0);
	pending(uffd);
	cr_assert(mmap(at, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == at);
	at[0] = 9;
	is_eq(move(uffd, window, at, PAGE), -EAGAIN); /* as is MOVE */
	is_eq(at[0], 9);
	is_eq(err(madvise(at, PAGE, MADV_DONTNEED)), 0);
	is_eq(at[0], 0);
	event(uffd, UFFD_EVENT_UNMAP, at, PAGE);
	is_eq(deed_end(&d), 0);
}

/* ---- order ---- */

/* event.c reads all there is, and applies events before faults. */
Test(events, faults_are_read_before_older_events)
{
	int uffd = uffd_new(WP | REMOVE);
	char *at = filled(uffd, 1), *missing = registered(uffd, 1);
	struct deed remove, touch;

	deed_call(&remove, SYS_madvise, at, PAGE, MADV_DONTNEED);
	pending(uffd);
	deed_read(&touch, missing);
	faults_pending(uffd, 1);
	fault(uffd, missing, F_READ);
	event(uffd, UFFD_EVENT_REMOVE, at, PAGE);
	is_eq(deed_end(&remove), 0);
	is_eq(zero_in(uffd, missing, PAGE, 0), PAGE);
	deed_end(&touch);
}
