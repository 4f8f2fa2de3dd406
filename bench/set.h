/*
 * The pages of a working set: where they are, what is in them, and whether it still is.
 *
 * A page carries its index, its version and a seal of both; the words between depend on the index
 * alone. The versions are four bytes a page beside the set: part of the set, pageable like it.
 *
 * Threads own disjoint pages, so nothing is locked and each version is known.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

enum fill { FILL_RANDOM, FILL_TEXT, FILL_HEADER };

struct set_options {
	uint64_t size;	 /* bytes of pages */
	uint64_t spread; /* bytes of address space that they are spread over; 0: as many as size */
	uint64_t vmas;	 /* so many mappings; 1: as the kernel likes */
	uint64_t seed;
	enum fill fill;
};

struct set {
	struct set_options options;
	char *memory;
	uint32_t *versions;
	uint64_t pages;
	uint64_t stride; /* from one chunk of pages to the next */
};

/* Maps the set and writes every page. 0 or -errno. */
int set_new(const struct set_options *options, struct set *ret);

void set_write(struct set *set, uint64_t page);
/* The page's first three words; says what is wrong with the first few wrong pages. */
bool set_check(const struct set *set, uint64_t page);
/* All words of all pages. => how many pages are wrong. */
uint64_t set_check_all(const struct set *set);
