/* What a client's descriptors of its own /proc files tell the daemon. Relied on by sys/pagemap.c
 * and sys/procmaps.c. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "kernel.h"

TestSuite(pagemap, .timeout = 20);

static int own_pagemap(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	cr_assert(fd >= 0);
	return fd;
}

static long scan(int fd, const char *at, size_t pages, uint64_t mask, uint64_t inverted,
		 struct page_region *found, size_t n, size_t max_pages, uint64_t *ret_end)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)at,
		.end = (uintptr_t)at + pages * PAGE,
		.vec = (uintptr_t)found,
		.vec_len = n,
		.max_pages = max_pages,
		.category_mask = mask,
		.category_inverted = inverted,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	long r = err(ioctl(fd, PAGEMAP_SCAN, &arg));

	if (r == -ENOTTY)
		cr_skip_test("this kernel lacks PAGEMAP_SCAN");
	*ret_end = arg.walk_end;
	return r;
}

/* ---- what a page is ---- */

Test(pagemap, categories_of_anonymous_pages)
{
	enum { ANY = PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO | PAGE_IS_FILE };
	int fd = own_pagemap();
	char *at = region(3);

	at[PAGE] = 1;
	(void)byte_at(at + 2 * PAGE);
	is_eq(categories(fd, at) & ANY, 0);
	is_eq(categories(fd, at + PAGE) & ANY, PAGE_IS_PRESENT);
	is_eq(categories(fd, at + 2 * PAGE) & ANY, PAGE_IS_PRESENT | PAGE_IS_PFNZERO);
}

/* PAGEMAP_RESIDENT: markers, guards and poison look like swap, so only PRESENT is memory. And
 * PAGEMAP_MARKER: of the three only a marker has the uffd-wp bit. */
Test(pagemap, guards_and_poison_look_swapped_and_are_no_markers)
{
	int fd = own_pagemap(), uffd = uffd_new(MARKER | UFFD_FEATURE_POISON);
	char *at = registered(uffd, 3);

	is_eq(protect(uffd, at, PAGE), 0);
	is_eq(poison(uffd, at + PAGE, PAGE), PAGE);
	is_eq(categories(fd, at), PAGE_IS_SWAPPED);
	is_eq(categories(fd, at + PAGE), PAGE_IS_SWAPPED | PAGE_IS_WRITTEN);
	is_eq(entry(at + PAGE), PM_SWAP);
	if (madvise(at + 2 * PAGE, PAGE, MADV_GUARD_INSTALL))
		cr_skip_test("this kernel has no guard pages (MADV_GUARD_INSTALL)");
	is_eq(categories(fd, at + 2 * PAGE), PAGE_IS_SWAPPED | PAGE_IS_WRITTEN);
	is_eq(entry(at + 2 * PAGE), PM_SWAP);
}

