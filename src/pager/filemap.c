/*
 * Pages of images in: read from the file into the memfd, once for all who wait, and mapped where
 * they were touched.
 *
 * A fault that waits for a read has its outcome when the read ends. Only the worker that reads
 * knows who waits; one that meets another's read tries again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pager/file.h"
#include "pager/trace.h"
#include "sys/pagemap.h"

#define PIECE    32u /* pages of one read */
#define ATTEMPTS 3u
#define AHEAD    512u /* pages that are mapped at once */

struct image_waiter {
	STAILQ_ENTRY(image_waiter) link;
	struct task *task;
	uint64_t address;
	uint32_t ptid;
	bool write;
};

struct image_read {
	struct completion completion;
	TAILQ_ENTRY(image_read) link; /* of the worker */
	struct worker *worker;
	struct image *image;
	uint64_t first; /* page */
	uint32_t n, attempts, bytes_done;
	int result; /* while it is delayed */
	struct __kernel_timespec after;
	char *bounce;
	struct task *starter; /* gets all pages, at `address`, touched or not */
	uint64_t address;
	STAILQ_HEAD(, image_waiter) waiters;
};

/* ---- mapping what is there ---- */

/* What a refused CONTINUE means for the page. */
static enum fault_result refused(struct fault *f, uint64_t page, ssize_t r)
{
	struct task *t = f->task;
	struct image *image = f->mapping->image;

	switch (uffd_classify(r)) {
	case UFFD_ABSENT:
		/* The client has taken it out (MADV_REMOVE); else it is past the end by now. */
		if (!file_has_page(image->memory, pages_to_bytes(page)))
			reclaim_page(image, page);
		break;
	case UFFD_CHANGED:
		/* Something else is mapped there: what we knew of it is wrong. */
		images_unmapped(t, f->address, f->address + PAGE_SIZE);
		break;
	default:
		break;
	}
	return fill_refused(t, f->address, r);
}

/* How many of n pages are no guards? CONTINUE would replace one. (A child without hello has no
 * pagemap: there only what was touched is mapped, which was none.) */
static uint32_t unguarded(const struct task *t, uint64_t address, uint32_t n)
{
	bool guards[AHEAD];
	uint32_t i = 0;

	n = MIN(n, AHEAD);
	if (t->pagemap < 0 || pagemap_guards(t->pagemap, address, n, guards) < 0)
		return 1;
	while (i < n && !guards[i])
		i++;
	return i;
}

/* Maps n pages, or the one that becomes dirty. */
static enum fault_result map_pages(struct fault *f, uint32_t n, uint64_t *ret_bytes)
{
	struct task *t = f->task;
	const struct mapping *m = f->mapping;
	uint64_t page = mapping_page(m, f->address);
	bool dirties = f->write && m->shared;
	ssize_t r;

	n = unguarded(t, f->address, dirties ? 1 : n);
	if (!n) { /* since it was touched: whoever did so meets the guard */
		uffd_wake(t->uffd, f->address, PAGE_SIZE);
		count(&t->counters, race);
		return FAULT_DONE;
	}
	if (dirties)
		n = image_dirty(m->image, page);
	else
		n = image_mappable(m->image, page, n);
	if (!n)
		return FAULT_RESTART;
	r = uffd_continue(t->uffd, f->address, pages_to_bytes(n), m->shared && !dirties);
	if (r <= 0)
		return refused(f, page, r);
	*ret_bytes = (uint64_t)r;
	trace(t, TRACE_IN, .address = f->address, .pages = bytes_to_pages((uint64_t)r),
	      .how = TRACE_LEAF_file);
	if (f->major)
		count(&t->counters, major);
	else
		count(&t->counters, minor);
	return FAULT_DONE;
}

static uint32_t window_of(const struct fault *f, struct stream **ret_stream)
{
	uint32_t max = f->task->worker->pager->config.readahead_pages;
	uint32_t window = stream_window(f->task->streams, 0, f->address, max, ret_stream);

	switch (f->mapping->advice) {
	case MAPPING_SEQUENTIAL:
		return max;
	case MAPPING_RANDOM:
		return 1;
	default:
		return window;
	}
}

