#include "kernel.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- memory ---- */

char *region(size_t pages)
{
	char *at = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert(at != MAP_FAILED);
	at = mmap(at + PAGE, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cr_assert(at != MAP_FAILED);
	madvise(at, pages * PAGE, MADV_NOHUGEPAGE); /* EINVAL: the kernel has none */
	return at;
}

const char *page_of(char byte)
{
	static _Thread_local char page[PAGE] __attribute__((aligned(PAGE)));

	memset(page, byte, PAGE);
	return page;
}

int memfd_new(size_t length, unsigned flags)
{
	int fd = memfd_create("kernel-facts", MFD_CLOEXEC | flags);

	cr_assert(fd >= 0, "memfd_create: %s", strerror(errno));
	is_eq(err(ftruncate(fd, (off_t)length)), 0);
	return fd;
}

char *memfd_map(int fd, size_t length, int flags)
{
	char *at = mmap(NULL, length, RW, flags, fd, 0);

	cr_assert(at != MAP_FAILED, "mmap: %s", strerror(errno));
	return at;
}

/* ---- userfaultfd ---- */

int uffd_unshaken(int flags)
{
	long fd = err(syscall(SYS_userfaultfd, flags));

	if (fd == -EPERM || fd == -ENOSYS)
		cr_skip_test("needs userfaultfd, as root: %s", strerror((int)-fd));
	cr_assert(fd >= 0, "userfaultfd: %s", strerror((int)-fd));
	return (int)fd;
}

long uffd_api(int uffd, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	return err(ioctl(uffd, UFFDIO_API, &api));
}

uint64_t uffd_has(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int uffd = uffd_unshaken(O_CLOEXEC);

	is_eq(err(ioctl(uffd, UFFDIO_API, &api)), 0);
	close(uffd);
	return api.features;
}

static const char *feature_name(uint64_t feature)
{
	static const char *const names[] = {
		"PAGEFAULT_FLAG_WP",
		"EVENT_FORK",
		"EVENT_REMAP",
		"EVENT_REMOVE",
		"MISSING_HUGETLBFS",
		"MISSING_SHMEM",
		"EVENT_UNMAP",
		"SIGBUS",
		"THREAD_ID",
		"MINOR_HUGETLBFS",
		"MINOR_SHMEM",
		"EXACT_ADDRESS",
		"WP_HUGETLBFS_SHMEM",
		"WP_UNPOPULATED",
		"POISON",
		"WP_ASYNC",
		"MOVE",
	};
	unsigned bit = (unsigned)__builtin_ctzll(feature);

	return bit < sizeof(names) / sizeof(*names) ? names[bit] : "of a later kernel";
}

int uffd_new(uint64_t features)
{
	uint64_t lacks = features & ~uffd_has();
	int uffd;

	if (lacks)
		cr_skip_test("this kernel lacks UFFD_FEATURE_%s", feature_name(lacks));
	uffd = uffd_unshaken(O_CLOEXEC | O_NONBLOCK);
	is_eq(uffd_api(uffd, features), 0);
	return uffd;
}

char *registered(int uffd, size_t pages)
{
	char *at = region(pages);

	is_eq(reg(uffd, at, pages * PAGE, MODE_MW), 0);
	return at;
}

long reg(int uffd, const void *at, size_t length, uint64_t modes)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)at, .len = length},
		.mode = modes,
	};

	return err(ioctl(uffd, UFFDIO_REGISTER, &r));
}

long unreg(int uffd, const void *at, size_t length)
{
	struct uffdio_range range = {.start = (uintptr_t)at, .len = length};

	return err(ioctl(uffd, UFFDIO_UNREGISTER, &range));
}

long wake(int uffd, const void *at, size_t length)
{
	struct uffdio_range range = {.start = (uintptr_t)at, .len = length};

	return err(ioctl(uffd, UFFDIO_WAKE, &range));
}

