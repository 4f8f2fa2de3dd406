/* memfds, shared and private. upager leaves files alone today; these are the facts on which paging
 * them would stand, and what happens where one is registered by mistake (pager/adopt.c). */
#include <setjmp.h>
#include <signal.h>

#include "kernel.h"

TestSuite(file, .timeout = 20);

#define SHMEM	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM)
#define SHMEM_W (SHMEM | WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

#define PAGES 4

struct file {
	int uffd, fd;
	char *at;    /* registered */
	char *other; /* a second mapping, shared and not registered */
};

static struct file file_new(uint64_t features, int flags, uint64_t modes)
{
	struct file f = {.uffd = uffd_new(features), .fd = memfd_new(PAGES * PAGE, 0)};

	f.at = memfd_map(f.fd, PAGES * PAGE, flags);
	f.other = memfd_map(f.fd, PAGES * PAGE, MAP_SHARED);
	is_eq(reg(f.uffd, f.at, PAGES * PAGE, modes), 0);
	return f;
}

static long punch(const struct file *f, size_t page)
{
	return err(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			     (off_t)(page * PAGE), PAGE));
}

/* ---- faults ---- */

Test(file, a_hole_is_missing_and_copy_fills_it_for_all)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M | MODE_N);
	struct deed d;

	deed_read(&d, f.at);
	fault(f.uffd, f.at, F_READ);
	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
	is_eq(byte_at(f.other), 7);
}

Test(file, what_is_cached_and_not_mapped_is_a_minor_fault)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M | MODE_N);
	struct deed d;

	f.other[0] = f.other[PAGE] = 7;
	deed_read(&d, f.at);
	fault(f.uffd, f.at, F_MINOR);
	is_eq(proceed(f.uffd, f.at, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
	deed_write(&d, f.at + PAGE);
	fault(f.uffd, f.at + PAGE, F_MINOR | F_WRITE);
	is_eq(proceed(f.uffd, f.at + PAGE, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
	is_eq(byte_at(f.other + PAGE), 'w');
	silent(f.uffd);
}

Test(file, continue_needs_a_cached_page_and_an_empty_pte)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M | MODE_N);

	is_eq(proceed(f.uffd, f.at, PAGE, 0), -EFAULT);
	f.other[0] = 7;
	is_eq(proceed(f.uffd, f.at, PAGE, 0), PAGE);
	is_eq(proceed(f.uffd, f.at, PAGE, 0), -EEXIST);
}

/* Either mode alone lets something pass by. */
Test(file, registered_missing_alone_cached_pages_come_silently)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M);

	is_eq(err(pwrite(f.fd, "x", 1, 0)), 1);
	is_eq(read_unseen(f.uffd, f.at), 'x');
}

Test(file, registered_minor_alone_holes_fill_silently)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_N);

	is_eq(read_unseen(f.uffd, f.at), 0);
}

Test(file, another_mapping_fills_a_hole_silently)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M | MODE_N);

	is_eq(byte_at(f.other), 0);
	silent(f.uffd);
	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, 0), -EEXIST);
	is_eq(byte_at(f.other), 0);
}

static sigjmp_buf caught;

static void on_sigbus(int number)
{
	siglongjmp(caught, number);
}

Test(file, beyond_the_end_is_sigbus_and_copy_fails)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M | MODE_N);
	struct sigaction action = {.sa_handler = on_sigbus};

	is_eq(err(ftruncate(f.fd, PAGE)), 0);
	is_eq(copy_in(f.uffd, f.at + PAGE, page_of(7), PAGE, 0), -EFAULT);
	sigaction(SIGBUS, &action, NULL);
	if (sigsetjmp(caught, 1) == 0) {
		(void)*(volatile char *)(f.at + PAGE);
		cr_assert_fail("no signal");
	}
	silent(f.uffd);
}

/* ---- write protection ---- */

Test(file, a_write_to_a_protected_shared_page_waits)
{
	struct file f = file_new(SHMEM_W, MAP_SHARED, MODE_MW | MODE_N);
	struct deed d;

	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(entry(f.at) & PM_WP, PM_WP);
	deed_write(&d, f.at);
	fault(f.uffd, f.at, F_WP);
	is_eq(byte_at(f.other), 7);
	is_eq(unprotect(f.uffd, f.at, PAGE), 0);
	is_eq(deed_end(&d), 'w');
	is_eq(byte_at(f.other), 'w');
}

