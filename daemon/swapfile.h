/* Looks at the configured swap files and devices before the pager opens them, to say in clear words
 * what is wrong. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct failure;
struct pager_swap;

#define SWAPFILE_SIZE_MIN (1u << 20) /* bytes */

/* Can files in this directory be opened with O_DIRECT? True when in doubt. */
bool swapfile_direct_works(const char *dir);

/* 0 or -errno and a sentence that begins with the key, "swap[0].path: /var/lib/…". Sets
 * ret_missing[i]: it is to be created. */
int swapfile_check(const struct pager_swap *swaps, size_t n, bool *ret_missing,
		   struct failure *failure);
