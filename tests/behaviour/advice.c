/* madvise, and the kernel's own reads and writes of the memory. */
#include "behave.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static void dontneed(void)
{
	struct area a = area_start(), part;

	for (size_t i = 0; i + 256 <= a.pages; i += 1024)
		must(madvise(page_at(&a, i), 256 * PAGE, MADV_DONTNEED) == 0);
	for (size_t i = 0; i < a.pages; i += 256) {
		part = area_part(&a, i, 256);
		if (i % 1024 == 0)
			part.salt = 0;
		area_check(&part);
	}
	for (size_t i = 0; i < a.pages; i += 1024) {
		part = area_part(&a, i, 256);
		area_fill(&part);
	}
	area_check(&a);
}

/* The same few pages come in over and over, none beside the last, before others leave: who takes
 * pages in the order in which they came meets each of them many times. */
static void dontneed_again(void)
{
	struct area a = area_start(), few = area_new(64, 700);

	for (unsigned round = 0; round < 100; round++) {
		struct area part = area_part(&a, round * 512 % (a.pages - 512), 512);

		for (unsigned again = 0; again < 4; again++) {
			few.salt++;
			for (size_t i = 0; i < few.pages; i++) {
				size_t page = i * 19 % few.pages;

				must(madvise(page_at(&few, page), PAGE, MADV_DONTNEED) == 0);
				page_fill(page_at(&few, page), few.salt + page);
			}
		}
		area_check(&part);
		area_check(&few);
	}
	area_check(&a);
}

static void mfree(void)
{
	struct area a = area_start();

	must(madvise(a.at, a.pages / 2 * PAGE, MADV_FREE) == 0);
	for (size_t i = 0; i < a.pages; i++) {
		const uint64_t *p = page_at(&a, i);
		bool gone = i < a.pages / 2 && p[0] == 0 && p[WORDS - 1] == 0;

		page_check(p, gone ? 0 : a.salt + i);
	}
	area_refill(&a, 600);
	area_check(&a);
}

/* Not for anonymous memory; for shared memory it punches a hole. */
static void mremove(void)
{
	struct area a = area_start(), shared = {.pages = 1024, .salt = 44}, part;

	must(madvise(a.at, a.pages * PAGE, MADV_REMOVE) != 0 && errno == EINVAL);
	area_check(&a);
	shared.at = mmap(NULL, shared.pages * PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared.at != MAP_FAILED);
	area_fill(&shared);
	must(madvise(shared.at, 512 * PAGE, MADV_REMOVE) == 0);
	part = area_part(&shared, 512, 512);
	area_check(&part);
	part = area_part(&shared, 0, 512);
	part.salt = 0;
	area_check(&part);
	area_check(&a);
}

static void advice(void)
{
	static const int advices[] = {MADV_COLD,       MADV_PAGEOUT, MADV_WILLNEED, MADV_RANDOM,
				      MADV_SEQUENTIAL, MADV_NORMAL,  MADV_UNMERGEABLE};
	struct area a = area_start();

	for (size_t i = 0; i < sizeof advices / sizeof *advices; i++) {
		madvise(a.at, a.pages * PAGE, advices[i]);
		area_check(&a);
		madvise(page_at(&a, 1000), 3000 * PAGE, advices[i]);
	}
	area_refill(&a, 100);
	area_check(&a);
}

static void populate(void)
{
	struct area a = area_start(), b = area_map(a.pages, 0);

	if (madvise(a.at, a.pages * PAGE, MADV_POPULATE_READ) != 0)
		skip("MADV_POPULATE_READ: %s", strerror(errno));
	area_check(&a);
	must(madvise(b.at, b.pages * PAGE, MADV_POPULATE_WRITE) == 0);
	area_check(&b);
	area_check(&a);
}

static void hugepage(void)
{
	struct area a = area_map((mebibytes + 2) * MIB / PAGE, 2000);
	uint64_t start = ((uint64_t)a.at + 2 * MIB - 1) & ~(2 * MIB - 1);

	a.at = (char *)start;
	a.pages = mebibytes * MIB / PAGE;
	madvise(a.at, a.pages * PAGE, MADV_HUGEPAGE);
	area_fill(&a);
	area_check(&a);
	area_check(&a);
	must(madvise(page_at(&a, 700), 100 * PAGE, MADV_DONTNEED) == 0);
	for (size_t i = 0; i < a.pages; i++)
		page_check(page_at(&a, i), i >= 700 && i < 800 ? 0 : a.salt + i);
	madvise(a.at, a.pages * PAGE, MADV_NOHUGEPAGE);
	area_refill(&a, 31);
	area_check(&a);
}

