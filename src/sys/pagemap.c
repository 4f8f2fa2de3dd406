#include "sys/pagemap.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/kernel.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_BIT_EXCLUSIVE (1ull << 56)
#define PAGEMAP_BIT_UFFD_WP (1ull << 57)
#define PAGEMAP_BIT_GUARD   (1ull << 58) /* Linux 6.15 */
#define PAGEMAP_BIT_SWAP    (1ull << 62)
#define PAGEMAP_BIT_PRESENT (1ull << 63)

static bool entry_matches(uint64_t entry, enum pagemap_want want)
{
	bool used = entry & (PAGEMAP_BIT_PRESENT | PAGEMAP_BIT_SWAP);

	switch (want) {
	case PAGEMAP_MARKER:
		return entry & PAGEMAP_BIT_SWAP && entry & PAGEMAP_BIT_UFFD_WP;
	case PAGEMAP_WRITABLE:
		return used && !(entry & PAGEMAP_BIT_UFFD_WP);
	case PAGEMAP_CONTENT:
		return used;
	case PAGEMAP_HUGE:
		return false;
	default:
		return entry & PAGEMAP_BIT_PRESENT;
	}
}

static struct pagemap_run run_of(uint64_t at, uint64_t entry)
{
	return (struct pagemap_run){
		.start = at,
		.end = at + PAGE_SIZE,
		.present = entry & PAGEMAP_BIT_PRESENT,
		.protected = entry & PAGEMAP_BIT_UFFD_WP,
	};
}

static bool continues(const struct pagemap_run *last, const struct pagemap_run *next)
{
	return last->end == next->start && last->present == next->present &&
	       last->protected == next->protected;
}

/* Before PAGEMAP_SCAN: eight bytes a page. The zero page cannot be told apart; evicting it costs
 * time, not bytes. */
static ssize_t scan_entries(int pagemap, uint64_t start, uint64_t end, enum pagemap_want want,
			    struct pagemap_run *runs, size_t max_runs, size_t max_pages,
			    uint64_t *ret_end)
{
	uint64_t entries[512];
	size_t n = 0, pages = 0;
	uint64_t at = start;

	while (at < end) {
		size_t ask = MIN(bytes_to_pages(end - at), ARRAY_SIZE(entries));
		ssize_t got = pread(pagemap, entries, ask * 8, (off_t)(at >> PAGE_SHIFT) * 8);

		if (got < 0)
			return -errno;
		if (got < 8)
			return got == 0 && at == start ? -ESRCH : (ssize_t)n;
		for (size_t i = 0; i < (size_t)got / 8; i++, at += PAGE_SIZE) {
			struct pagemap_run run = run_of(at, entries[i]);

			if (!entry_matches(entries[i], want))
				continue;
			if (n && continues(&runs[n - 1], &run)) {
				runs[n - 1].end += PAGE_SIZE;
			} else if (n == max_runs) {
				goto out;
			} else {
				runs[n++] = run;
			}
			if (++pages == max_pages) {
				at += PAGE_SIZE;
				goto out;
			}
		}
	}
out:
	*ret_end = at;
	return (ssize_t)n;
}

ssize_t pagemap_scan(int pagemap, uint64_t start, uint64_t end, enum pagemap_want want,
		     struct pagemap_run *runs, size_t max_runs, size_t max_pages,
		     uint64_t *ret_end)
{
	struct page_region regions[64];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = MIN(max_runs, ARRAY_SIZE(regions)),
		.max_pages = max_pages,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	int n;

	switch (want) {
	case PAGEMAP_RESIDENT:
		scan.category_mask = PAGE_IS_PRESENT | PAGE_IS_PFNZERO;
		scan.category_inverted = PAGE_IS_PFNZERO;
		break;
	case PAGEMAP_PRESENT:
		scan.category_mask = PAGE_IS_PRESENT;
		break;
	case PAGEMAP_MARKER:
		scan.category_mask = PAGE_IS_SWAPPED | PAGE_IS_WRITTEN;
		scan.category_inverted = PAGE_IS_WRITTEN;
		break;
	case PAGEMAP_HUGE:
		scan.category_mask = PAGE_IS_PRESENT | PAGE_IS_HUGE | PAGE_IS_PFNZERO;
		scan.category_inverted = PAGE_IS_PFNZERO;
		break;
	case PAGEMAP_WRITABLE:
		scan.category_mask = PAGE_IS_WRITTEN;
		scan.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
		break;
	case PAGEMAP_CONTENT:
		scan.category_mask = scan.category_inverted = PAGE_IS_PFNZERO;
		scan.return_mask |= PAGE_IS_WRITTEN;
		scan.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
		break;
	}
	n = ioctl(pagemap, PAGEMAP_SCAN, &scan);
	if (n < 0 && errno == ENOTTY)
		return scan_entries(pagemap, start, end, want, runs, max_runs, max_pages, ret_end);
	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		runs[i] = (struct pagemap_run){
			.start = regions[i].start,
			.end = regions[i].end,
			.present = regions[i].categories & PAGE_IS_PRESENT,
			.protected = want == PAGEMAP_CONTENT &&
				     !(regions[i].categories & PAGE_IS_WRITTEN),
		};
	*ret_end = scan.walk_end;
	return n;
}

int pagemap_is(int pagemap, uint64_t address, enum pagemap_want want)
{
	struct pagemap_run run;
	uint64_t end;
	ssize_t n = pagemap_scan(pagemap, address, address + PAGE_SIZE, want, &run, 1, 0, &end);

	return (int)n;
}

/* Which of n ≤ 512 entries have all these bits? */
static int have_bits(int pagemap, uint64_t address, size_t n, uint64_t bits, bool *ret)
{
	uint64_t entries[512];
	ssize_t got = pread(pagemap, entries, n * 8, (off_t)(address >> PAGE_SHIFT) * 8);

	if (got < 0)
		return -errno;
	for (size_t i = 0; i < n; i++)
		ret[i] = i < (size_t)got / 8 && (entries[i] & bits) == bits;
	return 0;
}

int pagemap_protected(int pagemap, uint64_t address, size_t n, bool *ret)
{
	return have_bits(pagemap, address, n, PAGEMAP_BIT_UFFD_WP, ret);
}

int pagemap_guards(int pagemap, uint64_t address, size_t n, bool *ret)
{
	return have_bits(pagemap, address, n, PAGEMAP_BIT_GUARD, ret);
}

int pagemap_exclusive(int pagemap, uint64_t address, size_t n, bool *ret)
{
	return have_bits(pagemap, address, n, PAGEMAP_BIT_EXCLUSIVE, ret);
}
