/* Images and mappings: state, without a pager. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "mm/mapping.h"

#define PAGE 4096ull

static struct image_total total;

static struct image *make(uint64_t size)
{
	const struct file_identity id = {.device = 1, .inode = 2, .size = size};
	struct image *image;

	total = (struct image_total){0};
	cr_assert_eq(image_new(open("/dev/null", O_RDONLY | O_CLOEXEC), &id, &total, &image), 0);
	return image;
}

/* Brings a page to a tag by legal moves. */
static void bring(struct image *image, uint64_t page, enum image_tag tag)
{
	static const enum image_tag way[] = {IMAGE_ABSENT, IMAGE_READING, IMAGE_PRESENT,
					     IMAGE_DIRTY, IMAGE_WRITING};

	for (unsigned i = 1; image_tag(image, page) != tag; i++)
		if (tag == IMAGE_DROPPING && way[i - 1] == IMAGE_PRESENT)
			cr_assert(image_move(image, page, IMAGE_PRESENT, IMAGE_DROPPING));
		else
			cr_assert(image_move(image, page, way[i - 1], way[i]));
}

Test(image, a_move_needs_its_tag)
{
	struct image *image = make(10 * PAGE);

	cr_expect_not(image_move(image, 3, IMAGE_PRESENT, IMAGE_DIRTY));
	cr_expect_eq(image_tag(image, 3), IMAGE_ABSENT);
	cr_expect(image_move(image, 3, IMAGE_ABSENT, IMAGE_READING));
	cr_expect_not(image_move(image, 3, IMAGE_ABSENT, IMAGE_READING), "one reader");
	image_free(image);
}

Test(image, what_counts)
{
	static const struct {
		enum image_tag tag;
		unsigned resident, dirty;
	} cases[] = {{IMAGE_ABSENT, 0, 0}, {IMAGE_READING, 1, 0}, {IMAGE_PRESENT, 1, 0},
		     {IMAGE_DIRTY, 1, 1},  {IMAGE_WRITING, 1, 1}, {IMAGE_DROPPING, 1, 0}};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct image *image = make(10 * PAGE);

		bring(image, 5, cases[i].tag);
		cr_expect_eq(image->resident, cases[i].resident, "tag %d", cases[i].tag);
		cr_expect_eq(image->dirty, cases[i].dirty, "tag %d", cases[i].tag);
		cr_expect_eq(total.resident, cases[i].resident);
		cr_expect_eq(total.dirty, cases[i].dirty);
		image_free(image);
		cr_expect_eq(total.resident + total.dirty, 0, "freed with tag %d", cases[i].tag);
	}
}

/* A write is let through only where the memfd has the page, and is never forgotten. */
Test(image, dirty)
{
	static const bool may[IMAGE_TAGS] = {
		[IMAGE_PRESENT] = true, [IMAGE_DIRTY] = true, [IMAGE_WRITING] = true};

	for (enum image_tag tag = IMAGE_ABSENT; tag < IMAGE_TAGS; tag++) {
		struct image *image = make(10 * PAGE);

		bring(image, 0, tag);
		cr_expect_eq(image_dirty(image, 0), may[tag], "tag %d", tag);
		cr_expect_eq(image_tag(image, 0), may[tag] ? IMAGE_DIRTY : tag);
		/* The flush that was under way ends: the page stays dirty. */
		if (tag == IMAGE_WRITING)
			cr_expect_not(image_move(image, 0, IMAGE_WRITING, IMAGE_PRESENT));
		image_free(image);
	}
}

Test(image, runs_end_at_another_tag_and_at_the_end)
{
	struct image *image = make(9 * PAGE + 1);

	bring(image, 6, IMAGE_PRESENT);
	cr_expect_eq(image_n_pages(image), 10);
	cr_expect_eq(image_move_run(image, 2, 32, IMAGE_ABSENT, IMAGE_READING), 4);
	cr_expect_eq(image_move_run(image, 7, 32, IMAGE_ABSENT, IMAGE_READING), 3);
	cr_expect_eq(image_move_run(image, 10, 32, IMAGE_ABSENT, IMAGE_READING), 0);
	cr_expect_eq(image_move_run(image, 2, 2, IMAGE_READING, IMAGE_PRESENT), 2);
	cr_expect_eq(image_mappable(image, 2, 32), 2);
	cr_expect_eq(image_mappable(image, 6, 32), 1);
	image_free(image);
}