static long progress(long result, int64_t done)
{
	return done > 0 ? (long)done : result;
}

long copy_in(int uffd, void *at, const void *from, size_t length, uint64_t mode)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)at,
		.src = (uintptr_t)from,
		.len = length,
		.mode = mode,
	};
	long r = err(ioctl(uffd, UFFDIO_COPY, &copy));

	return progress(r, copy.copy);
}

long zero_in(int uffd, void *at, size_t length, uint64_t mode)
{
	struct uffdio_zeropage zero = {
		.range = {.start = (uintptr_t)at, .len = length},
		.mode = mode,
	};
	long r = err(ioctl(uffd, UFFDIO_ZEROPAGE, &zero));

	return progress(r, zero.zeropage);
}

long proceed(int uffd, void *at, size_t length, uint64_t mode)
{
	struct uffdio_continue c = {
		.range = {.start = (uintptr_t)at, .len = length},
		.mode = mode,
	};
	long r = err(ioctl(uffd, UFFDIO_CONTINUE, &c));

	return progress(r, c.mapped);
}

long poison(int uffd, void *at, size_t length)
{
	struct uffdio_poison p = {.range = {.start = (uintptr_t)at, .len = length}};
	long r = err(ioctl(uffd, UFFDIO_POISON, &p));

	return progress(r, p.updated);
}

long move(int uffd, void *to, void *from, size_t length)
{
	struct uffdio_move m = {.dst = (uintptr_t)to, .src = (uintptr_t)from, .len = length};
	long r = err(ioctl(uffd, UFFDIO_MOVE, &m));

	return progress(r, m.move);
}

static long write_protect(int uffd, void *at, size_t length, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = (uintptr_t)at, .len = length},
		.mode = mode,
	};

	return err(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
}

