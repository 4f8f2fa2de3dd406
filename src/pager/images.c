/*
 * Which images there are, and where tasks have mapped them.
 *
 * What a task has mapped is asked of its map: a VMA of an image's memfd, whatever way it came
 * there. The list of mappings is a copy of that, made when a mapping is announced, after each event
 * in its range, and at a fault in memory that nothing is known of. Only a forked child that has not
 * said hello is taken at its parent's word.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/util.h"
#include "pager/file.h"
#include "sys/procmaps.h"

#define LOOK_EVERY  (250 * MS)
#define RETRY_EVERY (MS / 5) /* a call that waits for the gate */
#define FAILURES    3u       /* flushes, after which an image that nobody has is given up */

/* ---- which there are ---- */

/* With a use taken; NULL: none. */
static struct image *find_file(struct pager *p, const struct file_identity *id)
{
	struct image *image;

	LIST_FOREACH(image, &p->images, link)
		if (image->file_id.inode == id->inode && image->file_id.device == id->device) {
			image_get(image);
			return image;
		}
	return NULL;
}

static struct image *find_memory(struct pager *p, const struct procmaps_vma *vma)
{
	struct image *image, *found = NULL;

	pthread_mutex_lock(&p->images_lock);
	LIST_FOREACH(image, &p->images, link)
		if (image->memory_id.inode == vma->inode && image->memory_id.device == vma->device) {
			image_get(image);
			found = image;
			break;
		}
	pthread_mutex_unlock(&p->images_lock);
	return found;
}

/* The file has grown since: what is mapped anew may be larger. */
static void grow(struct image *image, uint64_t size)
{
	uint64_t old = atomic_load(&image->size);

	if (size <= old || size > pages_to_bytes(IMAGE_PAGES_MAX) ||
	    file_resize(image->memory, size) < 0)
		return;
	atomic_store(&image->size, size);
	if (old % PAGE_SIZE) /* of the page that was the last it has only the beginning */
		reclaim_range(image, bytes_to_pages(old), bytes_to_pages(old) + 1);
}

/* The image of a file, made if there is none; with a use taken. => the images lock is held. */
static int find_or_make(struct pager *p, int file, const struct file_identity *id,
			struct image **ret)
{
	struct image *image = find_file(p, id);
	int r;

	if (image) {
		images_truncate(image, id->size);
		grow(image, id->size);
	} else {
		r = image_new(fcntl(file, F_DUPFD_CLOEXEC, 0), id, &p->image_total, &image);
		if (r < 0)
			return r;
		image_get(image);
		image->owner = (unsigned)(atomic_fetch_add(&p->next_id, 1) % p->n_workers);
		LIST_INSERT_HEAD(&p->images, image, link);
		images_kick(&p->workers[image->owner]); /* it may have had none, and sleep */
	}
	*ret = image;
	return 0;
}

/* The first descriptor that can be written to is the one that is used. => the main thread's. */
static int make_writable(struct image *image, int file)
{
	int mine;

	if (atomic_load(&image->writable) >= 0)
		return 0;
	mine = fcntl(file, F_DUPFD_CLOEXEC, 0);
	if (mine < 0)
		return -errno;
	atomic_store(&image->writable, mine);
	return 0;
}