Test(pagemap, written_means_not_protected)
{
	int fd = own_pagemap(), uffd = uffd_new(WP);
	char *at = registered(uffd, 1);

	is_eq(copy_in(uffd, at, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(categories(fd, at) & (PAGE_IS_PRESENT | PAGE_IS_WRITTEN), PAGE_IS_PRESENT);
	is_eq(unprotect(uffd, at, PAGE), 0);
	is_eq(categories(fd, at) & (PAGE_IS_PRESENT | PAGE_IS_WRITTEN),
	      PAGE_IS_PRESENT | PAGE_IS_WRITTEN);
}

static int waits(void *argument)
{
	turn_wait(argument, 1);
	return 0;
}

/* hand.c asks which pages a fork shares (pagemap_exclusive). */
Test(pagemap, exclusive_means_mapped_once)
{
	struct turns *turns = turns_new();
	char *at = region(2);
	pid_t pid;

	at[0] = at[PAGE] = 1;
	is_eq(entry(at), PM_PRESENT | PM_EXCLUSIVE);
	pid = child_new(waits, turns);
	is_eq(entry(at), PM_PRESENT);
	at[PAGE] = 2;
	is_eq(entry(at + PAGE), PM_PRESENT | PM_EXCLUSIVE);
	turn_set(turns, 1);
	is_eq(child_end(pid), 0);
	is_eq(entry(at), PM_PRESENT | PM_EXCLUSIVE);
}

/* ---- the scan ---- */

Test(pagemap, a_scan_merges_neighbours_and_says_how_far_it_came)
{
	int fd = own_pagemap();
	struct page_region found[4];
	char *at = region(16);
	uint64_t end;

	at[PAGE] = at[2 * PAGE] = at[5 * PAGE] = at[9 * PAGE] = 1;
	is_eq(scan(fd, at, 16, PAGE_IS_PRESENT, 0, found, 4, 0, &end), 3);
	is_eq(found[0].start, (uintptr_t)at + PAGE);
	is_eq(found[0].end, (uintptr_t)at + 3 * PAGE);
	is_eq(found[1].start, (uintptr_t)at + 5 * PAGE);
	is_eq(found[2].end, (uintptr_t)at + 10 * PAGE);
	is_eq(end, (uintptr_t)at + 16 * PAGE);
}

/* Then the next scan goes on from there, and misses nothing. */
static void continues(size_t n, size_t max_pages)
{
	int fd = own_pagemap(), seen = 0;
	struct page_region found[4];
	char *at = region(16);
	uint64_t end = (uintptr_t)at, last = (uintptr_t)at + 16 * PAGE;

	for (size_t i = 1; i < 16; i += 2)
		at[i * PAGE] = 1;
	while (end < last) {
		const char *from = (const char *)(uintptr_t)end;
		long r = scan(fd, from, (last - end) / PAGE, PAGE_IS_PRESENT, 0, found, n,
			      max_pages, &end);

		cr_assert(r >= 0 && r <= 2 && end > (uintptr_t)from);
		for (long i = 0; i < r; i++)
			seen += (int)((found[i].end - found[i].start) / PAGE);
	}
	is_eq(seen, 8);
}

Test(pagemap, a_scan_that_is_out_of_room_is_continued_where_it_ended)
{
	continues(2, 0);
}

Test(pagemap, a_scan_that_has_found_enough_is_continued_where_it_ended)
{
	continues(4, 2);
}

Test(pagemap, an_inverted_category_is_one_that_must_be_absent)
{
	int fd = own_pagemap();
	struct page_region found[4];
	char *at = region(4);
	uint64_t end;
	long n;

	at[0] = 1;
	(void)byte_at(at + PAGE);
	n = scan(fd, at, 4, PAGE_IS_PRESENT | PAGE_IS_PFNZERO, PAGE_IS_PFNZERO, found, 4, 0, &end);
	is_eq(n, 1);
	is_eq(found[0].start, (uintptr_t)at);
	is_eq(found[0].end, (uintptr_t)at + PAGE);
}

/* ---- another's descriptors ---- */

#define NOBODY 65534

struct files {
	int pagemap, maps, statm;
	char *at;
};

static int reads_without_rights(void *argument)
{
	const struct files *f = argument;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)f->at,
		.end = (uintptr_t)f->at + PAGE,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
		.vec = (uintptr_t) & (struct page_region){0},
		.vec_len = 1,
	};
	char text[64];

	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		return 10;
	*(volatile char *)f->at = 2; /* its own copy: what it sees is the parent's */
	if (ioctl(f->pagemap, PAGEMAP_SCAN, &arg) != 1)
		return errno == ENOTTY ? 77 : 1;
	if (read(f->maps, text, sizeof(text)) <= 0)
		return 2;
	if (pread(f->statm, text, sizeof(text), 0) <= 0)
		return 3;
	return 0;
}

/* The daemon may be of another user: what the client opened is enough. */
Test(pagemap, descriptors_that_a_client_opened_need_no_rights)
{
	struct files f = {
		.pagemap = own_pagemap(),
		.maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC),
		.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC),
		.at = region(1),
	};
	int r;

	if (getuid())
		cr_skip_test("needs root, to become another user");
	f.at[0] = 1;
	r = child_run(reads_without_rights, &f);
	if (r == 77)
		cr_skip_test("this kernel lacks PAGEMAP_SCAN");
	is_eq(r, 0);
}

