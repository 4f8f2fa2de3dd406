/* The kernel reads and writes the pages: pipes, files, other system calls, pinned buffers. */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_PAGES 64

/* What belongs to one thread of one process. A child makes its own: it must not disturb the
 * parent's file, nor can it use the parent's ring. */
struct tools {
	pid_t pid;
	int file, direct;
	bool ring_works, registered;
	struct io_uring ring;
	uint64_t pinned; /* address of what is registered */
	uint64_t content[FILE_PAGES];
};

static __thread struct tools tools;

int temporary_file(struct actor *a, int flags)
{
	char path[256];
	int fd = open(W->dir, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd >= 0)
		return fd;
	snprintf(path, sizeof path, "%s/torture-%d-%u-XXXXXX", W->dir, (int)getpid(), a->index);
	fd = mkostemp(path, O_CLOEXEC | flags);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static struct tools *tools_get(struct actor *a)
{
	struct tools *t = &tools;

	if (t->pid == getpid())
		return t;
	if (t->pid && t->ring_works)
		io_uring_queue_exit(&t->ring);
	if (t->pid) {
		close(t->file);
		close(t->direct);
	}
	memset(t, 0, sizeof *t);
	t->pid = getpid();
	t->file = temporary_file(a, 0);
	check(a, t->file >= 0);
	check(a, ftruncate(t->file, FILE_PAGES * PAGE) == 0);
	t->direct = -1;
	{
		char path[64];

		snprintf(path, sizeof path, "/proc/self/fd/%d", t->file);
		t->direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (t->direct < 0)
			t->direct = open(path, O_RDWR | O_CLOEXEC);
	}
	check(a, t->direct >= 0);
	t->ring_works = io_uring_queue_init(16, &t->ring, 0) == 0;
	return t;
}

/* Two runs of n pages, the first readable, the second writable and not overlapping it. */
static int two_runs(struct actor *a, unsigned max, struct region **from, unsigned *start,
		    struct region **to, unsigned *at, unsigned *n)
{
	*from = region_pick(a, ALL_KINDS);
	*to = region_pick(a, ALL_KINDS);
	if (!*from || !run_pick(a, *from, max, start, n) || *n > (*to)->pages ||
	    (*from)->stride != PAGE || (*to)->stride != PAGE)
		return -1;
	*at = pick(a, (*to)->pages - *n + 1);
	log_target(a, (uint64_t)addr_of(*to, *at));
	if (!run_without(*from, *start, *n, P_UNREADABLE | P_FREED | P_FILE) ||
	    !run_without(*to, *at, *n, P_UNWRITABLE))
		return -1;
	return *from == *to && *at < *start + *n && *start < *at + *n ? -1 : 0;
}

static void contents_copy(struct region *from, unsigned start, struct region *to, unsigned at,
			  unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		page_set(page_of(to, at + i), page_of(from, start + i)->content);
}

static void run_verify(struct actor *a, struct region *r, unsigned start, unsigned n)
{
	for (unsigned i = start; i < start + n; i++)
		page_verify(a, page_of(r, i), addr_of(r, i));
}

static void read_all(struct actor *a, int fd, void *to, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = read(fd, (char *)to + done, bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		check(a, n > 0);
		done += (size_t)n;
	}
}

static int op_pipe(struct actor *a)
{
	struct region *from, *to;
	unsigned start, at, n;
	int pipes[2];

	if (two_runs(a, 16, &from, &start, &to, &at, &n)) /* 16 pages: what a pipe holds */
		return -1;
	if (pipe(pipes) != 0)
		fail(a, "pipe: %m");
	check(a, write(pipes[1], addr_of(from, start), n * PAGE) == (ssize_t)(n * PAGE));
	read_all(a, pipes[0], addr_of(to, at), n * PAGE);
	contents_copy(from, start, to, at, n);
	run_verify(a, to, at, n);
	close(pipes[0]);
	close(pipes[1]);
	return 0;
}

/* The pipe refers to the pages themselves; the source is discarded while it does. */
static int op_vmsplice(struct actor *a)
{
	struct region *from, *to;
	unsigned start, at, n;
	int pipes[2];
	struct iovec iov;

	if (two_runs(a, 8, &from, &start, &to, &at, &n))
		return -1;
	iov = (struct iovec){addr_of(from, start), n * PAGE};
	if (pipe(pipes) != 0)
		fail(a, "pipe: %m");
	check(a, vmsplice(pipes[1], &iov, 1, 0) == (ssize_t)(n * PAGE));
	contents_copy(from, start, to, at, n);
	if (from->kind != R_PIN && chance(a, 2) && run_without(from, start, n, P_LOCKED)) {
		check(a, madvise(iov.iov_base, n * PAGE, MADV_DONTNEED) == 0);
		for (unsigned i = start; i < start + n; i++)
			page_discard(page_of(from, i));
	}
	for (unsigned k = pick(a, 4); k-- > 0;)
		run_verify(a, from, start, n);
	read_all(a, pipes[0], addr_of(to, at), n * PAGE);
	run_verify(a, to, at, n);
	run_verify(a, from, start, n);
	close(pipes[0]);
	close(pipes[1]);
	return 0;
}

static int op_process_vm(struct actor *a)
{
	struct region *from, *to;
	unsigned start, at, n;
	struct iovec local, remote;
	ssize_t done;

	if (two_runs(a, 64, &from, &start, &to, &at, &n))
		return -1;
	local = (struct iovec){addr_of(to, at), n * PAGE};
	remote = (struct iovec){addr_of(from, start), n * PAGE};
	if (chance(a, 2)) {
		done = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	} else {
		struct iovec swap = local;

		local = remote;
		remote = swap;
		done = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	}
	if (done < 0 && (errno == EPERM || errno == ENOSYS))
		return -1;
	check(a, done == (ssize_t)(n * PAGE));
	contents_copy(from, start, to, at, n);
	run_verify(a, to, at, n);
	return 0;
}

/* Out to a file and, some time later, in from it; O_DIRECT pins the pages. */
static int op_file(struct actor *a)
{
	struct region *r = region_pick(a, ALL_KINDS);
	struct tools *t = tools_get(a);
	unsigned start, n, at;
	int fd = chance(a, 2) ? t->direct : t->file;

	if (!r || r->stride != PAGE || !run_pick(a, r, 32, &start, &n))
		return -1;
	at = pick(a, FILE_PAGES - n);
	if (chance(a, 2)) {
		if (!run_without(r, start, n, P_UNREADABLE | P_FREED | P_FILE))
			return -1;
		check(a, pwrite(fd, addr_of(r, start), n * PAGE, (off_t)(at * PAGE)) ==
				 (ssize_t)(n * PAGE));
		for (unsigned i = 0; i < n; i++)
			t->content[at + i] = page_of(r, start + i)->content;
	} else {
		if (!run_without(r, start, n, P_UNWRITABLE))
			return -1;
		check(a, pread(fd, addr_of(r, start), n * PAGE, (off_t)(at * PAGE)) ==
				 (ssize_t)(n * PAGE));
		for (unsigned i = 0; i < n; i++)
			page_set(page_of(r, start + i), t->content[at + i]);
		run_verify(a, r, start, n);
	}
	return 0;
}

static int ring_one(struct actor *a, struct tools *t, bool writes, struct region *r, unsigned page,
		    unsigned n, unsigned at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&t->ring);
	struct io_uring_cqe *cqe;
	int error, result;

	check(a, sqe != NULL);
	if (writes)
		io_uring_prep_write_fixed(sqe, t->direct, addr_of(r, page), (unsigned)(n * PAGE),
					  at * PAGE, 0);
	else
		io_uring_prep_read_fixed(sqe, t->direct, addr_of(r, page), (unsigned)(n * PAGE),
					 at * PAGE, 0);
	do {
		error = io_uring_submit(&t->ring);
	} while (error == -EINTR);
	if (error < 0) {
		errno = -error;
		fail(a, "io_uring_submit: %m");
	}
	if (chance(a, 2)) { /* life goes on while it is under way */
		struct region *other = region_pick(a, 1u << R_NORMAL | 1u << R_WHOLE);
		unsigned start, count;

		if (other && run_pick(a, other, 8, &start, &count) &&
		    run_without(other, start, count, P_UNREADABLE))
			run_verify(a, other, start, count);
	}
	do {
		error = io_uring_wait_cqe(&t->ring, &cqe);
	} while (error == -EINTR);
	result = error < 0 ? error : cqe->res;
	if (error == 0)
		io_uring_cqe_seen(&t->ring, cqe);
	if (result != (int)(n * PAGE)) {
		errno = -result;
		fail(a, "io_uring %s of %u pages at %p: result %d: %m", writes ? "write" : "read", n,
		     (void *)addr_of(r, page), result);
	}
	return 0;
}