static void fork_advice(void)
{
	struct area a = area_start(), part;
	pid_t pid;

	must(madvise(page_at(&a, 1024), 1024 * PAGE, MADV_DONTFORK) == 0);
	must(madvise(page_at(&a, 4096), 1024 * PAGE, MADV_WIPEONFORK) == 0);
	pid = fork();
	must(pid >= 0);
	part = area_part(&a, 0, 1024);
	area_check(&part);
	if (pid == 0) {
		unsigned char resident;

		must(mincore(page_at(&a, 1500), PAGE, &resident) != 0 && errno == ENOMEM);
		part = area_part(&a, 2048, 2048);
		area_check(&part);
		part = area_part(&a, 4096, 1024);
		part.salt = 0;
		area_check(&part);
		area_refill(&part, 80);
		area_check(&part);
		part = area_part(&a, 5120, a.pages - 5120);
		area_check(&part);
		_exit(0);
	}
	area_check(&a);
	await(pid);
	area_check(&a);
	must(madvise(page_at(&a, 1024), 1024 * PAGE, MADV_DOFORK) == 0);
	must(madvise(page_at(&a, 4096), 1024 * PAGE, MADV_KEEPONFORK) == 0);
	pid = fork();
	if (pid == 0) {
		area_check(&a);
		_exit(0);
	}
	await(pid);
}

static void guard(void)
{
	struct area a = area_start();
	int pipes[2];

	for (size_t i = 64; i < a.pages; i += 128)
		if (madvise(page_at(&a, i), PAGE, MADV_GUARD_INSTALL) != 0)
			skip("MADV_GUARD_INSTALL: %s", strerror(errno));
	must(pipe(pipes) == 0);
	for (int round = 0; round < 3; round++) { /* streams run up to the guards */
		for (size_t i = 0; i < a.pages; i++)
			if (i % 128 != 64)
				page_check(page_at(&a, i), a.salt + i);
		for (size_t i = 64; i < a.pages; i += 128)
			if (write(pipes[1], page_at(&a, i), 1) != -1 || errno != EFAULT)
				wrong("guard page %zu could be read", i);
	}
	for (size_t i = 64; i < a.pages; i += 128)
		must(madvise(page_at(&a, i), PAGE, MADV_GUARD_REMOVE) == 0);
	for (size_t i = 0; i < a.pages; i++)
		page_check(page_at(&a, i), i % 128 == 64 ? 0 : a.salt + i);
}

static int scratch_file(int flags)
{
	const char *dir = getenv("TMPDIR");
	char path[256];
	int fd;

	snprintf(path, sizeof path, "%s/behave-XXXXXX", dir ? dir : "/var/tmp");
	fd = mkostemp(path, O_CLOEXEC | flags);
	if (fd < 0 && flags & O_DIRECT && errno == EINVAL)
		skip("%s cannot do O_DIRECT", dir ? dir : "/var/tmp");
	must(fd >= 0);
	unlink(path);
	return fd;
}

/* write(2) from evicted memory and read(2) into it. */
static void file_io(int flags)
{
	struct area a = area_start(), b = area_map(a.pages, a.salt);
	int fd = scratch_file(flags);
	size_t step = 64 * PAGE;

	for (size_t at = 0; at < a.pages * PAGE; at += step)
		must(pwrite(fd, a.at + at, step, (off_t)at) == (ssize_t)step);
	for (size_t at = 0; at < a.pages * PAGE; at += step)
		must(pread(fd, b.at + at, step, (off_t)at) == (ssize_t)step);
	area_check(&b);
	area_refill(&a, 1111);
	for (size_t at = 0; at < a.pages * PAGE; at += step) /* back over evicted pages */
		must(pread(fd, a.at + at, step, (off_t)at) == (ssize_t)step);
	a.salt = b.salt;
	area_check(&a);
	area_check(&b);
	close(fd);
}

