/* Reserved huge pages (MAP_HUGETLB), and what only somebody with the uffd can do: arm a huge page. */
#include "behave.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HUGE	   (2 * MIB)
#define HUGE_PAGES (HUGE / PAGE)
#define TWO_MIB	   (21u << MAP_HUGE_SHIFT)
#define SALT	   7000

static char *reserved(size_t n, int flags, int fd)
{
	char *at = mmap(NULL, n * HUGE, PROT_READ | PROT_WRITE,
			flags | (fd < 0 ? MAP_ANONYMOUS | MAP_HUGETLB | (int)TWO_MIB : 0), fd, 0);

	if (at == MAP_FAILED)
		skip("no %zu huge pages can be reserved: %s", n, strerror(errno));
	usleep(300000); /* the pager comes to look */
	return at;
}

static void fill(char *at, size_t huge, uint64_t salt)
{
	for (size_t i = 0; i < huge * HUGE_PAGES; i++)
		page_fill(at + i * PAGE, salt ? salt + i : 0);
}

static void check(const char *at, size_t huge, uint64_t salt)
{
	for (size_t i = 0; i < huge * HUGE_PAGES; i++)
		page_check(at + i * PAGE, salt ? salt + i : 0);
}

/* ---- the pager's uffd, borrowed from the agent ---- */

static pid_t agent(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	must(proc);
	while (!found && (entry = readdir(proc))) {
		char path[300], text[256] = "";
		int pid, parent, fd;

		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, text, sizeof text - 1) > 0 &&
		    sscanf(text, "%d (upager-agent) %*c %d", &pid, &parent) == 2 &&
		    parent == getpid())
			found = pid;
		close(fd);
	}
	closedir(proc);
	return found;
}

static void arm(char *at)
{
	struct uffdio_writeprotect wp = {.range = {.start = (uint64_t)at, .len = HUGE},
					 .mode = UFFDIO_WRITEPROTECT_MODE_WP};
	pid_t pid = agent();
	int pidfd, uffd;

	if (!pid)
		skip("without upager nothing is armed");
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	must(pidfd >= 0);
	uffd = (int)syscall(SYS_pidfd_getfd, pidfd, 0, 0);
	must(uffd >= 0);
	must(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) == 0);
	close(uffd);
	close(pidfd);
}

static bool is_armed(const char *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	must(pread(fd, &entry, 8, (off_t)((uint64_t)at / PAGE * 8)) == 8);
	close(fd);
	return entry >> 57 & 1;
}

/* ---- rows ---- */

static void minor(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | TWO_MIB);
	char *one, *other;

	if (fd < 0)
		skip("memfd_create: %s", strerror(errno));
	must(ftruncate(fd, 3 * HUGE) == 0);
	one = reserved(3, MAP_SHARED, fd);
	other = reserved(3, MAP_SHARED, fd);
	fill(one, 3, SALT);
	check(other, 3, SALT);
	fill(other, 3, 1);
	check(one, 3, 1);
}

static void missing(void)
{
	char *at = reserved(4, MAP_PRIVATE, -1), *shared = reserved(2, MAP_SHARED, -1);

	check(at, 2, 0);
	fill(at + HUGE, 3, SALT);
	check(at, 1, 0);
	check(at + HUGE, 3, SALT);
	fill(shared, 2, SALT);
	check(shared, 2, SALT);
	must(madvise(at + HUGE, HUGE, MADV_DONTNEED) == 0);
	check(at, 2, 0);
	check(at + 2 * HUGE, 2, SALT + HUGE_PAGES);
}

