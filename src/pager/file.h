/*
 * The file branch: images, and what faults on mappings of them come to.
 *
 * Internal to pager/. On the worker's thread that owns the task or the image, unless it says
 * otherwise.
 */
#pragma once

#include "pager/worker.h"

/* ---- images.c: which images there are, and who has mapped them where ---- */
/* From now on what the task has mapped of images in the range is known; true: that is all of the
 * range. `like` (may be NULL) has the advice for it. */
bool images_learn(struct task *task, uint64_t start, uint64_t end, const struct mapping *like);
/* The same, where nothing is known of the range: a mapping has grown, and the rest of it is known. */
void images_learn_gaps(struct task *task, uint64_t start, uint64_t end);
/* The mapping of a fault, as far as anything of it is known or can be asked for. */
struct mapping *images_find(struct task *task, uint64_t address);
/* Events: what was known of the range may be wrong now. */
void images_unmapped(struct task *task, uint64_t start, uint64_t end);
void images_moved(struct task *task, uint64_t from, uint64_t to, uint64_t length);
int images_forked(struct task *parent, struct task *child);
/* A forked child has said hello: its own map tells. */
void images_check(struct task *task);
/* The file has been found to be shorter. Any worker. */
void images_truncate(struct image *image, uint64_t size);
/* What is due: writing, closing; calls that had to wait. */
void images_serve(struct worker *worker);
/* Has the worker's images looked at soon. Any thread. */
void images_kick(struct worker *worker);
void images_init(struct worker *worker);
/* => all workers have stopped. Writes what is dirty. */
void images_close(struct pager *pager);

/* ---- calls.c: what programs ask for ---- */
bool calls_serve(struct worker *worker); /* true: some wait for the gate */

/* ---- filemap.c: pages in ---- */
/* Reads pages around the fault that are absent; the fault waits for its own. */
enum fault_result filemap_read(struct fault *fault);
/* Waits for a read that is under way. */
enum fault_result filemap_join(struct fault *fault);
/* Maps the page, and neighbours that are there too; for a write that the file will see, the page
 * alone, which is dirty from now on. */
enum fault_result filemap_map_pages(struct fault *fault);
/* Lets a write to a protected page through. */
enum fault_result filemap_unprotect(struct fault *fault);

/* ---- reclaim.c: pages out ---- */
/* Room for n pages in image_memory? Drops clean pages to make it; if only dirty ones are left they
 * are written, and it is worth asking again. */
bool reclaim_room(struct worker *worker, uint32_t n);
/* Drops clean pages of [first, end). */
void reclaim_range(struct image *image, uint64_t first, uint64_t end);
/* Takes a page out whatever it is, unless somebody is at it. */
void reclaim_page(struct image *image, uint64_t page);

/* ---- flush.c: dirty pages to the file ---- */
/* Pages of an image to be written. Made by anyone, posted to the image's owner. */
struct flush_call {
	void (*done)(struct flush_call *call, int result); /* on the owner's thread */
};
/* Writes the dirty pages of [first, end); `call` (may be NULL) is told when the file has them for
 * certain (fdatasync). -ENOMEM: it isn't. Any thread; => a use of the image is held meanwhile. */
int flush_post(struct pager *pager, struct image *image, uint64_t first, uint64_t end,
	       struct flush_call *call);
/* The same, now, by a thread that may wait: => no worker runs. */
int flush_now(struct image *image);
