/* sys/: what the kernel tells about processes, as text and as bits. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/pagemap.h"
#include "sys/procmaps.h"
#include "sys/uffd.h"
#include "sys/uring.h"

Test(procmaps, lines)
{
	enum { R = PROCMAPS_READ, W = PROCMAPS_WRITE, X = PROCMAPS_EXEC, S = PROCMAPS_SHARED,
	       A = PROCMAPS_ANONYMOUS };
	static const struct {
		const char *line;
		uint64_t start, end;
		unsigned flags;
	} cases[] = {
		{"1000-3000 rw-p 00000000 00:00 0 \n", 0x1000, 0x3000, R | W | A},
		{"1000-3000 rw-p 00000000 00:00 0", 0x1000, 0x3000, R | W | A},
		{"1000-3000 ---p 00000000 00:00 0 \n", 0x1000, 0x3000, A},
		{"1000-3000 rwxp 00000000 00:00 0 \n", 0x1000, 0x3000, R | W | X | A},
		{"55d0c8a5e000-55d0c8a7f000 rw-p 00000000 00:00 0                          [heap]\n",
		 0x55d0c8a5e000, 0x55d0c8a7f000, R | W | A},
		{"7ffd1c000000-7ffd1c021000 rw-p 00000000 00:00 0                          [stack]\n",
		 0x7ffd1c000000, 0x7ffd1c021000, R | W | A | PROCMAPS_STACK},
		{"7f00-8000 rw-p 0 00:00 0", 0x7f00, 0x8000, R | W | A},
		{"1000-3000 rw-p 00000000 00:00 0   [anon:a name with spaces]\n", 0x1000, 0x3000,
		 R | W | A},
		{"1000-3000 r-xp 00000000 00:00 0   [vdso]\n", 0x1000, 0x3000, R | X},
		{"1000-3000 r--p 00000000 00:00 0   [vvar]\n", 0x1000, 0x3000, R},
		{"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n",
		 0xffffffffff600000, 0xffffffffff601000, X},
		{"1000-3000 rw-s 00000000 00:01 1024   /dev/zero (deleted)\n", 0x1000, 0x3000,
		 R | W | S},
		{"1000-3000 rw-s 00000000 00:00 0 \n", 0x1000, 0x3000, R | W | S},
		{"1000-3000 rw-p 00001000 fd:01 77   /tmp/a file (deleted)\n", 0x1000, 0x3000, R | W},
		{"1000-3000 rw-p 00001000 00:1f 0   /\n", 0x1000, 0x3000, R | W},
		{"7f1fe4000000-7f1fe4400000 rw-p 00000000 00:11 9   /anon_hugepage (deleted)\n",
		 0x7f1fe4000000, 0x7f1fe4400000, R | W | PROCMAPS_HUGETLB},
		/* A file that is called as anonymous memory is. */
		{"1000-3000 rw-p 00000000 08:01 5   [heap]\n", 0x1000, 0x3000, R | W},
	};
	struct procmaps_vma vma;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_assert_eq(procmaps_parse_line(cases[i].line, &vma), 0, "%s", cases[i].line);
		cr_expect_eq(vma.start, cases[i].start, "%s", cases[i].line);
		cr_expect_eq(vma.end, cases[i].end, "%s", cases[i].line);
		cr_expect_eq(vma.flags, cases[i].flags, "%s: %#x", cases[i].line, vma.flags);
	}
}

Test(procmaps, no_lines)
{
	static const char *const lines[] = {
		"", "\n", "Size:   4 kB\n", "1000-1000 rw-p 0 00:00 0\n", "3000-1000 rw-p 0 00:00 0\n",
		"1000-3000 rw-p\n", "1000-3000 rw-p 00000000 00:00\n", "xyz-3000 rw-p 0 00:00 0\n",
	};
	struct procmaps_vma vma;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		cr_expect_eq(procmaps_parse_line(lines[i], &vma), -EINVAL, "%s", lines[i]);
}

Test(procmaps, long_path)
{
	char line[4300] = "1000-3000 rw-p 00000000 fd:01 99      /";
	struct procmaps_vma vma;

	memset(line + strlen(line), 'x', 4200);
	cr_expect_eq(procmaps_parse_line(line, &vma), 0);
	cr_expect_eq(vma.flags, PROCMAPS_READ | PROCMAPS_WRITE);
}

static void finds_itself(bool use_query)
{
	size_t length = 7 * PAGE_SIZE;
	char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), stacks = 0, r;
	struct procmaps maps = {0};
	struct procmaps_vma vma = {0};
	uint64_t address = 0, ours = (uintptr_t)mmap(NULL, length, PROT_NONE,
						    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool found = false;

	cr_assert(at != MAP_FAILED && fd >= 0);
	while ((r = procmaps_next(fd, use_query, &maps, address, &vma)) == 0) {
		cr_assert(vma.end > address && vma.start < vma.end);
		stacks += vma.flags & PROCMAPS_STACK ? 1 : 0;
		found = found || (vma.start <= ours && vma.end >= ours + length &&
				  vma.flags & PROCMAPS_ANONYMOUS);
		address = vma.end;
	}
	cr_expect_eq(r, -ENOENT);
	cr_expect_eq(stacks, 1);
	cr_expect(found);
	cr_expect_eq(procmaps_find(fd, use_query, (uintptr_t)at + PAGE_SIZE, &vma), 0);
	cr_expect_eq(vma.flags, PROCMAPS_READ | PROCMAPS_WRITE | PROCMAPS_SHARED);
	cr_expect_eq(procmaps_find(fd, use_query, 0, &vma), -ENOENT);
	procmaps_done(&maps);
	close(fd);
}

