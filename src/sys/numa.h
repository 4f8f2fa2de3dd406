/*
 * Memory nodes: on which one a thread runs and a page lies, and moving pages to another.
 *
 * A table of functions, so that a test can have two nodes on a machine that has one.
 * Reads /sys/devices/system/node and /proc/PID/task/TID/stat; see move_pages(2), which needs
 * CAP_SYS_PTRACE for the memory of another user's process.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NUMA_CPUS 1024

struct numa {
	unsigned nodes; /* 1: there is nothing to choose */
	uint8_t of_cpu[NUMA_CPUS];
	/* Each returns a node, or -errno. */
	int (*of_thread)(const struct numa *numa, pid_t pid, pid_t tid);
	int (*of_page)(const struct numa *numa, pid_t pid, uint64_t address);
	/* How many of n pages from `address` on are there now, or -errno. */
	ssize_t (*migrate)(const struct numa *numa, pid_t pid, uint64_t address, size_t n,
			   unsigned node);
};

#define NUMA_DIR "/sys/devices/system/node"

/* The nodes that `dir` tells of; one, if it tells nothing. */
void numa_init(struct numa *ret, const char *dir);
/* For tests: n nodes, of which processor c is on c % n; a page lies where the caller runs, and is
 * moved in word only. */
void numa_pretend(struct numa *ret, unsigned n);
