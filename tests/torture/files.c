/*
 * The files that are mapped: their shadow, and how they are mapped: through the daemon, or without
 * it as ever, which tests the shadow.
 *
 * All actors and all processes share the files and their one shadow. Whoever looks at a page, or
 * stores there, claims it first; nobody waits for a claim, so that a process may be killed with one.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "upager/upager.h"

#define WRITTEN_S 60 /* how long an unmapped file may wait for what was stored: writeback_s and more */

struct file_page {
	struct page page;
	uint32_t holder; /* a process; 0: nobody claims it */
};

static struct file_page *shadow;
static struct upager *pager; /* NULL: natively */
static int files[FILES], read_only[FILES];

/* ---- the shadow ---- */

struct page *file_shadow(uint32_t file)
{
	return &shadow[file - 1].page;
}

unsigned file_left(uint32_t file)
{
	return MAPPED_PAGES - (file - 1) % MAPPED_PAGES;
}

bool file_claim(uint32_t file)
{
	uint32_t nobody = 0;

	return __atomic_compare_exchange_n(&shadow[file - 1].holder, &nobody, (uint32_t)getpid(), false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

unsigned file_claim_run(uint32_t file, unsigned n)
{
	unsigned i = 0;

	while (i < n && file_claim(file + i))
		i++;
	return i;
}

void file_release(uint32_t file, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		__atomic_store_n(&shadow[file - 1 + i].holder, 0, __ATOMIC_RELEASE);
}

void file_forsaken(pid_t pid)
{
	for (unsigned i = 0; i < FILES * MAPPED_PAGES; i++)
		if (__atomic_load_n(&shadow[i].holder, __ATOMIC_ACQUIRE) == (uint32_t)pid) {
			shadow[i].page.flags |= P_TORN;
			file_release(i + 1, 1);
		}
}

static int descriptor(uint32_t file)
{
	return files[(file - 1) / MAPPED_PAGES];
}

static off_t offset_of(uint32_t file)
{
	return (off_t)((file - 1) % MAPPED_PAGES * PAGE);
}

void file_compare(struct actor *a, uint32_t file, unsigned n)
{
	uint64_t found[WORDS];

	for (unsigned i = 0; i < n; i++) {
		check(a, pread(descriptor(file), found, PAGE, offset_of(file + i)) == PAGE);
		page_verify(a, file_shadow(file + i), found);
	}
}

/* ---- mapping ---- */

/* What the library has answered. */
static void right(struct actor *a, const char *call, int result)
{
	if (result < 0)
		fail(a, "%s: %s", call, strerror(-result));
}

void *file_map(struct actor *a, int fd, uint64_t offset, uint64_t bytes, enum file_how how)
{
	const int prot = how == FILE_FIXED ? PROT_READ : PROT_READ | PROT_WRITE;
	void *at = NULL;
	int r;

	if (!pager) {
		at = mmap(NULL, bytes, prot, how == FILE_PRIVATE ? MAP_PRIVATE : MAP_SHARED, fd,
			  (off_t)offset);
		check(a, at != MAP_FAILED);
		return at;
	}
	r = upager_map_file(pager, fd, offset, bytes, how == FILE_PRIVATE ? UPAGER_PRIVATE : UPAGER_SHARED,
			    prot, chance(a, 2) ? PAGE << pick(a, 10) : 0, &at);
	if (r == -EOPNOTSUPP)
		return NULL;
	right(a, "upager_map_file", r);
	log_range(a, (uint64_t)at, bytes);
	return at;
}

void *file_map_pages(struct actor *a, uint32_t file, unsigned pages, enum file_how how)
{
	int fd = how == FILE_FIXED ? read_only[(file - 1) / MAPPED_PAGES] : descriptor(file);

	return file_map(a, fd, (uint64_t)offset_of(file), pages * PAGE, how);
}

void file_unmap(struct actor *a, void *at, uint64_t bytes)
{
	if (pager && chance(a, 2))
		right(a, "upager_unmap", upager_unmap(pager, at, bytes));
	else
		check(a, munmap(at, bytes) == 0);
}

void file_sync(struct actor *a, void *at, uint64_t bytes)
{
	if (pager)
		right(a, "upager_sync", upager_sync(pager, at, bytes));
	else
		check(a, msync(at, bytes, MS_SYNC) == 0);
}

void file_advise(struct actor *a, void *at, uint64_t bytes, unsigned advice, bool mapped)
{
	/* None that would split the mapping. */
	static const int natively[] = {MADV_COLD, MADV_COLD, MADV_COLD, MADV_COLD, MADV_POPULATE_READ,
				       MADV_DONTNEED};
	int r;

	if (!pager) {
		check(a, madvise(at, bytes, natively[advice]) == 0);
		return;
	}
	r = upager_advise(pager, at, bytes, (enum upager_advice)advice);
	if (r != -EINVAL || mapped || advice >= UPAGER_COLD)
		right(a, "upager_advise", r);
}

void *anonymous_map(struct actor *a, uint64_t bytes)
{
	void *at = NULL;

	if (pager) {
		right(a, "upager_map_anon", upager_map_anon(pager, bytes, &at));
	} else {
		at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		check(a, at != MAP_FAILED);
	}
	log_range(a, (uint64_t)at, bytes);
	return at;
}

/* ---- beginning and end ---- */

static void file_make(struct actor *a, unsigned number)
{
	char path[64];

	files[number] = temporary_file(a, 0);
	check(a, files[number] >= 0);
	for (uint32_t i = 0; i < MAPPED_PAGES; i++) {
		struct page *p = file_shadow(FILE_PAGE(number, i));

		page_set(p, content_new(a));
		content_make(p->content, a->expect);
		check(a, pwrite(files[number], a->expect, PAGE, (off_t)(i * PAGE)) == PAGE);
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", files[number]);
	read_only[number] = open(path, O_RDONLY | O_CLOEXEC);
	check(a, read_only[number] >= 0);
}

void files_make(struct actor *a)
{
	shadow = mmap(NULL, FILES * MAPPED_PAGES * sizeof *shadow, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(a, shadow != MAP_FAILED);
	for (unsigned i = 0; i < FILES; i++)
		file_make(a, i);
	if (getenv("UPAGER_SOCKET"))
		right(a, "upager_open", upager_open(NULL, &pager));
}

/* What was stored gets to a file that nobody maps without being asked for. */
static void await_written(struct actor *a, unsigned number)
{
	uint64_t found[WORDS];

	for (unsigned i = 0, tries = 0; i < MAPPED_PAGES; tries++) {
		const uint32_t file = FILE_PAGE(number, i);

		check(a, pread(files[number], found, PAGE, offset_of(file)) == PAGE);
		content_make(file_shadow(file)->content, a->expect);
		if (memcmp(found, a->expect, PAGE) == 0 || file_shadow(file)->flags & P_TORN) {
			i++;
		} else if (tries > WRITTEN_S * 100 + MAPPED_PAGES) {
			file_compare(a, file, 1);
		} else {
			usleep(10000);
		}
	}
}

/* The first is synced, the second merely unmapped, the third was never stored to. */
void files_end(struct actor *a)
{
	void *at = file_map_pages(a, FILE_PAGE(0, 0), MAPPED_PAGES, FILE_SHARED);

	for (unsigned i = 0; i < FILES * MAPPED_PAGES; i++)
		if (shadow[i].holder)
			fail(a, "page %u of the files was not let go by process %u", i, shadow[i].holder);
	for (unsigned i = 0; at && i < MAPPED_PAGES; i++)
		page_verify(a, file_shadow(FILE_PAGE(0, i)), (uint64_t *)((char *)at + i * PAGE));
	if (at)
		file_sync(a, at, MAPPED_PAGES * PAGE);
	file_compare(a, FILE_PAGE(0, 0), MAPPED_PAGES);
	for (unsigned i = 0; i < W->actors; i++)
		for (unsigned k = 0; k < VIEWS; k++)
			if (W->actor[i].views[k].pages)
				file_unmap(a, (void *)W->actor[i].views[k].addr,
					   W->actor[i].views[k].pages * PAGE);
	await_written(a, 1);
	file_compare(a, FILE_PAGE(FILES - 1, 0), MAPPED_PAGES);
	upager_close(pager);
}