/* A descriptor of the memfd for a program. */
static int give_memory(const struct image *image, bool writable)
{
	int fd;

	if (!writable)
		return file_read_only(image->memory);
	fd = fcntl(image->memory, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

int pager_image_open(struct pager *p, int file, bool shared, struct image **ret, int *ret_memory)
{
	struct file_identity id;
	struct image *image;
	int access = file_access(file), memory = -1, r;

	if (access < 0)
		return access;
	if (access == O_WRONLY)
		return -EACCES;
	r = file_identify(file, &id);
	if (r < 0)
		return r;
	shared = shared && access == O_RDWR;
	pthread_mutex_lock(&p->images_lock);
	r = find_or_make(p, file, &id, &image);
	pthread_mutex_unlock(&p->images_lock);
	if (r < 0)
		return r;
	if (shared)
		r = make_writable(image, file);
	if (r == 0)
		r = memory = give_memory(image, shared);
	if (r < 0) {
		image_put(image);
		return r;
	}
	*ret = image;
	*ret_memory = memory;
	return 0;
}

void pager_image_close(struct image *image)
{
	if (image)
		image_put(image);
}

void pager_image_stat(const struct pager *p, struct pager_image_stat *ret)
{
	*ret = (struct pager_image_stat){
		.limit = p->config.image_memory,
		.resident = pages_to_bytes(atomic_load(&p->image_total.resident)),
		.dirty = pages_to_bytes(atomic_load(&p->image_total.dirty)),
	};
}

void images_truncate(struct image *image, uint64_t size)
{
	uint64_t old = atomic_load(&image->size);
	uint64_t end = bytes_to_pages(page_up(old));

	while (size < old && !atomic_compare_exchange_weak(&image->size, &old, size))
		;
	if (size >= old)
		return;
	file_resize(image->memory, size);
	for (uint64_t page = bytes_to_pages(page_up(size)); page < end; page++)
		reclaim_page(image, page);
}

/* ---- who has mapped them where ---- */

/* What of a VMA lies in [start, end), if it is one of an image. */
static bool learn_vma(struct task *t, const struct procmaps_vma *vma, uint64_t start, uint64_t end,
		      const struct mapping *like)
{
	struct image *image = vma->inode ? find_memory(t->worker->pager, vma) : NULL;
	struct mapping m = {.start = MAX(vma->start, start),
			    .end = MIN(vma->end, end),
			    .image = image,
			    .shared = vma->flags & PROCMAPS_SHARED,
			    .advice = like ? like->advice : MAPPING_NORMAL,
			    .unit = like ? like->unit : 1};
	bool known;

	if (!image)
		return false;
	m.page = bytes_to_pages(vma->offset + (m.start - vma->start));
	known = mappings_add(&t->mappings, &m) == 0 &&
		regions_remove(&t->regions, m.start, m.end) == 0;
	if (!known)
		task_broken(t, ENOMEM);
	image_put(image);
	return known;
}

bool images_learn(struct task *t, uint64_t start, uint64_t end, const struct mapping *like)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	struct procmaps_vma vma;
	bool gaps = false;

	if (t->maps < 0)
		return false;
	for (; start < end; start = vma.end) {
		if (procmaps_above(t->maps, query, start, &vma) < 0 || vma.start >= end)
			return false;
		gaps = gaps || vma.start > start;
		gaps = !learn_vma(t, &vma, start, end, like) || gaps;
	}
	return !gaps;
}

/* What of the VMA nothing is known of, around an address: it has grown, and is like the rest. */
static void learn_gap(struct task *t, const struct procmaps_vma *vma, uint64_t address)
{
	uint64_t start = vma->start, end = vma->end;
	const struct mapping *below;

	mappings_gap(&t->mappings, address, &start, &end);
	below = start > vma->start ? mappings_find(&t->mappings, start - PAGE_SIZE) : NULL;
	learn_vma(t, vma, start, end, below);
}

void images_learn_gaps(struct task *t, uint64_t start, uint64_t end)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	struct procmaps_vma vma;

	if (t->maps < 0 || !t->mappings.used)
		return;
	while (start < end) {
		const struct mapping *known = mappings_find(&t->mappings, start);

		if (known) {
			start = known->end;
			continue;
		}
		if (procmaps_above(t->maps, query, start, &vma) < 0 || vma.start >= end)
			return;
		learn_gap(t, &vma, MAX(start, vma.start));
		known = mappings_find(&t->mappings, MAX(start, vma.start));
		start = known ? known->end : vma.end;
	}
}

struct mapping *images_find(struct task *t, uint64_t address)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	const struct region *region;
	struct procmaps_vma vma;
	struct mapping *m;

	if (!t->mappings.used)
		return NULL;
	m = mappings_find(&t->mappings, address);
	if (m)
		return m;
	region = regions_find(&t->regions, address);
	if (region && region->start <= address && region->registered)
		return NULL;
	/* A mapping that has grown, or was moved by a call of which the event is still to come. */
	if (t->maps >= 0 && procmaps_find(t->maps, query, address, &vma) == 0)
		learn_gap(t, &vma, address);
	return mappings_find(&t->mappings, address);
}

/* Events may be older than what is mapped in their range now: the map is asked. */
void images_unmapped(struct task *t, uint64_t start, uint64_t end)
{
	size_t n_old = t->mappings.n_old;

	if (!t->mappings.n)
		return;
	if (mappings_remove(&t->mappings, start, end) < 0)
		task_broken(t, ENOMEM);
	if (t->mappings.n_old != n_old)
		images_learn(t, start, end, NULL);
}

