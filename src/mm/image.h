/*
 * An image: one file as the daemon serves it to any number of tasks. A memfd is its page cache,
 * which all of them map; what a page is, is said here, in one byte each.
 *
 *   tag       who sets it, when                                 the page is in the memfd
 *   ABSENT    at first; after a drop, or a read that failed     no (what is there doesn't count)
 *   READING   whoever begins to read it from the file           no
 *   PRESENT   the reader; the writer, when the file has it      yes, protected in shared mappings
 *   DIRTY     before it becomes writable in a shared mapping    yes, the file has older bytes
 *   WRITING   the flush, before it protects and copies it       yes
 *   DROPPING  whoever is about to take it out                   perhaps
 *
 * Threads: workers share images. A tag changes by compare-and-swap, and READING, WRITING and
 * DROPPING belong to who has set them until they change it again (but a write makes WRITING DIRTY).
 * Sizes are atomic; the rest is the owner's, or constant, or guarded as said.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "sys/files.h"

enum image_tag {
	IMAGE_ABSENT,
	IMAGE_READING,
	IMAGE_PRESENT,
	IMAGE_DIRTY,
	IMAGE_WRITING,
	IMAGE_DROPPING,
	IMAGE_TAGS,
};

#define IMAGE_PAGES_MAX (1ull << 28) /* of one file: 1 TiB */

/* What all images hold together: pages. */
struct image_total {
	_Atomic uint64_t resident, dirty;
};

struct image_request;

struct image {
	LIST_ENTRY(image) link;       /* of the pager; guarded by its images lock */
	_Atomic unsigned users;       /* mappings and calls; from 0 it rises only under that lock */
	_Atomic unsigned mapped;      /* of these, mappings */
	_Atomic unsigned reads;       /* of these, reads of the file that are under way */
	unsigned owner;               /* index of the worker that writes it */
	struct file_identity file_id; /* constant: who it is; its size as it was at first */
	struct file_identity memory_id;
	int file;             /* the program's, to read from */
	_Atomic int writable; /* the program's, to write to; -1: nobody has given one */
	int memory;           /* the page cache */
	_Atomic uint64_t size; /* bytes: of the file as it was last seen, and of the memfd */
	_Atomic uint64_t resident, dirty; /* pages READING … DROPPING; DIRTY and WRITING */
	_Atomic uint64_t hand;            /* of reclaim */
	struct image_total *total;
	_Atomic uint8_t *pages;

	/* The owner's. */
	TAILQ_HEAD(, image_request) requests; /* the first is under way */
	uint64_t next_flush; /* ns */
	unsigned failures;   /* flushes that failed in a row */
};

/* => takes `file`, also on failure; -EMFILE if it is none. -EFBIG: too large; … */
int image_new(int file, const struct file_identity *id, struct image_total *total,
	      struct image **ret);
/* NULL is fine. What is dirty is lost. */
void image_free(struct image *image);

/* Another use of an image by who has one already. */
void image_get(struct image *image);
void image_put(struct image *image);

enum image_tag image_tag(const struct image *image, uint64_t page);
/* Moves a page from one tag to the other; false: it was not there. Asserts that the move is
 * legal. */
bool image_move(struct image *image, uint64_t page, enum image_tag from, enum image_tag to);
/* The pages from `page` on, at most `max`, that have this tag and are moved to another. */
uint32_t image_move_run(struct image *image, uint64_t page, uint32_t max, enum image_tag from,
			enum image_tag to);
/* Before a write becomes possible: the page is dirty from now on. False: it isn't in the memfd. */
bool image_dirty(struct image *image, uint64_t page);
/* The pages from `page` on, at most `max`, that can be mapped; they are young now. */
uint32_t image_mappable(struct image *image, uint64_t page, uint32_t max);
/* Was it mapped since the hand last passed? Not any more. */
bool image_was_young(struct image *image, uint64_t page);

uint64_t image_n_pages(const struct image *image); /* the last one may be a part */