static int open_of(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

/* A page table that is gone looks like one without pages: only a pidfd, or statm, tells of the end.
 */
Test(pagemap, the_pagemap_of_an_ended_process_is_empty_and_its_statm_answers_esrch)
{
	struct turns *turns = turns_new();
	struct page_region found[1];
	char *at = region(1), text[64];
	int pagemap, statm;
	uint64_t end, bits;
	pid_t pid;

	at[0] = 1;
	pid = child_new(waits, turns);
	pagemap = open_of(pid, "pagemap");
	statm = open_of(pid, "statm");
	is_eq(scan(pagemap, at, 1, PAGE_IS_PRESENT, 0, found, 1, 0, &end), 1);
	turn_set(turns, 1);
	is_eq(child_end(pid), 0);
	is_eq(scan(pagemap, at, 1, PAGE_IS_PRESENT, 0, found, 1, 0, &end), 0);
	is_eq(end, (uintptr_t)at + PAGE);
	is_eq(err(pread(pagemap, &bits, 8, (off_t)((uintptr_t)at / PAGE * 8))), 0);
	is_eq(err(pread(statm, text, sizeof(text), 0)), -ESRCH);
}

/* ---- maps: PROCMAP_QUERY ---- */

static long query(int fd, const void *at, uint64_t flags, struct procmap_query *ret)
{
	long r;

	*ret = (struct procmap_query){
		.size = sizeof(*ret),
		.query_flags = flags,
		.query_addr = (uintptr_t)at,
	};
	r = err(ioctl(fd, PROCMAP_QUERY, ret));
	if (r == -ENOTTY)
		cr_skip_test("this kernel lacks PROCMAP_QUERY");
	return r;
}

Test(pagemap, a_query_finds_the_mapping_at_or_after_an_address)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	struct procmap_query q;
	char *at = region(3);

	is_eq(munmap(at + PAGE, PAGE), 0);
	is_eq(query(fd, at, 0, &q), 0);
	is_eq(q.vma_start, (uintptr_t)at);
	is_eq(q.vma_end, (uintptr_t)at + PAGE);
	is_eq(q.vma_flags, PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_WRITABLE);
	is_eq(q.inode, 0);
	is_eq(query(fd, at + PAGE, 0, &q), -ENOENT);
	is_eq(query(fd, at + PAGE, PROCMAP_QUERY_COVERING_OR_NEXT_VMA, &q), 0);
	is_eq(q.vma_start, (uintptr_t)at + 2 * PAGE);
}

/* Registration splits a mapping as protection does: so whole ones are registered. */
Test(pagemap, registering_half_a_mapping_makes_two_and_the_rest_makes_one_again)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), uffd = uffd_new(WP);
	struct procmap_query q;
	char *at = region(4);

	is_eq(reg(uffd, at, 2 * PAGE, MODE_MW), 0);
	is_eq(query(fd, at, 0, &q), 0);
	is_eq(q.vma_end, (uintptr_t)at + 2 * PAGE);
	is_eq(reg(uffd, at + 2 * PAGE, 2 * PAGE, MODE_MW), 0);
	is_eq(query(fd, at, 0, &q), 0);
	is_eq(q.vma_end, (uintptr_t)at + 4 * PAGE);
}

/* ---- a program whose first thread has ended: adopt.c, sample_without_leader ---- */

static void *outlives(void *argument)
{
	turn_wait(argument, 2);
	_exit(0);
}

static int leader_ends(void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, outlives, argument))
		return 1;
	turn_wait(argument, 1); /* until its files have been opened: afterwards none can be */
	syscall(SYS_exit, 0);
	return 2;
}

static bool leader_has_ended(pid_t pid)
{
	char path[64], text[256];
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return strstr(text, ") Z ");
}

Test(pagemap, statm_of_a_program_without_its_first_thread_says_nothing_and_its_rollup_goes_on)
{
	struct turns *turns = turns_new();
	pid_t pid = child_new(leader_ends, turns);
	int statm = open_of(pid, "statm"), rollup = open_of(pid, "smaps_rollup"), tries = 5000;
	char text[128] = "";

	turn_set(turns, 1);
	while (!leader_has_ended(pid) && --tries)
		usleep(1000);
	cr_assert(tries);
	cr_assert(pread(statm, text, sizeof(text) - 1, 0) > 0);
	is_eq(strcmp(text, "0 0 0 0 0 0 0\n"), 0);
	cr_assert(pread(rollup, text, sizeof(text) - 1, 0) > 0);
	turn_set(turns, 2);
	is_eq(child_end(pid), 0);
}
