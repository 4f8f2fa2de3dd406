/*
 * image_memory: what images may hold. Clean pages leave, in the order of a clock that goes round
 * all images; dirty ones are written first, by the worker that owns the image.
 */
#include "base/util.h"
#include "pager/file.h"

#define BATCH 64u /* pages dropped beyond what is asked for, and at most at once */

/* => the pages are DROPPING, and this thread's. */
static void punch(struct image *image, uint64_t page, uint32_t n)
{
	if (!n)
		return;
	file_punch(image->memory, pages_to_bytes(page), pages_to_bytes(n));
	for (uint32_t i = 0; i < n; i++)
		image_move(image, page + i, IMAGE_DROPPING, IMAGE_ABSENT);
}

void reclaim_page(struct image *image, uint64_t page)
{
	if (image_move(image, page, IMAGE_PRESENT, IMAGE_DROPPING) ||
	    image_move(image, page, IMAGE_DIRTY, IMAGE_DROPPING))
		punch(image, page, 1);
}

void reclaim_range(struct image *image, uint64_t first, uint64_t end)
{
	end = MIN(end, image_n_pages(image));
	while (first < end) {
		uint32_t n = image_move_run(image, first, (uint32_t)MIN(BATCH, end - first),
					    IMAGE_PRESENT, IMAGE_DROPPING);

		punch(image, first, n);
		first += MAX(n, 1u);
	}
}

/* Moves the image's hand over [from, to), and drops up to `want` clean pages that it finds old. */
static uint32_t sweep(struct image *image, uint64_t from, uint64_t to, uint32_t want)
{
	uint32_t dropped = 0, run = 0;
	uint64_t page = from;

	for (; page < to && dropped + run < want; page++) {
		if (image_tag(image, page) == IMAGE_PRESENT && !image_was_young(image, page) &&
		    image_move(image, page, IMAGE_PRESENT, IMAGE_DROPPING)) {
			if (++run < BATCH)
				continue;
			punch(image, page + 1 - run, run);
			dropped += run;
			run = 0;
			continue;
		}
		punch(image, page - run, run);
		dropped += run;
		run = 0;
	}
	punch(image, page - run, run);
	atomic_store(&image->hand, page);
	return dropped + run;
}

/* One turn of the image's hand. What was young is not so afterwards. */
static uint32_t sweep_image(struct image *image, uint32_t want)
{
	uint64_t end = image_n_pages(image), from = MIN(atomic_load(&image->hand), end);
	uint32_t dropped = sweep(image, from, end, want);

	return dropped < want ? dropped + sweep(image, 0, from, want - dropped) : dropped;
}

/* The n-th image, with a use taken; NULL: there are not so many. */
static struct image *next_image(struct pager *p, unsigned number)
{
	struct image *image;

	pthread_mutex_lock(&p->images_lock);
	LIST_FOREACH(image, &p->images, link)
		if (!number--)
			break;
	if (image)
		image_get(image);
	pthread_mutex_unlock(&p->images_lock);
	return image;
}

static uint64_t excess(const struct pager *p, uint32_t n)
{
	uint64_t limit = bytes_to_pages(p->config.image_memory);
	uint64_t resident = atomic_load(&p->image_total.resident) + n;

	return resident > limit ? resident - limit : 0;
}

bool reclaim_room(struct worker *w, uint32_t n)
{
	struct pager *p = w->pager;
	struct image *image;
	uint64_t over = excess(p, n), dirty;

	/* In the first turn what is old leaves, in the second what was young. */
	for (unsigned turn = 0; turn < 2 && over; turn++)
		for (unsigned i = 0; over && (image = next_image(p, i)); i++) {
			sweep_image(image, (uint32_t)MIN(over + BATCH, UINT32_MAX));
			image_put(image);
			over = excess(p, n);
		}
	dirty = atomic_load(&p->image_total.dirty);
	if (dirty > bytes_to_pages(p->config.image_memory) / 2 || (over && dirty))
		for (unsigned i = 0; i < p->n_workers; i++)
			images_kick(&p->workers[i]);
	return !over;
}
