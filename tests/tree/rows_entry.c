/* Before any page is looked at: no mapping, no right, no memory, no file. */
#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <stdlib.h>

/* Row 1: the kernel refuses by itself, also where the page is out. */
static void no_mapping_no_right(void)
{
	char *at = region(64), *hole = region(1);
	struct figures before, d;

	fill(at, 64, 1000);
	expel(at, 64);
	must(munmap(hole, PAGE) == 0);
	before = figures();
	must(signal_of_read(hole) == SIGSEGV);
	must(mprotect(at, 64 * PAGE, PROT_READ) == 0);
	must(signal_of_write(at) == SIGSEGV);
	must(mprotect(at, 64 * PAGE, PROT_NONE) == 0);
	must(signal_of_read(at + PAGE) == SIGSEGV);
	must(signal_of_write(at + 2 * PAGE) == SIGSEGV);
	d = since(&before);
	same_as(d.messages, 0);
	must(mprotect(at, 64 * PAGE, PROT_READ | PROT_WRITE) == 0);
	check(at, 64, 1000);
}

/* Row 6: a fill has no memory: the page stays where it rests, the thread waits, and in the end has
 * its bytes. */
static void no_memory(void)
{
	char *at = region(64);
	struct figures before, d;

	fill(at, 64, 1000);
	expel_to_standby(at, 64, 1000);
	before = figures();
	inject->error = ENOMEM;
	inject->fail[INJECT_COPY] = 1000000;
	touch_begin(at, 1, false);
	for (unsigned i = 0; i < 500 && inject->failed[INJECT_COPY] < 20; i++)
		sleep_ms(10);
	at_least(inject->failed[INJECT_COPY], 20);
	must(is_out(at, 1));
	inject->fail[INJECT_COPY] = 0;
	touch_end();
	d = since(&before);
	at_least(d.reclaims, 20);
	at_least(d.minor + d.major, 1);
	check(at, 64, 1000);
}

/* The same where it really is so: a memory cgroup that is full. What leaves makes the room, so the
 * program goes on, in a quarter of its limit. */
static void cgroup_is_full(void)
{
	char *at = region(1024);
	struct figures before, d;
	struct cgroup group;
	bool ready;

	fill(at, 1024, 1000);
	expel(at, 1024);
	before = figures();
	cgroup_enter(&group, getpid());
	/* -ENOMEM instead of a kill. Inside, nothing else can be done: not even say what is wrong. */
	ready = cgroup_set(&group, "memory.oom_control", 1) &&
		cgroup_set(&group, "memory.limit_in_bytes", 2 * MIB);
	for (size_t i = 0; ready && i < 1024; i++)
		(void)peek(at + i * PAGE);
	cgroup_leave(&group, getpid());
	must(ready);
	d = since(&before);
	at_least(d.reclaims, 1);
	check(at, 1024, 1000);
}

/* Row 12: a file's mapping cannot be registered, and the pager leaves it alone. */
static void file_is_refused(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC), fd;
	struct figures before, d;
	char path[256];
	struct statfs fs;

	must(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0);
	snprintf(path, sizeof(path), "%s/file", getenv("TMPDIR"));
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && ftruncate(fd, 16 * PAGE) == 0 && fstatfs(fd, &fs) == 0);
	if (fs.f_type == TMPFS_MAGIC)
		skip("TMPDIR is a tmpfs, which can be registered");
	before = figures();
	for (unsigned i = 0; i < 2; i++) {
		char *at = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE,
				i ? MAP_SHARED : MAP_PRIVATE, fd, 0);
		struct uffdio_register reg = {
			.range = {.start = (uintptr_t)at, .len = 16 * PAGE},
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};

		must(at != MAP_FAILED);
		must(ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 && errno == EINVAL);
		check(at, 16, 0);
		fill(at, 16, 1000);
		check(at, 16, 1000);
	}
	d = since(&before);
	same_as(d.messages, 0);
	close(uffd);
}

/* Rows 8 and 21: no memory for a page table, with or without the wish for a huge page. */
static void no_table(int advice)
{
	char *at = region(3 * 512);
	struct figures before, d;

	at = (char *)(((uintptr_t)at + 2 * MIB - 1) & ~(2 * MIB - 1));
	if (madvise(at, 2 * MIB, advice))
		skip("this kernel has no huge pages");
	sleep_ms(50); /* what the advice has split is known */
	before = figures();
	inject->error = ENOMEM;
	inject->fail[INJECT_ZEROPAGE] = 10;
	poke(at + 77 * PAGE, 5);
	d = since(&before);
	same_as(inject->failed[INJECT_ZEROPAGE], 10);
	same_as(d.reclaims, 10);
	same_as(d.zero, 1);
	must(peek(at + 77 * PAGE) == 5);
}

static void no_huge_table(void)
{
	no_table(MADV_HUGEPAGE);
}

static void no_small_table(void)
{
	no_table(MADV_NOHUGEPAGE);
}

static void is_unregistrable(const char *at)
{
	struct uffdio_api api = {.api = UFFD_API};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)at, .len = PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	must(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0);
	must(ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 && errno == EINVAL);
	close(uffd);
}

/* Row 29: a mapping that is filled when it is made, and has no way to answer a fault: a ring. */
static void ring_is_refused(void)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 4, &params);
	char *at;

	if (fd < 0)
		skip("io_uring is not allowed");
	at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	must(at != MAP_FAILED);
	is_unregistrable(at);
	must(signal_of_read(at) == 0);
	close(fd);
}

/* Row 58: a mapping of the kernel's, with no pages that it would keep account of. */
static void special_is_refused(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start = 0;
	char line[512];

	must(maps);
	while (fgets(line, sizeof(line), maps) && !start)
		if (strstr(line, "[vvar]"))
			start = strtoul(line, NULL, 16);
	fclose(maps);
	if (!start)
		skip("this kernel maps no [vvar]");
	is_unregistrable((char *)start);
}

/* Row 23: a stack does not grow into the gap above its neighbour; elsewhere it does. */
static void stack_guard(void)
{
	char *low = region(1024), *stack = low + 512 * PAGE;
	struct figures before, d;

	must(munmap(low + PAGE, 1023 * PAGE) == 0);
	poke(low, 1);
	must(mmap(stack, 4 * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0) == stack);
	sleep_ms(100); /* it is registered */
	for (char *at = stack + 3 * PAGE; at >= low + 300 * PAGE; at -= PAGE)
		poke(at, (uintptr_t)at);
	before = figures();
	must(signal_of_write(low + 200 * PAGE) == SIGSEGV);
	must(signal_of_read(low + PAGE) == SIGSEGV);
	d = since(&before);
	same_as(d.messages, 0);
	for (char *at = stack + 3 * PAGE; at >= low + 300 * PAGE; at -= PAGE)
		must(peek(at) == (uintptr_t)at);
}

const struct interleaving entry_rows[] = {
    {"row_1_no_mapping_no_right", no_mapping_no_right},
    {"row_6_no_memory_waits", no_memory},
    {"row_6_cgroup_is_full", cgroup_is_full},
    {"row_8_no_memory_for_a_huge_page", no_huge_table},
    {"row_21_no_memory_for_a_page_table", no_small_table},
    {"row_29_ring_is_refused", ring_is_refused},
    {"row_58_special_mapping_is_refused", special_is_refused},
    {"row_12_file_is_refused", file_is_refused},
    {"row_23_stack_guard", stack_guard},
    {NULL, NULL},
};
