/*
 * The VMAs of a client, through its maps descriptor: PROCMAP_QUERY (Linux 6.11) or the text.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum procmaps_flag {
	PROCMAPS_READ = 1,
	PROCMAPS_WRITE = 2,
	PROCMAPS_EXEC = 4,
	PROCMAPS_SHARED = 8,
	PROCMAPS_ANONYMOUS = 16, /* private anonymous: no file, not special */
	PROCMAPS_STACK = 32,     /* the main thread's stack */
	PROCMAPS_HUGETLB = 64,   /* reserved huge pages of 2 MiB */
};

struct procmaps_vma {
	uint64_t start, end;
	unsigned flags; /* enum procmaps_flag */
	uint64_t device, inode; /* of the file that is mapped; 0: none */
	uint64_t offset;        /* bytes, of `start` in it */
};

struct procmaps {
	struct procmaps_vma *vmas; /* owned; sorted by address */
	size_t n, capacity, next;
};

/* The first VMA that ends above `address`. With PROCMAP_QUERY it is asked for at this moment; the
 * text is read once, into *maps, which is empty at first. -ENOENT: there is none; -ESRCH: the process has
 * ended. */
int procmaps_next(int maps_fd, bool use_query, struct procmaps *maps, uint64_t address,
		  struct procmaps_vma *ret);

/* The first VMA that ends above `address`, as it is now. -ENOENT: none. */
int procmaps_above(int maps_fd, bool use_query, uint64_t address, struct procmaps_vma *ret);
/* The VMA that covers `address`. -ENOENT: none. */
int procmaps_find(int maps_fd, bool use_query, uint64_t address, struct procmaps_vma *ret);

void procmaps_done(struct procmaps *maps);

/* One line of /proc/PID/maps. -EINVAL: not one. */
int procmaps_parse_line(const char *line, struct procmaps_vma *ret);

/* /proc/PID/statm in pages. */
struct procmaps_statm {
	uint64_t size, resident, shared, data;
};
int procmaps_statm(int statm_fd, struct procmaps_statm *ret);

/* Pss_Anon of an open smaps_rollup, bytes. Walks all page tables: milliseconds. */
int procmaps_pss_anon(int rollup_fd, uint64_t *ret);