enum fault_result filemap_map_pages(struct fault *f)
{
	uint64_t room = bytes_to_pages(f->mapping->end - f->address), bytes = 0;
	struct stream *stream;
	uint32_t n = MAX(window_of(f, &stream), (uint32_t)f->mapping->unit);
	enum fault_result result = map_pages(f, (uint32_t)MIN(n, room), &bytes);

	if (bytes) {
		stream_advance(stream, f->address + bytes);
		count_add(&f->task->counters, readahead, bytes_to_pages(bytes) - 1);
	}
	return result;
}

enum fault_result filemap_unprotect(struct fault *f)
{
	struct task *t = f->task;
	const struct mapping *m = f->mapping;

	/* A page that has left is touched again, and missing then. WP(0) there would be too
	 * early. */
	if (m->shared && !image_dirty(m->image, mapping_page(m, f->address))) {
		uffd_wake(t->uffd, f->address, PAGE_SIZE);
		count(&t->counters, spurious);
		return FAULT_DONE;
	}
	switch (uffd_classify(uffd_protect(t->uffd, f->address, PAGE_SIZE, false))) {
	case UFFD_RETRY:
		return FAULT_RETRY;
	case UFFD_SHORT:
		return fill_short(t);
	case UFFD_DONE:
		count(&t->counters, wp_reuse);
		return FAULT_DONE;
	default:
		uffd_wake(t->uffd, f->address, PAGE_SIZE);
		count(&t->counters, spurious);
		return FAULT_DONE;
	}
}

/* ---- who waits ---- */

static struct image_read *find_read(struct worker *w, const struct image *image, uint64_t page)
{
	struct image_read *read;

	TAILQ_FOREACH(read, &w->reads, link)
		if (read->image == image && page - read->first < read->n)
			return read;
	return NULL;
}

enum fault_result filemap_join(struct fault *f)
{
	struct image_read *read = find_read(f->task->worker, f->mapping->image,
					    mapping_page(f->mapping, f->address));
	struct image_waiter *waiter = read ? malloc(sizeof(*waiter)) : NULL;

	if (!waiter)
		return FAULT_RETRY;
	*waiter = (struct image_waiter){
		.task = f->task, .address = f->address, .ptid = f->ptid, .write = f->write};
	STAILQ_INSERT_TAIL(&read->waiters, waiter, link);
	f->task->under_way++;
	return FAULT_DONE;
}

static void poison(struct task *t, uint64_t address)
{
	enum fault_result result;
	struct fault f = {.task = t, .address = address};

	result = fill_poison(&f);
	if (result == FAULT_RETRY) {
		uffd_wake(t->uffd, address, PAGE_SIZE); /* faults again, and is read again */
		count(&t->counters, parked);
	}
}

/* The read has ended for one who waited. error: his page cannot be read. */
static void settle(struct image_read *read, struct image_waiter *waiter, int error)
{
	struct task *t = waiter->task;
	struct fault f = {.task = t, .address = waiter->address, .write = waiter->write};
	uint64_t page, bytes;

	t->under_way--;
	if (t->ended) {
		count(&t->counters, gone);
		worker_queue(t);
		return;
	}
	f.mapping = images_find(t, f.address);
	page = f.mapping ? mapping_page(f.mapping, f.address) : 0;
	if (f.mapping && f.mapping->image == read->image && page - read->first < read->n) {
		if (error && page < image_n_pages(read->image)) {
			pager_notify(t, PAGER_NOTICE_IO_ERROR, f.address, (uint64_t)-error);
			poison(t, f.address);
			return;
		}
		f.major = t == read->starter;
		if (map_pages(&f, 1, &bytes) == FAULT_DONE)
			return;
	}
	/* It has changed meanwhile: whoever waits looks again. */
	uffd_wake(t->uffd, f.address, PAGE_SIZE);
	count(&t->counters, parked);
}

