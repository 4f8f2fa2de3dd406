/*
 * Dirty pages of an image to its file.
 *
 * An image is written by one worker, its owner, one run of pages at a time:
 *
 *   DIRTY → WRITING → every worker protects the run in its tasks' shared mappings → the bytes are
 *   copied out → the file has them → PRESENT
 *
 * The tag comes first: a write that is let through meanwhile makes the page DIRTY again, and then
 * it stays so. Each worker protects what its own tasks have mapped, in step with their events; a
 * page that is about to be mapped elsewhere is not writable there without being DIRTY.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "pager/file.h"

#define RUN_PAGES    256u
#define EVENT_AGAIN  (2 * MS)       /* an event was pending in one of the tasks */
#define EVENT_TRIES  5000u

struct protect {
	struct mail mail;
	struct image_request *request;
};

struct image_request {
	struct mail mail; /* to the owner: a new request, or a run that all have protected */
	TAILQ_ENTRY(image_request) link; /* of the image */
	struct worker *owner;
	struct image *image; /* a use */
	struct flush_call *call;
	uint64_t at, end;
	int result;

	uint64_t run; /* first page under way */
	uint32_t n;
	uint64_t length, written; /* bytes of it */
	unsigned tries;
	_Atomic unsigned pending; /* workers that have not protected it yet */
	_Atomic int refused;      /* -errno of one of them */
	struct completion completion;
	struct __kernel_timespec after;
	char *buffer;
	struct protect protects[];
};

static void next_run(struct image_request *request);

/* ---- the end ---- */

static void request_end(struct image_request *request)
{
	struct image *image = request->image;
	struct image_request *next;

	TAILQ_REMOVE(&image->requests, request, link);
	image->failures = request->result < 0 ? image->failures + 1 : 0;
	if (request->call)
		request->call->done(request->call, request->result);
	free(request->buffer);
	free(request);
	next = TAILQ_FIRST(&image->requests);
	image_put(image);
	if (next)
		next_run(next);
}

static void synced(struct completion *completion, int result)
{
	struct image_request *request =
		container_of(completion, struct image_request, completion);

	if (request->result == 0 && result < 0)
		request->result = result;
	request_end(request);
}

/* Everything is written. Who asked for it wants to be certain. */
static void written_all(struct image_request *request)
{
	int file = atomic_load(&request->image->writable);

	request->completion.done = synced;
	if (!request->call || request->result < 0 || file < 0 ||
	    uring_sync(&request->owner->uring, file, &request->completion) < 0)
		request_end(request);
}

/* ---- one run ---- */

static void set_tags(const struct image_request *request, enum image_tag tag)
{
	for (uint32_t i = 0; i < request->n; i++)
		image_move(request->image, request->run + i, IMAGE_WRITING, tag);
}

static void give_up(struct image_request *request, int error)
{
	set_tags(request, IMAGE_DIRTY);
	request->result = error;
	written_all(request);
}

static int write_submit(struct image_request *request);

static void write_done(struct completion *completion, int result)
{
	struct image_request *request =
		container_of(completion, struct image_request, completion);

	if (result <= 0) {
		give_up(request, result ? result : -EIO);
		return;
	}
	request->written += (uint64_t)result;
	if (request->written < request->length) {
		if (write_submit(request) < 0)
			give_up(request, -EAGAIN);
		return;
	}
	set_tags(request, IMAGE_PRESENT);
	request->at = request->run + request->n;
	next_run(request);
}

static int write_submit(struct image_request *request)
{
	request->completion.done = write_done;
	return uring_write(&request->owner->uring, atomic_load(&request->image->writable),
			   request->buffer + request->written,
			   (unsigned)(request->length - request->written),
			   pages_to_bytes(request->run) + request->written, -1,
			   &request->completion);
}

/* What the file has lost since must not come back with our write. */
static bool still_as_long(struct image *image)
{
	struct file_identity now;

	if (file_identify(image->file, &now) < 0 || now.size >= atomic_load(&image->size))
		return true;
	images_truncate(image, now.size);
	return false;
}

static void write_run(struct image_request *request)
{
	struct image *image = request->image;
	uint64_t at = pages_to_bytes(request->run);
	int r;

	if (!still_as_long(image)) {
		set_tags(request, IMAGE_DIRTY);
		images_truncate(image, atomic_load(&image->size));
		next_run(request);
		return;
	}
	request->length = MIN(pages_to_bytes(request->n), atomic_load(&image->size) - at);
	request->written = 0;
	r = file_read(image->memory, request->buffer, request->length, at);
	if (r == 0)
		r = write_submit(request);
	if (r < 0)
		give_up(request, r);
}

/* ---- protecting it ---- */

static void protect_all(struct image_request *request);

static void again(struct completion *completion, int result)
{
	(void)result;
	protect_all(container_of(completion, struct image_request, completion));
}