long protect(int uffd, void *at, size_t length)
{
	return write_protect(uffd, at, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

long unprotect(int uffd, void *at, size_t length)
{
	return write_protect(uffd, at, length, 0);
}

/* ---- messages ---- */

void pending(int uffd)
{
	struct pollfd fd = {.fd = uffd, .events = POLLIN};

	cr_assert(poll(&fd, 1, PATIENCE) == 1 && fd.revents == POLLIN,
		  "no message has come (poll says %#x)", fd.revents);
}

void faults_pending(int uffd, int n)
{
	uint64_t until = now_ms() + PATIENCE;
	char path[64], line[128];
	int found = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	while (found != n && now_ms() < until) {
		FILE *file = fopen(path, "re");

		cr_assert(file);
		while (fgets(line, sizeof(line), file))
			sscanf(line, "pending: %d", &found);
		fclose(file);
		usleep(PAUSE_US);
	}
	cr_assert(found == n, "%d faults wait, not %d", found, n);
}

struct uffd_msg message(int uffd)
{
	struct uffd_msg m;

	pending(uffd);
	is_eq(err(read(uffd, &m, sizeof(m))), sizeof(m));
	return m;
}

void silent(int uffd)
{
	struct uffd_msg m = {0};
	long n = err(read(uffd, &m, sizeof(m)));

	cr_assert(n == -EAGAIN, "a message where none was expected: event %#x, flags %#llx (%ld)",
		  m.event, (unsigned long long)m.arg.pagefault.flags, n);
}

struct uffd_msg fault(int uffd, const void *at, uint64_t flags)
{
	struct uffd_msg m = message(uffd);

	is_eq(m.event, UFFD_EVENT_PAGEFAULT);
	is_eq(m.arg.pagefault.address, (uintptr_t)at);
	is_eq(m.arg.pagefault.flags, flags);
	return m;
}

void event(int uffd, unsigned event, const void *start, size_t length)
{
	struct uffd_msg m = message(uffd);

	is_eq(m.event, event);
	is_eq(m.arg.remove.start, (uintptr_t)start);
	is_eq(m.arg.remove.end, (uintptr_t)start + length);
}

void event_remap(int uffd, const void *from, const void *to, size_t length)
{
	struct uffd_msg m = message(uffd);

	is_eq(m.event, UFFD_EVENT_REMAP);
	is_eq(m.arg.remap.from, (uintptr_t)from);
	is_eq(m.arg.remap.to, (uintptr_t)to);
	is_eq(m.arg.remap.len, length);
}

int event_fork(int uffd)
{
	struct uffd_msg m = message(uffd);

	is_eq(m.event, UFFD_EVENT_FORK);
	return (int)m.arg.fork.ufd;
}

/* ---- deeds ---- */

static void *deed_thread(void *context)
{
	struct deed *d = context;
	const long *a = d->arg;

	d->tid = (pid_t)syscall(SYS_gettid);
	if (d->function)
		d->result = d->function(d->argument);
	else
		d->result = err(syscall(d->number, a[0], a[1], a[2], a[3], a[4], 0));
	d->done = true;
	return NULL;
}

static void deed_begin(struct deed *deed)
{
	is_eq(pthread_create(&deed->thread, NULL, deed_thread, deed), 0);
}

void deed_run(struct deed *deed, long (*function)(void *argument), void *argument)
{
	*deed = (struct deed){.function = function, .argument = argument};
	deed_begin(deed);
}

void deed_start(struct deed *deed, long number, long a, long b, long c, long d, long e)
{
	*deed = (struct deed){.number = number, .arg = {a, b, c, d, e}};
	deed_begin(deed);
}

static long read_byte(void *at)
{
	return *(volatile unsigned char *)at;
}

static long write_byte(void *at)
{
	return *(volatile unsigned char *)at = 'w';
}

void deed_read(struct deed *deed, const char *at)
{
	deed_run(deed, read_byte, (void *)(uintptr_t)at);
}

void deed_write(struct deed *deed, char *at)
{
	deed_run(deed, write_byte, at);
}

void deed_waits(const struct deed *deed)
{
	usleep(10000);
	cr_assert(!deed->done, "what should still wait has ended with %ld", deed->result);
}

long deed_end(struct deed *deed)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE / 1000;
	cr_assert(pthread_timedjoin_np(deed->thread, NULL, &until) == 0,
		  "what should have ended still waits");
	return deed->result;
}

long read_unseen(int uffd, const char *at)
{
	struct deed d;
	long byte;

	deed_read(&d, at);
	byte = deed_end(&d);
	silent(uffd);
	return byte;
}

long write_unseen(int uffd, char *at)
{
	struct deed d;
	long byte;

	deed_write(&d, at);
	byte = deed_end(&d);
	silent(uffd);
	return byte;
}

/* ---- page tables ---- */

uint64_t entry_of(pid_t pid, const void *at)
{
	uint64_t bits = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	is_eq(pread(fd, &bits, 8, (off_t)((uintptr_t)at / PAGE * 8)), 8);
	close(fd);
	return bits & (PM_EXCLUSIVE | PM_WP | PM_SWAP | PM_PRESENT);
}

uint64_t entry(const void *at)
{
	return entry_of(getpid(), at);
}

bool is_marker_of(pid_t pid, const void *at)
{
	return entry_of(pid, at) == (PM_SWAP | PM_WP);
}

bool is_marker(const void *at)
{
	return is_marker_of(getpid(), at);
}

bool is_present(const void *at)
{
	return entry(at) & PM_PRESENT;
}

long categories(int pagemap, const void *at)
{
	struct page_region found = {0};
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)at,
		.end = (uintptr_t)at + PAGE,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.return_mask = PAGE_IS_WRITTEN | PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED |
			   PAGE_IS_PFNZERO | PAGE_IS_HUGE,
	};
	long n = err(ioctl(pagemap, PAGEMAP_SCAN, &scan));

	if (n == -ENOTTY)
		cr_skip_test("this kernel lacks PAGEMAP_SCAN");
	return n < 0 ? n : (long)found.categories;
}