/* The pages that nobody has asked for yet, for the task whose stream wanted them. */
static void map_ahead(struct image_read *read)
{
	struct task *t = read->starter;
	uint64_t end = read->address + pages_to_bytes(read->n);

	for (uint64_t at = read->address; at < end && !t->ended;) {
		const struct mapping *m = mappings_find(&t->mappings, at);
		uint64_t page = read->first + bytes_to_pages(at - read->address);
		uint32_t n;
		ssize_t r;

		if (!m || m->image != read->image || mapping_page(m, at) != page)
			return;
		n = image_mappable(m->image, page,
				   (uint32_t)bytes_to_pages(MIN(end, m->end) - at));
		if (!n)
			return;
		n = unguarded(t, at, n);
		r = n ? uffd_continue(t->uffd, at, pages_to_bytes(n), m->shared) : 0;
		if (r < 0 && uffd_classify(r) != UFFD_EXISTS)
			return;
		if (r > 0) {
			trace(t, TRACE_IN, .address = at, .pages = bytes_to_pages((uint64_t)r),
			      .how = TRACE_LEAF_file);
			count_add(&t->counters, readahead, bytes_to_pages((uint64_t)r));
		}
		at += r > 0 ? (uint64_t)r : PAGE_SIZE;
	}
}

static void read_end(struct image_read *read, int error)
{
	struct worker *w = read->worker;
	struct image_waiter *waiter;

	trace(read->starter, TRACE_READ_DONE, .address = read->address, .pages = read->n,
	      .a = read->first, .b = (uint64_t)-error);
	TAILQ_REMOVE(&w->reads, read, link);
	bounce_give(w, read->bounce, read->n);
	while ((waiter = STAILQ_FIRST(&read->waiters))) {
		uint64_t before = trace_outcomes(waiter->task);

		STAILQ_REMOVE_HEAD(&read->waiters, link);
		settle(read, waiter, error);
		trace_settled(waiter->task, waiter->address, waiter->ptid, before);
		free(waiter);
	}
	if (read->n > 1)
		map_ahead(read);
	read->starter->under_way--;
	worker_queue(read->starter);
	atomic_fetch_sub(&read->image->reads, 1);
	image_put(read->image);
	free(read);
}

/* ---- reading ---- */

static int read_submit(struct image_read *read)
{
	struct worker *w = read->worker;

	return uring_read(&w->uring, read->image->file, read->bounce + read->bytes_done,
			  (unsigned)pages_to_bytes(read->n) - read->bytes_done,
			  pages_to_bytes(read->first) + read->bytes_done, w->bounce_index,
			  &read->completion);
}

/* The file's bytes are in the bounce memory up to bytes_done, where it ends. */
static int publish(struct image_read *read)
{
	struct image *image = read->image;
	uint64_t at = pages_to_bytes(read->first), size = atomic_load(&image->size);
	uint64_t length = MIN(pages_to_bytes(read->n), size > at ? size - at : 0);

	if (read->bytes_done < length) {
		struct file_identity now;

		if (file_identify(image->file, &now) == 0 && now.size < size)
			images_truncate(image, now.size);
		length = read->bytes_done;
	}
	return length ? file_write(image->memory, read->bounce, length, at) : 0;
}

static void set_tags(const struct image_read *read, enum image_tag tag)
{
	uint64_t end = image_n_pages(read->image);

	for (uint64_t page = read->first; page < read->first + read->n; page++)
		image_move(read->image, page, IMAGE_READING, page < end ? tag : IMAGE_ABSENT);
}

/* Every n-th read fails, where a test wants that. */
static bool injected(struct pager *p)
{
	unsigned every = p->config.image_error_every;

	return every && atomic_fetch_add(&p->image_reads, 1) % every == every - 1;
}

static void read_result(struct image_read *read, int result)
{
	if (result > 0 && injected(read->worker->pager))
		result = -EIO;
	if (result > 0) {
		read->bytes_done += (uint32_t)result;
		if (read->bytes_done < pages_to_bytes(read->n) && read_submit(read) == 0)
			return;
	}
	if (result >= 0)
		result = publish(read);
	if (result >= 0) {
		set_tags(read, IMAGE_PRESENT);
		read_end(read, 0);
	} else if (read->n == 1 && ++read->attempts < ATTEMPTS) {
		read->bytes_done = 0;
		if (read_submit(read) < 0) {
			set_tags(read, IMAGE_ABSENT);
			read_end(read, 0);
		}
	} else {
		struct image_waiter *waiter;

		/* One page at a time says which cannot be read. */
		STAILQ_FOREACH(waiter, &read->waiters, link)
			*waiter->task->streams = (struct streams){0};
		set_tags(read, IMAGE_ABSENT);
		read_end(read, read->n == 1 ? result : 0);
	}
}