/* The last worker has protected the run, or could not. */
static void run_protected(struct worker *w, struct mail *mail)
{
	struct image_request *request = container_of(mail, struct image_request, mail);

	if (!atomic_load(&request->refused)) {
		write_run(request);
	} else if (++request->tries > EVENT_TRIES) {
		give_up(request, -EAGAIN);
	} else {
		request->after = (struct __kernel_timespec){.tv_nsec = EVENT_AGAIN};
		request->completion.done = again;
		if (uring_timeout(&w->uring, &request->after, &request->completion) < 0)
			give_up(request, -EAGAIN);
	}
}

/* -EAGAIN: an event is pending. What is not registered nobody writes to by our leave; but the call
 * stops there, and what comes after it is protected page by page. */
static int protect_range(const struct task *t, uint64_t start, uint64_t length)
{
	switch (uffd_classify(uffd_protect(t->uffd, start, length, true))) {
	case UFFD_RETRY:
	case UFFD_SHORT:
		return -EAGAIN;
	case UFFD_DONE:
	case UFFD_ENDED:
		return 0;
	default:
		break;
	}
	for (uint64_t at = start; at < start + length && length > PAGE_SIZE; at += PAGE_SIZE) {
		int r = protect_range(t, at, PAGE_SIZE);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Protects pages of an image wherever the task may write them. */
static int protect_task(struct task *t, const struct image *image, uint64_t page, uint32_t n)
{
	for (size_t i = 0; i < t->mappings.n && !t->ended; i++) {
		const struct mapping *m = &t->mappings.list[i];
		uint64_t last = m->page + bytes_to_pages(m->end - m->start);
		uint64_t from = MAX(page, m->page), to = MIN(page + n, last);
		int r;

		if (m->image != image || !m->shared || from >= to)
			continue;
		r = protect_range(t, m->start + pages_to_bytes(from - m->page),
				  pages_to_bytes(to - from));
		if (r < 0)
			return r;
	}
	return 0;
}

static void protect_ours(struct worker *w, struct mail *mail)
{
	struct image_request *request = container_of(mail, struct protect, mail)->request;
	struct group *g;
	struct task *t;
	int r = 0;

	TAILQ_FOREACH(g, &w->groups, link)
		TAILQ_FOREACH(t, &g->tasks, link)
			if (t->mappings.n && r == 0)
				r = protect_task(t, request->image, request->run, request->n);
	if (r < 0)
		atomic_store(&request->refused, r);
	if (atomic_fetch_sub(&request->pending, 1) == 1)
		worker_post(request->owner, &request->mail);
}

static void protect_all(struct image_request *request)
{
	struct pager *p = request->owner->pager;

	request->mail.run = run_protected;
	atomic_store(&request->refused, 0);
	atomic_store(&request->pending, p->n_workers);
	for (unsigned i = 0; i < p->n_workers; i++) {
		request->protects[i] =
			(struct protect){.mail.run = protect_ours, .request = request};
		worker_post(&p->workers[i], &request->protects[i].mail);
	}
}

/* ---- requests ---- */

static void next_run(struct image_request *request)
{
	struct image *image = request->image;
	uint64_t end = MIN(request->end, image_n_pages(image));

	while (request->at < end && image_tag(image, request->at) != IMAGE_DIRTY)
		request->at++;
	request->run = request->at;
	request->n = 0;
	if (request->at < end)
		request->n = image_move_run(image, request->run,
					    (uint32_t)MIN(RUN_PAGES, end - request->at),
					    IMAGE_DIRTY, IMAGE_WRITING);
	if (request->n)
		protect_all(request);
	else
		written_all(request);
}

static void begin(struct worker *w, struct mail *mail)
{
	struct image_request *request = container_of(mail, struct image_request, mail);
	struct image *image = request->image;

	(void)w;
	TAILQ_INSERT_TAIL(&image->requests, request, link);
	if (TAILQ_FIRST(&image->requests) == request)
		next_run(request);
}

int flush_post(struct pager *p, struct image *image, uint64_t first, uint64_t end,
	       struct flush_call *call)
{
	struct image_request *request =
		calloc(1, sizeof(*request) + p->n_workers * sizeof(*request->protects));

	if (!request)
		return -ENOMEM;
	request->buffer = malloc(pages_to_bytes(RUN_PAGES));
	if (!request->buffer) {
		free(request);
		return -ENOMEM;
	}
	request->mail.run = begin;
	request->owner = &p->workers[image->owner];
	request->image = image;
	request->call = call;
	request->at = first;
	request->end = end;
	image_get(image);
	worker_post(request->owner, &request->mail);
	return 0;
}

int flush_now(struct image *image)
{
	int file = atomic_load(&image->writable), r = 0;
	uint64_t end = image_n_pages(image), size = atomic_load(&image->size);
	char page[PAGE_SIZE];

	for (uint64_t i = 0; i < end && atomic_load(&image->dirty); i++) {
		uint64_t at = pages_to_bytes(i), length = MIN((uint64_t)PAGE_SIZE, size - at);
		enum image_tag tag = image_tag(image, i);

		if (tag != IMAGE_DIRTY && tag != IMAGE_WRITING)
			continue;
		if (r == 0)
			r = file_read(image->memory, page, length, at);
		if (r == 0)
			r = file_write(file, page, length, at);
	}
	return r;
}
