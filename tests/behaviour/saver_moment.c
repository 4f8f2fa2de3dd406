/* Savers: what is in an image. */
#include "saver.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS  6

/* ---- threads that write all the time: each its slice, page after page; write k is of page k % n, with
 * generation k / n + 1 ---- */

static struct slice {
	size_t first, pages;
	_Atomic uint64_t begun, done; /* writes */
	pthread_t thread;
} slices[THREADS];
static atomic_bool over;

static uint64_t salt_of(size_t page, uint64_t generation)
{
	return SALT + page + generation * 1000000;
}

static void write_next(struct slice *s)
{
	uint64_t k = atomic_fetch_add(&s->begun, 1);
	size_t page = s->first + k % s->pages;

	page_fill(page_at(&area, page), salt_of(page, k / s->pages + 1));
	atomic_fetch_add(&s->done, 1);
}

static void *write_slice(void *argument)
{
	while (!over)
		write_next(argument);
	return NULL;
}

/* All of them, in turn: the writes of all threads have one order. */
static void *write_in_turn(void *argument)
{
	uint64_t me = (uintptr_t)argument;

	while (!over) {
		if (atomic_load(&slices[0].done) % THREADS == me)
			write_next(&slices[0]);
		else
			sched_yield();
	}
	return NULL;
}

/* Is the slice as it was after k writes? The next one may have been under way, and be half there. */
static bool is_after(const struct image *image, const struct slice *s, uint64_t k,
		     bool (*has)(const struct image *image, size_t i, uint64_t salt))
{
	for (size_t i = 0; i < s->pages; i++) {
		uint64_t salt = salt_of(s->first + i, k / s->pages + (i < k % s->pages));

		if (i != k % s->pages && !has(image, s->first + i, salt))
			return false;
	}
	return true;
}

static void check_moment(const struct image *image, const struct slice *s, uint64_t least,
			 uint64_t most)
{
	for (uint64_t k = least; k <= most; k++)
		if (is_after(image, s, k, image_begins) && is_after(image, s, k, image_has))
			return;
	wrong("the image of page %zu and the %zu after it is of no moment between write %lu and %lu",
	      s->first, s->pages, least, most);
}

static void while_threads_write(size_t n, void *(*thread)(void *))
{
	uint64_t least[THREADS], most[THREADS];

	for (size_t t = 0; t < THREADS; t++)
		must(pthread_create(&slices[t].thread, NULL, thread,
				    n == 1 ? (void *)(uintptr_t)t : &slices[t]) == 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct image image;

		usleep(100000);
		for (size_t t = 0; t < n; t++)
			least[t] = slices[t].done;
		image = begin_area();
		for (size_t t = 0; t < n; t++)
			most[t] = slices[t].begun;
		finish(&image);
		must(!image.result.lost);
		for (size_t t = 0; t < n; t++)
			check_moment(&image, &slices[t], least[t], most[t]);
		drop(&image);
	}
	over = true;
	for (size_t t = 0; t < THREADS; t++)
		pthread_join(slices[t].thread, NULL);
	for (size_t t = 0; t < n; t++)
		for (size_t i = 0; i < slices[t].pages; i++) {
			uint64_t k = slices[t].done, page = slices[t].first + i;

			page_check(page_at(&area, page),
				   salt_of(page, k / slices[t].pages + (i < k % slices[t].pages)));
		}
}

static void slices_are_of_the_moment(void)
{
	size_t n = area.pages / THREADS;

	for (size_t t = 0; t < THREADS; t++) {
		slices[t].first = t * n;
		slices[t].pages = n;
	}
	while_threads_write(THREADS, write_slice);
}

static void all_threads_have_one_moment(void)
{
	slices[0].pages = area.pages;
	while_threads_write(1, write_in_turn);
}

/* ---- memory of every kind ---- */

static uint64_t kind_salt(size_t i)
{
	return i % 5 < 3 ? SALT + i : 0;
}

static void every_kind(void)
{
	static const size_t whole[] = {0, 1};
	struct upager_snapshot_piece piece;

	for (size_t i = 0; i < area.pages; i++) {
		if (i % 5 == 3) /* was there, and is not */
			must(madvise(page_at(&area, i), PAGE, MADV_DONTNEED) == 0);
		else if (i % 5 == 4) /* memory, but zeros */
			memset(page_at(&area, i), 0, PAGE);
	}
	must(mprotect(area.at, 64 * PAGE, PROT_READ) == 0);
	must(mprotect(page_at(&area, 64), 64 * PAGE, PROT_NONE) == 0);
	for (size_t w = 0; w < 2; w++) {
		struct image image = whole[w] ? begin(NULL, 0) : begin_area();

		must(mprotect(area.at, 128 * PAGE, PROT_READ | PROT_WRITE) == 0);
		for (size_t i = 0; i < area.pages; i++)
			*(uint64_t *)page_at(&area, i) = 1;
		ok(upager_snapshot_wait(image.snapshot, &image.result), "upager_snapshot_wait");
		must(!image.result.lost);
		for (size_t i = 0; i < area.pages; i++) {
			uint64_t at = (uintptr_t)page_at(&area, i);
			char page[PAGE] = {0};
			int r = upager_snapshot_find(image.file, at, &piece);

			if (r == 0 && piece.address == at)
				must(pread(image.file, page, PAGE, (off_t)piece.offset) == PAGE);
			page_check(page, kind_salt(i));
			/* For the next: what is written in between is in it. */
			page_fill(page_at(&area, i), kind_salt(i));
		}
		drop(&image);
	}
}