Test(image, young_until_the_hand_passes)
{
	struct image *image = make(10 * PAGE);

	bring(image, 1, IMAGE_PRESENT);
	cr_expect_not(image_was_young(image, 1));
	image_mappable(image, 1, 1);
	cr_expect_eq(image_tag(image, 1), IMAGE_PRESENT);
	cr_expect(image_dirty(image, 1), "young or not");
	cr_expect(image_was_young(image, 1));
	cr_expect_not(image_was_young(image, 1));
	image_free(image);
}

Test(image, illegal_moves_abort, .signal = SIGABRT)
{
	image_move(make(PAGE), 0, IMAGE_ABSENT, IMAGE_DIRTY);
}

Test(image, too_large)
{
	const struct file_identity id = {.size = (IMAGE_PAGES_MAX + 1) * PAGE};
	struct image *image = NULL;

	cr_expect_eq(image_new(open("/dev/null", O_RDONLY), &id, &total, &image), -EFBIG);
	cr_expect_null(image);
}

/* ---- mappings ---- */

static struct mappings map;

/* One mapping of pages [start, end), whose image page is the address' number plus 100. */
static void add(struct image *image, uint64_t start, uint64_t end)
{
	cr_assert_eq(mappings_add(&map, &(struct mapping){.start = start * PAGE,
							   .end = end * PAGE,
							   .image = image,
							   .page = start + 100,
							   .unit = 1}), 0);
}

static void expect(uint64_t page, uint64_t image_page)
{
	const struct mapping *m = mappings_find(&map, page * PAGE + 123);

	if (!image_page)
		cr_expect_null(m, "page %lu", page);
	else
		cr_expect(m && mapping_page(m, page * PAGE) == image_page, "page %lu", page);
}

Test(mapping, remove_trims_and_splits)
{
	struct image *image = make(1000 * PAGE);

	add(image, 10, 20);
	add(image, 30, 40);
	cr_assert_eq(mappings_remove(&map, 14 * PAGE, 16 * PAGE), 0);
	cr_assert_eq(mappings_remove(&map, 18 * PAGE, 32 * PAGE), 0);
	cr_expect_eq(map.n, 3);
	expect(9, 0);
	expect(10, 110);
	expect(13, 113);
	expect(14, 0);
	expect(16, 116);
	expect(17, 117);
	expect(18, 0);
	expect(31, 0);
	expect(32, 132);
	expect(39, 139);
	expect(40, 0);
	cr_expect_eq(map.n_old, 3);
	cr_expect_eq(image->users, 6);
	cr_expect_eq(image->mapped, 3);
	mappings_forget_old(&map);
	cr_expect_eq(image->users, 3);
	mappings_done(&map);
	cr_expect_eq(image->users, 0);
	image_free(image);
}

Test(mapping, the_new_one_wins)
{
	struct image *image = make(1000 * PAGE);

	add(image, 10, 20);
	cr_assert_eq(mappings_add(&map, &(struct mapping){.start = 15 * PAGE, .end = 25 * PAGE,
							   .image = image, .page = 500}), 0);
	expect(14, 114);
	expect(15, 500);
	expect(24, 509);
	mappings_done(&map);
	cr_expect_eq(image->users, 0);
	image_free(image);
}

Test(mapping, move)
{
	struct image *image = make(1000 * PAGE);

	add(image, 10, 20);
	add(image, 50, 60);
	cr_assert_eq(mappings_move(&map, 12 * PAGE, 52 * PAGE, 4 * PAGE), 0);
	expect(11, 111);
	expect(12, 0);
	expect(16, 116);
	expect(51, 151);
	expect(52, 112);
	expect(55, 115);
	expect(56, 156);
	mappings_done(&map);
	cr_expect_eq(image->users, 0);
	image_free(image);
}

/* A child may have been made before an event that is read after it. */
Test(mapping, clone_has_the_old_ones_below)
{
	struct image *image = make(1000 * PAGE);
	struct mappings child = {0}, parent;

	add(image, 10, 20);
	cr_assert_eq(mappings_remove(&map, 10 * PAGE, 20 * PAGE), 0);
	cr_assert_eq(mappings_add(&map, &(struct mapping){.start = 15 * PAGE, .end = 18 * PAGE,
							   .image = image, .page = 500}), 0);
	cr_assert_eq(mappings_clone(&map, &child), 0);
	parent = map;
	map = child;
	expect(10, 110);
	expect(15, 500);
	expect(19, 119);
	mappings_done(&map);
	mappings_done(&parent);
	cr_expect_eq(image->users, 0);
	image_free(image);
}
