#include "sys/numa.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES_MAX 64u

static ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return n > 0 ? n : -EIO;
}

/* The processor is the 39th field; the name, which may hold anything, ends with the last ')'. */
static int node_of_thread(const struct numa *numa, pid_t pid, pid_t tid)
{
	char path[64], text[1024], *at;
	unsigned long cpu;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	if (read_text(path, text, sizeof(text)) < 0)
		return -ESRCH;
	at = strrchr(text, ')');
	for (unsigned field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	if (!at)
		return -EINVAL;
	cpu = strtoul(at, NULL, 10);
	return cpu < NUMA_CPUS ? numa->of_cpu[cpu] : -ERANGE;
}

static int node_of_page(const struct numa *numa, pid_t pid, uint64_t address)
{
	void *page = (void *)(uintptr_t)address;
	int status = -ENOENT;

	(void)numa;
	if (syscall(SYS_move_pages, pid, 1ul, &page, NULL, &status, 0) < 0)
		return -errno;
	return status;
}

static ssize_t migrate(const struct numa *numa, pid_t pid, uint64_t address, size_t n,
		       unsigned node)
{
	void *pages[PAGES_MAX];
	int nodes[PAGES_MAX], status[PAGES_MAX];
	ssize_t moved = 0;

	(void)numa;
	if (n > PAGES_MAX)
		n = PAGES_MAX;
	for (size_t i = 0; i < n; i++) {
		pages[i] = (void *)(uintptr_t)(address + i * 4096);
		nodes[i] = (int)node;
		status[i] = -ENOENT;
	}
	if (syscall(SYS_move_pages, pid, n, pages, nodes, status, MPOL_MF_MOVE) < 0)
		return -errno;
	for (size_t i = 0; i < n; i++)
		moved += status[i] == (int)node;
	return moved;
}

/* "0-3,8": marks them. */
static void take_cpus(struct numa *numa, const char *list, unsigned node)
{
	while (*list >= '0' && *list <= '9') {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (unsigned long cpu = first; cpu <= last && cpu < NUMA_CPUS; cpu++)
			numa->of_cpu[cpu] = (uint8_t)node;
		list = *end == ',' ? end + 1 : end;
	}
}

void numa_init(struct numa *ret, const char *dir)
{
	char path[256], text[1024];
	unsigned found = 0;

	*ret = (struct numa){.of_thread = node_of_thread, .of_page = node_of_page,
			     .migrate = migrate};
	for (unsigned node = 0; node < 256; node++) {
		snprintf(path, sizeof(path), "%s/node%u/cpulist", dir, node);
		if (read_text(path, text, sizeof(text)) < 0)
			continue;
		found++;
		take_cpus(ret, text, node);
	}
	ret->nodes = found ? found : 1;
}

/* ---- for tests ---- */

static int pretended_node_of_page(const struct numa *numa, pid_t pid, uint64_t address)
{
	int cpu = sched_getcpu();

	(void)pid;
	(void)address;
	return cpu >= 0 && cpu < NUMA_CPUS ? numa->of_cpu[cpu] : 0;
}

static ssize_t pretended_migration(const struct numa *numa, pid_t pid, uint64_t address, size_t n,
				   unsigned node)
{
	(void)numa;
	(void)pid;
	(void)address;
	(void)node;
	return (ssize_t)n;
}

void numa_pretend(struct numa *ret, unsigned n)
{
	*ret = (struct numa){.nodes = n, .of_thread = node_of_thread,
			     .of_page = pretended_node_of_page, .migrate = pretended_migration};
	for (unsigned cpu = 0; cpu < NUMA_CPUS; cpu++)
		ret->of_cpu[cpu] = (uint8_t)(cpu % n);
}