/* A region stays registered as a fixed buffer over many operations: its pages are pinned, and the
 * device writes them behind everybody's back. */
static int op_ring(struct actor *a)
{
	struct tools *t = tools_get(a);
	struct region *r = NULL;
	unsigned page, n, at;

	if (!t->ring_works)
		return -1;
	for (unsigned i = 0; i < REGIONS; i++)
		if (a->regions[i].kind == R_PIN)
			r = &a->regions[i];
	if (r && t->registered && chance(a, 24)) {
		check(a, io_uring_unregister_buffers(&t->ring) == 0);
		t->registered = false;
		if (chance(a, 2)) {
			region_verify(a, r);
			region_free(a, r);
			return 0;
		}
	}
	if (!r) {
		uint32_t pages = 16 + pick(a, 32);

		r = region_new(a, R_PIN);
		if (!r)
			return -1;
		if (r->pages > pages) { /* few enough for RLIMIT_MEMLOCK */
			check(a, munmap(addr_of(r, pages), (r->pages - pages) * PAGE) == 0);
			a->mapped -= r->pages - pages;
			r->pages = pages;
		}
	}
	if (!t->registered || t->pinned != r->addr) {
		struct iovec iov = {(void *)r->addr, r->pages * PAGE};
		int error;

		if (t->registered)
			io_uring_unregister_buffers(&t->ring);
		t->registered = false;
		error = io_uring_register_buffers(&t->ring, &iov, 1);
		if (error == -ENOMEM) { /* RLIMIT_MEMLOCK */
			t->ring_works = false;
			return -1;
		}
		errno = -error;
		check(a, error == 0);
		t->registered = true;
		t->pinned = r->addr;
	}
	page = pick(a, r->pages);
	n = 1 + pick(a, 8);
	if (page + n > r->pages)
		n = r->pages - page;
	at = pick(a, FILE_PAGES - n);
	log_range(a, (uint64_t)addr_of(r, page), n * PAGE);
	if (chance(a, 2)) {
		ring_one(a, t, true, r, page, n, at);
		for (unsigned i = 0; i < n; i++)
			t->content[at + i] = page_of(r, page + i)->content;
	} else {
		ring_one(a, t, false, r, page, n, at);
		for (unsigned i = 0; i < n; i++)
			page_set(page_of(r, page + i), t->content[at + i]);
	}
	run_verify(a, r, page, n);
	return 0;
}

struct op ops_io[] = {
	{"pipe", 8, 0, op_pipe},
	{"vmsplice", 4, 0, op_vmsplice},
	{"process-vm", 6, 0, op_process_vm},
	{"file", 6, 0, op_file},
	{"io-uring", 8, 0, op_ring},
	{0},
};