/* MADV_FREE of evicted pages leaves markers without a word: nothing is there, so nothing is lost when the
 * pages are written to again. */
static void freed_once(void)
{
	struct image image;

	must(madvise(area.at, area.pages * PAGE, MADV_FREE) == 0);
	image = begin_area();
	for (size_t i = 0; i < area.pages; i++) /* everywhere, before it has been copied */
		page_fill(page_at(&area, i * 61 % area.pages), 1);
	finish(&image);
	if (image.result.lost)
		wrong("%lu bytes are lost, of what was not there", image.result.lost);
	for (size_t i = 0; i < area.pages; i++)
		if (!image_has(&image, i, 0) && !image_has(&image, i, SALT + i))
			wrong("page %zu of the image is neither as it was, nor zeros", i);
	drop(&image);
}

static void freed(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		freed_once();
		area_fill(&area);
	}
}

/* From 0 on, all pieces: sorted, disjoint, inside of the file. */
static void all_pieces(void)
{
	struct image image = begin(NULL, 0);
	struct upager_snapshot_piece piece, middle;
	uint64_t at = 0, size = 0;
	unsigned n = 0;
	int r;

	ok(upager_snapshot_wait(image.snapshot, &image.result), "upager_snapshot_wait");
	for (; (r = upager_snapshot_find(image.file, at, &piece)) == 0; n++) {
		must(piece.address >= at && piece.length && piece.length % PAGE == 0);
		must(piece.address % PAGE == 0 && piece.offset % PAGE == 0 && piece.offset);
		must(piece.offset + piece.length <= (uint64_t)lseek(image.file, 0, SEEK_END));
		at = piece.address + piece.length / 2;
		ok(upager_snapshot_find(image.file, at + 17, &middle), "upager_snapshot_find");
		at &= ~(PAGE - 1);
		must(middle.address == at && middle.offset - piece.offset == at - piece.address);
		at = piece.address + piece.length;
		size += piece.length;
	}
	fails(r, 2, "past the last");
	must(n > 3 && size == image.result.size);
	drop(&image);
}

/* ---- what the program does with the range meanwhile ---- */

/* The blocks of 64 pages, in turn: stays, is discarded, unmapped, replaced, moved away. */
static void change(size_t block)
{
	char *at = page_at(&area, block * 64);

	switch (block % 5) {
	case 1:
		must(madvise(at, 64 * PAGE, MADV_DONTNEED) == 0);
		break;
	case 2:
		must(munmap(at, 64 * PAGE) == 0);
		break;
	case 3:
		must(mmap(at, 64 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
		memset(at, 0xff, 64 * PAGE);
		break;
	case 4:
		at = mremap(at, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			    mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		must(at != MAP_FAILED);
		memset(at, 0xff, 64 * PAGE);
		break;
	default:
		memset(at, 0xff, 64 * PAGE);
	}
}

static void range_changes(void)
{
	struct image image = begin_area();
	uint64_t missing = 0;

	for (size_t block = area.pages / 64; block-- > 0;) /* the background comes from below */
		change(block);
	finish(&image);
	for (size_t i = 0; i < area.pages; i++) {
		size_t kind = i / 64 % 5;

		if (image_has(&image, i, area.salt + i))
			continue;
		if (kind == 0 || kind == 4 || !image_has(&image, i, 0))
			wrong("page %zu is not as it was", i);
		missing += PAGE;
	}
	if (missing != image.result.lost)
		wrong("%lu bytes are lost, and %lu are said to be", missing, image.result.lost);
	drop(&image);
}

/* ---- back again ---- */

static void restored(void)
{
	struct image image = begin_area();
	struct upager_snapshot_piece piece;
	void *at;

	for (size_t i = 0; i < area.pages; i += 2)
		page_fill(page_at(&area, i), 1);
	finish(&image);
	image_check(&image);
	ok(upager_snapshot_find(image.file, (uintptr_t)area.at, &piece), "upager_snapshot_find");
	ok(upager_map_file(pager, image.file, piece.offset, piece.length, UPAGER_PRIVATE,
			   PROT_READ | PROT_WRITE, 0, &at), "upager_map_file");
	/* To where its pointers point. */
	must(mremap(at, piece.length, piece.length, MREMAP_MAYMOVE | MREMAP_FIXED, area.at) == area.at);
	area_check(&area);
	for (size_t i = 0; i < area.pages; i += 3)
		page_fill(page_at(&area, i), SALT + i);
	area_check(&area);
	drop(&image);
}

const struct behaviour moment_savers[] = {
	{"slices_are_of_the_moment", slices_are_of_the_moment},
	{"all_threads_have_one_moment", all_threads_have_one_moment},
	{"every_kind", every_kind},
	{"freed", freed},
	{"all_pieces", all_pieces},
	{"range_changes", range_changes},
	{"restored", restored},
	{0},
};