/* Where a test wants that, a read ends later than it does. */
static void read_done(struct completion *completion, int result);

static void delayed(struct completion *completion, int result)
{
	struct image_read *read = container_of(completion, struct image_read, completion);

	(void)result;
	completion->done = read_done;
	read_result(read, read->result);
}

static void read_done(struct completion *completion, int result)
{
	struct image_read *read = container_of(completion, struct image_read, completion);
	unsigned delay_us = read->worker->pager->config.image_delay_us;

	read->result = result;
	read->after.tv_sec = delay_us / 1000000;
	read->after.tv_nsec = delay_us % 1000000 * 1000;
	completion->done = delayed;
	if (delay_us && uring_timeout(&read->worker->uring, &read->after, completion) == 0)
		return;
	completion->done = read_done;
	read_result(read, result);
}

/* Begins to read absent pages from `page` on, at most `max`; returns how many. */
static uint32_t read_pages(const struct fault *f, uint64_t page, uint32_t max)
{
	const struct mapping *m = f->mapping;
	struct image *image = m->image;
	struct worker *w = f->task->worker;
	struct image_read *read;
	char *bounce;
	uint32_t room, n;

	if (image_tag(image, page) != IMAGE_ABSENT)
		return 0;
	room = bounce_take(w, MIN(max, PIECE), &bounce);
	n = room ? image_move_run(image, page, room, IMAGE_ABSENT, IMAGE_READING) : 0;
	bounce_give(w, bounce + pages_to_bytes(n), room - n);
	if (!n)
		return 0;
	read = malloc(sizeof(*read));
	if (read) {
		*read = (struct image_read){.completion.done = read_done,
					    .worker = w,
					    .image = image,
					    .first = page,
					    .n = n,
					    .bounce = bounce,
					    .starter = f->task,
					    .address = m->start + pages_to_bytes(page - m->page)};
		STAILQ_INIT(&read->waiters);
		if (read_submit(read) == 0) {
			image_get(image);
			atomic_fetch_add(&image->reads, 1);
			f->task->under_way++;
			count_add(&f->task->counters, pages_in, n);
			trace(f->task, TRACE_READ, .address = read->address, .pages = n,
			      .a = page);
			TAILQ_INSERT_TAIL(&w->reads, read, link);
			return n;
		}
		free(read);
	}
	bounce_give(w, bounce, n);
	for (uint32_t i = 0; i < n; i++)
		image_move(image, page + i, IMAGE_READING, IMAGE_ABSENT);
	return 0;
}

/* The fault's page first, then what a stream will want, and the rest of its unit; in pieces, so
 * that the reader goes on with the first while the others come. */
enum fault_result filemap_read(struct fault *f)
{
	struct task *t = f->task;
	struct mapping *m = f->mapping;
	uint64_t page = mapping_page(m, f->address), first = page & ~(uint64_t)(m->unit - 1u);
	struct stream *stream;
	uint32_t window = window_of(f, &stream);
	uint64_t end = MIN(MAX(page + window, first + m->unit), image_n_pages(m->image));

	end = MIN(end, m->page + bytes_to_pages(m->end - m->start));
	if (page >= end) {
		/* Past the end by now: there the kernel answers. */
		uffd_wake(t->uffd, f->address, PAGE_SIZE);
		count(&t->counters, spurious);
		return FAULT_DONE;
	}
	if (!reclaim_room(t->worker, (uint32_t)(end - first)) && !f->overrun) {
		end = page + 1;
		if (!reclaim_room(t->worker, 1))
			return FAULT_RETRY;
	}
	for (uint64_t at = page; at < end;) {
		uint32_t n = read_pages(f, at, (uint32_t)(end - at));

		if (!n)
			break;
		at += n;
		stream_advance(stream, f->address + pages_to_bytes(at - page));
	}
	for (uint64_t at = MAX(first, m->page); at < page && end > page + 1;)
		at += MAX(read_pages(f, at, (uint32_t)(page - at)), 1u);
	return filemap_join(f);
}