/* Unlike anonymous memory's: here a marker is no proof that nothing was discarded. */
Test(file, discarding_a_protected_shared_page_leaves_a_marker)
{
	struct file f = file_new(SHMEM_W, MAP_SHARED, MODE_MW | MODE_N);
	struct deed d;

	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(err(madvise(f.at, PAGE, MADV_DONTNEED)), 0);
	cr_assert(is_marker(f.at));
	deed_read(&d, f.at);
	fault(f.uffd, f.at, F_MINOR); /* only the mapping was discarded */
	is_eq(proceed(f.uffd, f.at, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 7);
}

/* ---- discarding ---- */

Test(file, a_punched_hole_raises_no_event_and_is_missing)
{
	struct file f = file_new(SHMEM | UFFD_FEATURE_EVENT_REMOVE, MAP_SHARED, MODE_M | MODE_N);
	struct deed d;

	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, 0), PAGE);
	is_eq(punch(&f, 0), 0);
	silent(f.uffd);
	is_eq(entry(f.at), 0);
	deed_read(&d, f.at);
	fault(f.uffd, f.at, F_READ);
	is_eq(copy_in(f.uffd, f.at, page_of(8), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 8);
}

static void removes(int advice, uint64_t then)
{
	struct file f = file_new(SHMEM | UFFD_FEATURE_EVENT_REMOVE, MAP_SHARED, MODE_M | MODE_N);
	struct deed d;

	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, 0), PAGE);
	deed_call(&d, SYS_madvise, f.at, PAGE, advice);
	event(f.uffd, UFFD_EVENT_REMOVE, f.at, PAGE);
	is_eq(deed_end(&d), 0);
	deed_read(&d, f.at);
	fault(f.uffd, f.at, then);
	if (then == F_MINOR)
		is_eq(proceed(f.uffd, f.at, PAGE, 0), PAGE);
	else
		is_eq(zero_in(f.uffd, f.at, PAGE, 0), PAGE);
	is_eq(deed_end(&d), then == F_MINOR ? 7 : 0);
}

/* The event is the same, and what it means is not. */
Test(file, dontneed_raises_remove_and_keeps_the_content)
{
	removes(MADV_DONTNEED, F_MINOR);
}

Test(file, madv_remove_raises_remove_and_discards_the_content)
{
	removes(MADV_REMOVE, F_READ);
}

/* ---- private ---- */

Test(file, a_copied_page_of_a_private_mapping_survives_a_punch)
{
	struct file f = file_new(SHMEM, MAP_PRIVATE, MODE_M | MODE_N);
	struct deed d;

	f.other[0] = f.other[PAGE] = 7;
	deed_write(&d, f.at);
	fault(f.uffd, f.at, F_MINOR | F_WRITE);
	is_eq(proceed(f.uffd, f.at, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 'w');
	is_eq(proceed(f.uffd, f.at + PAGE, PAGE, 0), PAGE);
	is_eq(byte_at(f.other), 7); /* the kernel has copied it */
	is_eq(punch(&f, 0), 0);
	is_eq(punch(&f, 1), 0);
	silent(f.uffd);
	is_eq(byte_at(f.at), 'w');
	cr_assert(!is_present(f.at + PAGE)); /* that was the file's */
}

Test(file, copy_into_a_private_mapping_leaves_the_file_alone)
{
	struct file f = file_new(SHMEM, MAP_PRIVATE, MODE_M | MODE_N);

	f.other[PAGE] = 7;
	is_eq(copy_in(f.uffd, f.at, page_of(8), PAGE, 0), PAGE);
	is_eq(copy_in(f.uffd, f.at + PAGE, page_of(8), PAGE, 0), PAGE); /* cached or not */
	is_eq(byte_at(f.at), 8);
	is_eq(byte_at(f.at + PAGE), 8);
	is_eq(byte_at(f.other), 0);
	is_eq(byte_at(f.other + PAGE), 7);
}

/* REGISTER by mistake: what is not in the file reads as zeros, served by ZEROPAGE or by the kernel.
 */
Test(file, zeropage_serves_a_private_mapping)
{
	struct file f = file_new(SHMEM, MAP_PRIVATE, MODE_M);
	struct deed d;

	deed_read(&d, f.at);
	fault(f.uffd, f.at, F_READ);
	is_eq(zero_in(f.uffd, f.at, PAGE, 0), PAGE);
	is_eq(deed_end(&d), 0);
	is_eq(write_unseen(f.uffd, f.at), 'w');
	is_eq(byte_at(f.other), 0);
}

/* ---- fork ---- */

static int writes(void *at)
{
	*(volatile char *)at = 'c';
	return 0;
}

Test(file, fork_does_not_copy_what_is_shared)
{
	struct file f = file_new(SHMEM, MAP_SHARED, MODE_M | MODE_N);

	is_eq(copy_in(f.uffd, f.at, page_of(7), PAGE, 0), PAGE);
	is_eq(child_run(writes, f.at), 0);
	is_eq(byte_at(f.at), 'c');
}
