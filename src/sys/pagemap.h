/*
 * What is really in a client's page tables, through its pagemap descriptor.
 *
 * Uses PAGEMAP_SCAN (Linux 6.7, 8 ns a page); an older kernel's pagemap text is read instead.
 * Works on the descriptor that the client opened, without any capability of ours.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pagemap_run {
	uint64_t start, end; /* addresses */
	bool present;        /* else a marker, or the kernel's own swap or migration entry */
	bool protected;      /* write-protected by us; CONTENT alone tells */
};

enum pagemap_want {
	PAGEMAP_RESIDENT, /* present and not the shared zero page: what eviction can take */
	PAGEMAP_PRESENT,  /* present in any way */
	PAGEMAP_MARKER,   /* uffd-wp on an empty pte: our marker (see mm/word.h) */
	PAGEMAP_HUGE,     /* in a huge page, mapped as one; an older kernel does not tell: none */
	PAGEMAP_WRITABLE, /* not empty, and not write-protected by us */
	PAGEMAP_CONTENT,  /* not empty, and not the shared zero page */
};

/* Finds runs of wanted pages in [start, end), at most `max_runs` and `max_pages` (0 = no bound).
 * *ret_end says up to where was looked. Returns how many runs, or -errno (-ESRCH: the process has
 * ended). */
ssize_t pagemap_scan(int pagemap, uint64_t start, uint64_t end, enum pagemap_want want,
		     struct pagemap_run *runs, size_t max_runs, size_t max_pages,
		     uint64_t *ret_end);

/* One page: 1, 0 or -errno. */
int pagemap_is(int pagemap, uint64_t address, enum pagemap_want want);

/* Which of the n pages from `address` on are write-protected by us (or marked)? n ≤ 512. 0 or -errno. */
int pagemap_protected(int pagemap, uint64_t address, size_t n, bool *ret);

/* Which of the n pages from `address` on are guards (MADV_GUARD_INSTALL)? n ≤ 512. 0 or -errno. A kernel
 * that does not tell has none in files, and refuses to fill those of anonymous memory. */
int pagemap_guards(int pagemap, uint64_t address, size_t n, bool *ret);

/* Which of the n pages from `address` on are mapped by this process alone (as far as the kernel
 * knows: an upper bound)? ret[i] is set for each; n ≤ 512. 0 or -errno. */
int pagemap_exclusive(int pagemap, uint64_t address, size_t n, bool *ret);
