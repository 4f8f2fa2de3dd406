/*
 * The regions of a task: its VMAs as the daemon knows them. Sorted, disjoint.
 * A hint: the client changes its memory at any time; every user copes with what is outdated.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct region {
	uint64_t start, end;
	bool writable, exec;
	bool registered;
	bool hugetlb; /* served as reserved huge pages: they never leave */
	bool looked;  /* every leaf with resident pages exists (see evict.c) */
	uint64_t denied_until; /* lap of the hand: MOVE answered EINVAL (mlocked, …) */
	bool refused; /* REGISTER failed: somebody else's uffd, special memory */
};

struct regions {
	struct region *list; /* owned */
	size_t n, capacity;
};

int regions_add(struct regions *regions, const struct region *region); /* at the end; -ENOMEM */
/* In its place, instead of what was there; -ENOMEM. */
int regions_put(struct regions *regions, const struct region *region);
/* The region that covers the address, or the next one above; NULL at the end. */
struct region *regions_find(const struct regions *regions, uint64_t address);
/* Forgets [start, end), trimming or splitting what overlaps. */
int regions_remove(struct regions *regions, uint64_t start, uint64_t end);
void regions_done(struct regions *regions);