static void buffered(void)
{
	file_io(0);
}

static void o_direct(void)
{
	file_io(O_DIRECT);
}

static void pipes(void)
{
	struct area a = area_start(), b = area_map(a.pages, a.salt);
	struct iovec iov;
	int fds[2];

	must(pipe(fds) == 0);
	for (size_t i = 0; i < a.pages; i += 8) {
		iov = (struct iovec){page_at(&a, i), 8 * PAGE};
		must(i % 16 ? write(fds[1], iov.iov_base, iov.iov_len) == 8 * PAGE
			    : vmsplice(fds[1], &iov, 1, 0) == 8 * PAGE);
		for (size_t done = 0; done < 8 * PAGE;) {
			ssize_t n = read(fds[0], (char *)page_at(&b, i) + done, 8 * PAGE - done);

			must(n > 0);
			done += (size_t)n;
		}
	}
	area_check(&a);
	area_check(&b);
}

static void process_vm(void)
{
	struct area a = area_start(), b = area_map(a.pages, a.salt);
	struct iovec from = {a.at, a.pages * PAGE}, to = {b.at, b.pages * PAGE};

	must(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)(a.pages * PAGE));
	area_check(&b);
	area_refill(&a, 90);
	must(process_vm_writev(getpid(), &to, 1, &from, 1, 0) == (ssize_t)(a.pages * PAGE));
	a.salt = b.salt; /* the other way: b over a */
	area_check(&a);
	area_check(&b);
}

/* Registered buffers are pinned: they stay, while all around them leaves. */
static void fixed_buffers(void)
{
	struct area a = area_start(), buffer = area_part(&a, 2048, 256);
	struct iovec iov = {buffer.at, buffer.pages * PAGE};
	int fd = scratch_file(0);
	struct area file = area_new(256, 5555);
	struct io_uring ring;
	int r = io_uring_queue_init(8, &ring, 0);

	if (r < 0)
		skip("io_uring: %s", strerror(-r));
	must(pwrite(fd, file.at, file.pages * PAGE, 0) == (ssize_t)(file.pages * PAGE));
	r = io_uring_register_buffers(&ring, &iov, 1);
	if (r == -ENOMEM)
		skip("io_uring_register_buffers: %s (RLIMIT_MEMLOCK)", strerror(-r));
	must(r == 0);
	for (unsigned round = 0; round < 64; round++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
		struct io_uring_cqe *cqe;
		size_t at = round % 16 * 16;
		struct area part = area_part(&a, round * 64 % 2048, 64), got;

		io_uring_prep_read_fixed(sqe, fd, page_at(&buffer, at), 16 * PAGE, at * PAGE, 0);
		must(io_uring_submit(&ring) == 1);
		area_check(&part);
		must(io_uring_wait_cqe(&ring, &cqe) == 0);
		must(cqe->res == 16 * PAGE);
		io_uring_cqe_seen(&ring, cqe);
		got = area_part(&file, at, 16);
		got.at = page_at(&buffer, at);
		area_check(&got);
		area_fill(&got);
		if (round % 16 == 15) { /* all of it through the limit, then new bytes in the buffer */
			struct area low = area_part(&a, 0, 2048);
			struct area high = area_part(&a, 2304, a.pages - 2304);

			area_check(&low);
			area_check(&high);
		}
	}
	must(io_uring_unregister_buffers(&ring) == 0);
	io_uring_queue_exit(&ring);
	buffer.salt = file.salt;
	area_check(&buffer);
	close(fd);
}

const struct behaviour advice_behaviours[] = {
	{"madvise-dontneed", dontneed},
	{"madvise-dontneed-again", dontneed_again},
	{"madvise-free", mfree},
	{"madvise-remove", mremove},
	{"madvise-others", advice},
	{"madvise-populate", populate},
	{"madvise-hugepage", hugepage},
	{"madvise-fork", fork_advice},
	{"guard-pages", guard},
	{"file-io", buffered},
	{"o-direct", o_direct},
	{"pipes", pipes},
	{"process-vm", process_vm},
	{"io-uring-fixed", fixed_buffers},
	{0},
};