/* Moved, cut, forked before they were touched. */
static void moves(void)
{
	char *at = reserved(4, MAP_PRIVATE, -1);
	char *to = mmap(NULL, 6 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	must(to != MAP_FAILED);
	to = (char *)(((uint64_t)to + HUGE - 1) & ~(HUGE - 1));
	fill(at, 1, SALT);
	must(mremap(at, 4 * HUGE, 4 * HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	check(to, 1, SALT);
	check(to + HUGE, 1, 0);
	pid = fork();
	must(pid >= 0);
	check(to, 1, SALT);
	check(to + 2 * HUGE, 1, 0);
	if (!pid)
		_exit(0);
	await(pid);
	must(munmap(to + HUGE, HUGE) == 0);
	fill(to + 2 * HUGE, 2, 9);
	check(to + 2 * HUGE, 2, 9);
	check(to, 1, SALT);
}

static sigjmp_buf jump;
static int bus_code;

static void on_bus(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	bus_code = info->si_code;
	siglongjmp(jump, 1);
}

static bool touch_fails(char *at)
{
	if (sigsetjmp(jump, 1))
		return true;
	*(volatile char *)at = 1;
	return false;
}

/* Without reservation, until the pool is dry. */
static void dry(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
	size_t n = mebibytes, i;
	char *at = reserved(n, MAP_PRIVATE | MAP_NORESERVE, -1);

	sigaction(SIGBUS, &action, NULL);
	for (i = 0; i < n && !touch_fails(at + i * HUGE); i++)
		fill(at + i * HUGE, 1, SALT + i);
	must(i > 0 && i < n);
	must(bus_code == BUS_ADRERR || bus_code == BUS_MCEERR_AR);
	for (size_t k = 0; k < i; k++)
		check(at + k * HUGE, 1, SALT + k);
	/* What is given back can be had again. */
	must(madvise(at, HUGE, MADV_DONTNEED) == 0);
	must(madvise(at + i * HUGE, HUGE, MADV_DONTNEED) == 0);
	must(!touch_fails(at + i * HUGE));
	must(touch_fails(at));
}

/* What is poisoned stays so: for who touches it again, and for a child. */
static void poisoned(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
	size_t n = mebibytes, i;
	char *at = reserved(n, MAP_PRIVATE | MAP_NORESERVE, -1);
	pid_t pid;

	sigaction(SIGBUS, &action, NULL);
	for (i = 0; i < n && !touch_fails(at + i * HUGE); i++)
		fill(at + i * HUGE, 1, SALT + i);
	must(i > 0 && i < n);
	must(touch_fails(at + i * HUGE) && touch_fails(at + i * HUGE + PAGE));
	pid = fork();
	must(pid >= 0);
	if (!pid)
		_exit(touch_fails(at + i * HUGE) ? 0 : 1);
	await(pid);
	for (size_t k = 0; k < i; k++)
		check(at + k * HUGE, 1, SALT + k);
}

static void write_shared(void)
{
	char *at = reserved(2, MAP_PRIVATE, -1);
	pid_t pid;

	fill(at, 2, SALT);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		usleep(200000);
		check(at, 2, SALT);
		_exit(0);
	}
	fill(at, 2, 1);
	check(at, 2, 1);
	await(pid);
}

static void write_armed(void)
{
	char *at = reserved(2, MAP_PRIVATE, -1);

	fill(at, 2, SALT);
	arm(at);
	check(at, 2, SALT);
	fill(at, 2, 1);
	must(!is_armed(at));
	check(at, 2, 1);
}

/* A part of an armed huge page is written: it is split, and its neighbours stay armed. */
static void thp_armed(void)
{
	struct area a = area_map(mebibytes * MIB / PAGE + HUGE_PAGES, SALT);

	a.at = (char *)(((uint64_t)a.at + HUGE - 1) & ~(HUGE - 1));
	a.pages -= HUGE_PAGES;
	must(madvise(a.at, a.pages * PAGE, MADV_HUGEPAGE) == 0);
	area_fill(&a);
	usleep(300000);
	area_check(&a);
	arm(a.at);
	must(is_armed(a.at + 7 * PAGE));
	page_fill(a.at + 7 * PAGE, 1);
	must(!is_armed(a.at + 7 * PAGE) && is_armed(a.at + 6 * PAGE) && is_armed(a.at + 8 * PAGE));
	page_fill(a.at + 7 * PAGE, SALT + 7);
	area_fill(&a);
	area_check(&a);
}

const struct behaviour hugetlb_behaviours[] = {
	{"row_02_hugetlb_minor", minor},
	{"row_03_hugetlb_missing", missing},
	{"row_03_hugetlb_moves", moves},
	{"row_03_hugetlb_pool_dry", dry},
	{"row_05_hugetlb_poisoned", poisoned},
	{"row_04_hugetlb_shared_write", write_shared},
	{"row_04_hugetlb_armed_write", write_armed},
	{"row_15_armed_huge_write", thp_armed},
	{0},
};
