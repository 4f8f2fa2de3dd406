/* sys/numa: nodes from a directory like sysfs's, and pretended ones. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/numa.h"

static void put(const char *dir, unsigned node, const char *list)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/node%u", dir, node);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/node%u/cpulist", dir, node);
	file = fopen(path, "w");
	cr_assert(file);
	fprintf(file, "%s\n", list);
	fclose(file);
}

Test(numa, lists)
{
	char dir[] = "/tmp/upager-numa-XXXXXX", command[64];
	struct numa numa;

	cr_assert(mkdtemp(dir));
	numa_init(&numa, dir);
	cr_expect_eq(numa.nodes, 1, "nothing is told");
	put(dir, 0, "0-3,8");
	put(dir, 2, "4-7,9-11");
	put(dir, 3, "");
	numa_init(&numa, dir);
	cr_expect_eq(numa.nodes, 3);
	for (unsigned cpu = 0; cpu < 12; cpu++)
		cr_expect_eq(numa.of_cpu[cpu], (cpu >= 4 && cpu < 8) || cpu >= 9 ? 2 : 0, "%u", cpu);
	put(dir, 5, "12-99999999,x");
	numa_init(&numa, dir);
	cr_expect_eq(numa.of_cpu[NUMA_CPUS - 1], 5);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_expect_eq(system(command), 0);
}

Test(numa, of_thread)
{
	struct numa numa;
	cpu_set_t set;
	int cpu;

	sched_getaffinity(0, sizeof(set), &set);
	for (cpu = 0; !CPU_ISSET(cpu, &set); cpu++)
		;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
	numa_pretend(&numa, 3);
	cr_expect_eq(numa.of_thread(&numa, getpid(), gettid()), cpu % 3);
	cr_expect_eq(numa.of_page(&numa, getpid(), 0x1000), cpu % 3);
	cr_expect_lt(numa.of_thread(&numa, getpid(), 1), 0, "no thread of ours");
	cr_expect_eq(numa.migrate(&numa, getpid(), 0x1000, 5, 1), 5);
}

/* The calls themselves, to the node where the page is already. */
Test(numa, real)
{
	char *page = aligned_alloc(4096, 4096);
	struct numa numa;
	int node;

	numa_init(&numa, NUMA_DIR);
	cr_assert(numa.nodes >= 1);
	*page = 1;
	node = numa.of_page(&numa, getpid(), (uintptr_t)page);
	if (node == -ENOSYS)
		cr_skip("a kernel without move_pages(2)");
	cr_assert(node >= 0, "%d", node);
	cr_expect_eq(numa.migrate(&numa, getpid(), (uintptr_t)page, 1, (unsigned)node), 1);
	cr_expect_eq(*page, 1);
	free(page);
}