Test(procmaps, itself_by_text)
{
	finds_itself(false);
}

Test(procmaps, itself_by_query)
{
	finds_itself(true);
}

Test(procmaps, statm)
{
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	int rollup = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
	struct procmaps_statm statm;
	uint64_t pss = 0;

	cr_expect_eq(procmaps_statm(fd, &statm), 0);
	cr_expect(statm.size >= statm.resident && statm.resident >= statm.shared);
	cr_expect(statm.data > 0 && statm.data < statm.size);
	cr_expect_eq(procmaps_pss_anon(rollup, &pss), 0);
	cr_expect(pss > 0 && pss <= pages_to_bytes(statm.size));
	close(fd);
	close(rollup);
}

/* ---- pagemap ---- */

Test(pagemap, own_pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *at = mmap(NULL, 16 * PAGE_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t base = (uintptr_t)at, end;
	struct pagemap_run runs[4];
	bool exclusive[4];

	cr_assert(fd >= 0 && at != MAP_FAILED);
	cr_expect_eq(pagemap_is(fd, base, PAGEMAP_PRESENT), 0);
	at[0] = at[PAGE_SIZE] = at[5 * PAGE_SIZE] = 1;
	(void)*(volatile char *)(at + 9 * PAGE_SIZE); /* the zero page */
	cr_expect_eq(pagemap_is(fd, base, PAGEMAP_PRESENT), 1);
	cr_expect_eq(pagemap_is(fd, base, PAGEMAP_RESIDENT), 1);
	cr_expect_eq(pagemap_is(fd, base, PAGEMAP_MARKER), 0);
	cr_expect_eq(pagemap_is(fd, base, PAGEMAP_HUGE), 0);
	cr_expect_eq(pagemap_is(fd, base + 9 * PAGE_SIZE, PAGEMAP_PRESENT), 1);
	cr_expect_eq(pagemap_is(fd, base + 9 * PAGE_SIZE, PAGEMAP_RESIDENT), 0);
	cr_expect_eq(pagemap_scan(fd, base, base + 16 * PAGE_SIZE, PAGEMAP_RESIDENT, runs, 4, 0, &end),
		     2);
	cr_expect_eq(runs[0].start, base);
	cr_expect_eq(runs[0].end, base + 2 * PAGE_SIZE);
	cr_expect_eq(runs[1].start, base + 5 * PAGE_SIZE);
	cr_expect_eq(end, base + 16 * PAGE_SIZE);
	cr_expect_eq(pagemap_scan(fd, base, base + 16 * PAGE_SIZE, PAGEMAP_RESIDENT, runs, 4, 1, &end),
		     1, "one page and no more");
	cr_expect_eq(runs[0].end, base + PAGE_SIZE);
	cr_expect(end > base && end <= base + PAGE_SIZE);
	cr_expect_eq(pagemap_exclusive(fd, base, 4, exclusive), 0);
	cr_expect(exclusive[0] && exclusive[1] && !exclusive[2]);
	close(fd);
}

/* ---- io_uring ---- */

struct nap {
	struct completion completion;
	int result, *ran;
};

static void wakes(struct completion *completion, int result)
{
	struct nap *nap = container_of(completion, struct nap, completion);

	nap->result = result;
	++*nap->ran;
}

/* However many have come, what the first few have led to is submitted before the rest is served; and
 * none is forgotten, nor waited for while others are there. */
Test(uring, a_few_at_a_time)
{
	struct __kernel_timespec soon = {.tv_nsec = 1000};
	struct nap naps[3 * URING_BATCH] = {0};
	struct uring uring;
	int ran = 0;

	cr_assert_eq(uring_init(&uring, 64, 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(naps); i++) {
		naps[i] = (struct nap){.completion.done = wakes, .ran = &ran};
		cr_assert_eq(uring_timeout(&uring, &soon, &naps[i].completion), 0);
	}
	uring_flush(&uring);
	usleep(20000);
	for (unsigned round = 1; round <= 3; round++) {
		int n = uring_run(&uring, 10000 * MS);

		cr_assert(n > 0 && n <= (int)URING_BATCH, "%d", n);
	}
	cr_assert_eq(ran, (int)ARRAY_SIZE(naps));
	cr_assert_eq(uring_run(&uring, 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(naps); i++)
		cr_assert_eq(naps[i].result, -ETIME);
	uring_done(&uring);
}