void images_moved(struct task *t, uint64_t from, uint64_t to, uint64_t length)
{
	struct mapping like = {.unit = 1};
	const struct mapping *m;
	int r;

	if (!t->mappings.used)
		return;
	m = mappings_find(&t->mappings, from);
	if (m)
		like = *m;
	r = mappings_remove(&t->mappings, to, to + length);
	if (r == 0)
		r = mappings_move(&t->mappings, from, to, length);
	if (r < 0)
		task_broken(t, ENOMEM);
	images_learn(t, from, from + length, &like);
	images_learn(t, to, to + length, &like);
}

int images_forked(struct task *parent, struct task *child)
{
	int r = mappings_clone(&parent->mappings, &child->mappings);

	for (size_t i = 0; i < child->regions.n && child->mappings.n && r == 0; i++)
		r = mappings_remove(&child->mappings, child->regions.list[i].start,
				    child->regions.list[i].end);
	mappings_forget_old(&child->mappings);
	child->mappings.used = parent->mappings.used;
	return r;
}

void images_check(struct task *t)
{
	struct mappings believed = t->mappings;

	if (!believed.n)
		return;
	t->mappings = (struct mappings){.used = true};
	for (size_t i = 0; i < believed.n; i++)
		images_learn(t, believed.list[i].start, believed.list[i].end, &believed.list[i]);
	mappings_done(&believed);
}

/* ---- what is due ---- */

/* Writes what has been dirty for long enough, or what nobody has mapped any more. */
static void serve_image(struct worker *w, struct image *image, bool pressing)
{
	uint64_t wait = w->pager->config.writeback_s * 1000ull * MS;

	if (!atomic_load(&image->dirty) || !TAILQ_EMPTY(&image->requests)) {
		image->next_flush = 0;
		return;
	}
	if (!image->next_flush)
		image->next_flush = w->now + wait;
	if (w->now < image->next_flush && atomic_load(&image->users) > 1 && !pressing)
		return;
	image->next_flush = 0;
	flush_post(w->pager, image, 0, IMAGE_PAGES_MAX, NULL);
}

/* The owner's images, one after the other, each with a use taken. */
static struct image *next_image(struct worker *w, struct image *before)
{
	struct pager *p = w->pager;
	struct image *image;

	pthread_mutex_lock(&p->images_lock);
	image = before ? LIST_NEXT(before, link) : LIST_FIRST(&p->images);
	while (image && image->owner != w->index)
		image = LIST_NEXT(image, link);
	if (image)
		image_get(image);
	pthread_mutex_unlock(&p->images_lock);
	return image;
}

/* Nobody has it and the file has everything, or won't take it: it goes. */
static void let_go(struct worker *w, struct image *image)
{
	struct pager *p = w->pager;
	bool last;

	pthread_mutex_lock(&p->images_lock);
	image_put(image);
	last = !atomic_load(&image->users) &&
	       (!atomic_load(&image->dirty) || image->failures >= FAILURES);
	if (last)
		LIST_REMOVE(image, link);
	pthread_mutex_unlock(&p->images_lock);
	if (!last)
		return;
	if (atomic_load(&image->dirty))
		pager_notify_all(p, PAGER_NOTICE_IMAGE_LOST, atomic_load(&image->dirty));
	image_free(image);
}

void images_serve(struct worker *w)
{
	struct image *image, *before = NULL;
	bool pressing = w->images_pressing;

	if (w->now < w->images_due)
		return;
	w->images_pressing = false;
	w->images_due = UINT64_MAX;
	for (image = next_image(w, NULL); image; image = next_image(w, before)) {
		if (before)
			let_go(w, before);
		serve_image(w, image, pressing);
		before = image;
		w->images_due = w->now + LOOK_EVERY;
	}
	if (before)
		let_go(w, before);
	if (calls_serve(w))
		w->images_due = w->now + RETRY_EVERY;
}

static void kicked(struct worker *w, struct mail *mail)
{
	(void)mail;
	atomic_store(&w->images_kicked, false);
	w->images_pressing = true;
	w->images_due = 0;
}

void images_kick(struct worker *w)
{
	if (!atomic_exchange(&w->images_kicked, true))
		worker_post(w, &w->images_mail);
}

void images_init(struct worker *w)
{
	TAILQ_INIT(&w->reads);
	STAILQ_INIT(&w->image_calls);
	w->images_mail.run = kicked;
	w->images_due = UINT64_MAX;
}

void images_close(struct pager *p)
{
	struct image *image;

	while ((image = LIST_FIRST(&p->images))) {
		LIST_REMOVE(image, link);
		if (flush_now(image) < 0)
			pager_notify_all(p, PAGER_NOTICE_IMAGE_LOST, atomic_load(&image->dirty));
		image_free(image);
	}
}
