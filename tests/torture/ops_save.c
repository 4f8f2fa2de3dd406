/* The process saves a run of its pages by upager_snapshot(), and goes on writing to them. */
#include "torture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <upager/upager.h>

#define SAVE_PAGES 256

static struct upager *upager; /* NULL: we run without */

void save_init(void)
{
	if (getenv("UPAGER_SOCKET") && upager_open(NULL, &upager) < 0)
		upager = NULL;
}

/* Somebody else's is being made; other threads map and unmap all the time; a child that is not paged. */
static bool is_excuse(int r)
{
	static const int excuses[] = {EBUSY, ETIMEDOUT, ESRCH, EOPNOTSUPP};

	for (unsigned i = 0; i < sizeof excuses / sizeof *excuses; i++)
		if (r == -excuses[i])
			return true;
	return false;
}

/* What is in the image must be what the pages were. A freed page may have gone, and only such a one. */
static void image_verify(struct actor *a, int file, uint64_t lost, const struct region *r,
			 unsigned start, unsigned n, const struct page *were)
{
	struct upager_snapshot_piece piece;
	uint64_t words[WORDS], may_go = 0;

	check(a, upager_snapshot_find(file, (uint64_t)addr_of(r, start), &piece) == 0);
	check(a, piece.address == (uint64_t)addr_of(r, start) && piece.length == n * PAGE);
	for (unsigned i = 0; i < n; i++) {
		struct page was = were[i];

		may_go += was.flags & P_FREED ? PAGE : 0;
		if (was.flags & P_GUARD)
			continue;
		check(a, pread(file, words, PAGE, (off_t)(piece.offset + i * PAGE)) == (ssize_t)PAGE);
		page_verify(a, &was, words);
	}
	if (lost > may_go)
		fail(a, "%lu bytes of %u pages at %p are lost", lost, n, (void *)addr_of(r, start));
}

/* What is mapped from a file cannot be in an image. */
static bool maps_file(const struct page *pages, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (pages[i].file)
			return true;
	return false;
}

static void write_some(struct actor *a, struct region *r, unsigned start, unsigned n)
{
	for (unsigned left = pick(a, n + 1); left-- > 0;) {
		unsigned i = start + pick(a, n);

		if (!(page_of(r, i)->flags & P_UNWRITABLE))
			page_write(a, page_of(r, i), addr_of(r, i));
	}
}

static int op_save(struct actor *a)
{
	struct region *r = upager ? region_pick(a, ALL_KINDS) : NULL;
	struct upager_snapshot_result result;
	struct page were[SAVE_PAGES];
	unsigned start, n;
	int snapshot, file, status;

	if (!r || !run_pick(a, r, r->stride == PAGE ? SAVE_PAGES : 1, &start, &n))
		return -1;
	file = memfd_create("image", MFD_CLOEXEC);
	check(a, file >= 0);
	memcpy(were, page_of(r, start), n * sizeof *were);
	status = upager_snapshot(upager, file, addr_of(r, start), n * PAGE, &snapshot);
	if (status == 0) {
		write_some(a, r, start, n);
		if (chance(a, 8))
			upager_snapshot_cancel(snapshot);
		status = upager_snapshot_wait(snapshot, &result);
		close(snapshot);
		if (status == 0 && !(result.lost && root->sigbus_ok))
			image_verify(a, file, result.lost, r, start, n, were);
	}
	close(file);
	if (maps_file(were, n)) {
		check(a, status == -EFAULT || is_excuse(status));
		return 0;
	}
	if (status < 0 && status != -ECANCELED && !is_excuse(status)) {
		errno = -status;
		fail(a, "saving %u pages at %p: %m", n, (void *)addr_of(r, start));
	}
	return status < 0 ? -1 : 0;
}

struct op ops_save[] = {
	{"save", 1, 0, op_save},
	{0},
};
