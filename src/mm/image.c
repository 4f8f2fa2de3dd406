#include "mm/image.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"

#define YOUNG 0x80u /* mapped since the hand last passed */

#define MAY(tag) (1u << IMAGE_##tag)
static const uint8_t moves[IMAGE_TAGS] = {
	[IMAGE_ABSENT] = MAY(READING),
	[IMAGE_READING] = MAY(PRESENT) | MAY(ABSENT),
	[IMAGE_PRESENT] = MAY(DIRTY) | MAY(DROPPING),
	[IMAGE_DIRTY] = MAY(WRITING) | MAY(DROPPING), /* dropped dirty: the file has no such page */
	[IMAGE_WRITING] = MAY(PRESENT) | MAY(DIRTY),
	[IMAGE_DROPPING] = MAY(ABSENT),
};

int image_new(int file, const struct file_identity *id, struct image_total *total,
	      struct image **ret)
{
	struct image *image;
	int r = -ENOMEM;

	if (file < 0)
		return -EMFILE;
	image = calloc(1, sizeof(*image));
	if (!image) {
		close(file);
		return r;
	}
	image->file = file;
	image->memory = -1;
	atomic_store(&image->writable, -1);
	image->file_id = *id;
	image->total = total;
	atomic_store(&image->size, id->size);
	TAILQ_INIT(&image->requests);
	/* Address space alone: only pages that are used have their byte. */
	image->pages = mmap(NULL, IMAGE_PAGES_MAX, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (image->pages == MAP_FAILED) {
		image->pages = NULL;
		goto fail;
	}
	r = -EFBIG;
	if (id->size > pages_to_bytes(IMAGE_PAGES_MAX))
		goto fail;
	r = image->memory = file_memory("upager-image", id->size);
	if (r >= 0)
		r = file_identify(image->memory, &image->memory_id);
	if (r < 0)
		goto fail;
	*ret = image;
	return 0;
fail:
	image_free(image);
	return r;
}

void image_free(struct image *image)
{
	int writable;

	if (!image)
		return;
	if (image->total) {
		atomic_fetch_sub(&image->total->resident, atomic_load(&image->resident));
		atomic_fetch_sub(&image->total->dirty, atomic_load(&image->dirty));
	}
	if (image->pages)
		munmap((void *)image->pages, IMAGE_PAGES_MAX);
	writable = atomic_load(&image->writable);
	fd_close(&writable);
	fd_close(&image->file);
	fd_close(&image->memory);
	free(image);
}

void image_get(struct image *image)
{
	atomic_fetch_add(&image->users, 1);
}

void image_put(struct image *image)
{
	unsigned before = atomic_fetch_sub(&image->users, 1);

	assert(before);
	(void)before;
}

enum image_tag image_tag(const struct image *image, uint64_t page)
{
	return atomic_load(&image->pages[page]) & ~YOUNG;
}

static void count_page(struct image *image, enum image_tag from, enum image_tag to)
{
	int resident = (to != IMAGE_ABSENT) - (from != IMAGE_ABSENT);
	int dirty = (to == IMAGE_DIRTY || to == IMAGE_WRITING) -
		    (from == IMAGE_DIRTY || from == IMAGE_WRITING);

	if (resident) {
		atomic_fetch_add(&image->resident, (uint64_t)resident);
		atomic_fetch_add(&image->total->resident, (uint64_t)resident);
	}
	if (dirty) {
		atomic_fetch_add(&image->dirty, (uint64_t)dirty);
		atomic_fetch_add(&image->total->dirty, (uint64_t)dirty);
	}
}

bool image_move(struct image *image, uint64_t page, enum image_tag from, enum image_tag to)
{
	uint8_t old = atomic_load(&image->pages[page]);

	assert(moves[from] & 1u << to);
	do
		if ((old & ~YOUNG) != from)
			return false;
	while (!atomic_compare_exchange_weak(&image->pages[page], &old,
					     (uint8_t)(to | (to ? old & YOUNG : 0))));
	count_page(image, from, to);
	return true;
}

uint32_t image_move_run(struct image *image, uint64_t page, uint32_t max, enum image_tag from,
			enum image_tag to)
{
	uint64_t end = MIN(page + max, image_n_pages(image));
	uint32_t n = 0;

	while (page + n < end && image_move(image, page + n, from, to))
		n++;
	return n;
}

bool image_dirty(struct image *image, uint64_t page)
{
	for (;;)
		switch (image_tag(image, page)) {
		case IMAGE_DIRTY:
			return true;
		case IMAGE_PRESENT:
			if (image_move(image, page, IMAGE_PRESENT, IMAGE_DIRTY))
				return true;
			break;
		case IMAGE_WRITING:
			if (image_move(image, page, IMAGE_WRITING, IMAGE_DIRTY))
				return true;
			break;
		default:
			return false;
		}
}

uint32_t image_mappable(struct image *image, uint64_t page, uint32_t max)
{
	uint64_t end = MIN(page + max, image_n_pages(image));
	uint32_t n = 0;

	while (page + n < end) {
		enum image_tag tag = image_tag(image, page + n);

		if (tag != IMAGE_PRESENT && tag != IMAGE_DIRTY && tag != IMAGE_WRITING)
			break;
		atomic_fetch_or(&image->pages[page + n], YOUNG);
		n++;
	}
	return n;
}

bool image_was_young(struct image *image, uint64_t page)
{
	return atomic_fetch_and(&image->pages[page], (uint8_t)~YOUNG) & YOUNG;
}

uint64_t image_n_pages(const struct image *image)
{
	return bytes_to_pages(page_up(atomic_load(&image->size)));
}
