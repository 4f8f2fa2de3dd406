/* Mappings of files, private and shared: made, touched, moved, cut, advised, synced, unmapped. */
#include "torture.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ADVICES	  6 /* of enum upager_advice */
#define WILLNEED  4
#define DONTNEED  5
#define OWN_PAGES 32 /* of a file that one operation has for itself */

/* ---- private: pages of ordinary regions, with P_FILE until they are written ---- */

/* A region in which at least some page is a file's. */
static struct region *private_pick(struct actor *a)
{
	for (unsigned tries = 0; tries < 4 * REGIONS; tries++) {
		struct region *r = &a->regions[pick(a, REGIONS)];

		if (r->kind != R_FREE && page_of(r, pick(a, r->pages))->file)
			return r;
	}
	return NULL;
}

bool private_room(struct actor *a, unsigned more)
{
	for (unsigned k = 0; k < REGIONS; k++)
		for (unsigned i = 0; a->regions[k].kind != R_FREE && i < a->regions[k].pages; i++)
			more += page_of(&a->regions[k], i)->file != 0;
	return more <= FILE_COPIES / W->actors;
}

static int op_private_map(struct actor *a)
{
	uint32_t file = FILE_PAGE(pick(a, FILES), pick(a, MAPPED_PAGES));
	unsigned pages = 1 + pick(a, chance(a, 2) ? 16 : FILE_COPIES / W->actors);
	struct region *r;

	if (pages > file_left(file))
		pages = file_left(file);
	r = private_room(a, pages) ? region_slot(a, pages) : NULL;
	if (!r)
		return -1;
	r->addr = (uint64_t)file_map_pages(a, file, pages, FILE_PRIVATE);
	if (!r->addr)
		return -1;
	r->kind = chance(a, 2) ? R_NORMAL : R_WHOLE;
	a->mapped += pages;
	for (unsigned i = 0; i < pages; i++)
		*page_of(r, i) = (struct page){.file = file + i, .flags = P_FILE};
	run_tag(a, r, 0, pages);
	return 0;
}

static int op_private_touch(struct actor *a)
{
	struct region *r = private_pick(a);
	unsigned start, n;

	if (!r || !run_pick(a, r, 32, &start, &n))
		return -1;
	for (unsigned i = start; i < start + n; i++) {
		struct page *p = page_of(r, i);

		if (!(p->flags & P_UNREADABLE) && chance(a, 2))
			page_verify(a, p, addr_of(r, i));
		if (!(p->flags & P_UNWRITABLE) && chance(a, 4))
			page_modify(a, p, addr_of(r, i));
	}
	return 0;
}

static int op_private_advise(struct actor *a)
{
	struct region *r = private_pick(a);
	unsigned start, n, advice = pick(a, ADVICES);
	bool all = true;

	if (!r || !run_pick(a, r, 64, &start, &n) ||
	    !run_without(r, start, n, advice == WILLNEED ? P_UNREADABLE : P_LOCKED))
		return -1;
	for (unsigned i = start; i < start + n; i++)
		all = all && page_of(r, i)->file;
	file_advise(a, addr_of(r, start), n * PAGE, advice, all);
	for (unsigned i = start; i < start + n; i++) {
		if (advice == DONTNEED)
			page_discard(page_of(r, i));
		if (!(page_of(r, i)->flags & P_UNREADABLE))
			page_verify(a, page_of(r, i), addr_of(r, i));
	}
	return 0;
}

/* ---- shared: views ---- */

static struct view *view_free(struct actor *a)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (!a->views[i].pages)
			return &a->views[i];
	return NULL;
}

/* Any that has none of these flags. */
static struct view *view_pick(struct actor *a, unsigned without)
{
	struct view *v = &a->views[pick(a, VIEWS)];

	return v->pages && !(v->flags & without) ? v : NULL;
}

static void *page_in(const struct view *v, unsigned i)
{
	return (void *)(v->addr + i * PAGE);
}

/* A run of it, some of whose pages are claimed: the first n. */
static unsigned view_claim(struct actor *a, const struct view *v, unsigned max, unsigned *start)
{
	unsigned n = 1 + pick(a, max);

	*start = pick(a, v->pages);
	if (n > v->pages - *start)
		n = v->pages - *start;
	log_range(a, v->addr + *start * PAGE, n * PAGE);
	return file_claim_run(v->file + *start, n);
}

/* Makes a view of its own of a part; NULL: there are too many. */
static struct view *view_cut(struct actor *a, struct view *v, unsigned start, unsigned n)
{
	struct view *rest;

	if (start) {
		rest = view_free(a);
		if (!rest)
			return NULL;
		*rest = *v;
		rest->pages = start;
		v->addr += start * PAGE;
		v->file += start;
		v->pages -= start;
	}
	if (n < v->pages) {
		rest = view_free(a);
		if (!rest)
			return NULL;
		*rest = *v;
		rest->addr += n * PAGE;
		rest->file += n;
		rest->pages -= n;
		v->pages = n;
	}
	return v;
}

static struct view *view_cut_somewhere(struct actor *a)
{
	struct view *v = view_pick(a, 0);
	unsigned start;

	if (!v || chance(a, 2))
		return v;
	start = pick(a, v->pages);
	return view_cut(a, v, start, 1 + pick(a, v->pages - start));
}

static int op_view_map(struct actor *a)
{
	uint32_t file = FILE_PAGE(pick(a, FILES - 1), chance(a, 4) ? 0 : pick(a, MAPPED_PAGES));
	unsigned pages = chance(a, 4) ? MAPPED_PAGES : 1 + pick(a, chance(a, 2) ? 16 : 512);
	struct view *v = view_free(a);
	bool fixed = chance(a, 8);
	void *at;

	if (!v)
		return -1;
	if (pages > file_left(file))
		pages = file_left(file);
	at = file_map_pages(a, file, pages, fixed ? FILE_FIXED : FILE_SHARED);
	if (!at)
		return -1;
	*v = (struct view){.addr = (uint64_t)at, .pages = pages, .file = file,
			   .flags = fixed ? P_RO : 0, .fixed = fixed};
	return 0;
}

/* The kernel stores there. */
static void page_read_in(struct actor *a, struct page *p, void *at)
{
	uint64_t content = content_new(a);
	int pipes[2];

	content_make(content, a->expect);
	check(a, pipe(pipes) == 0);
	check(a, write(pipes[1], a->expect, PAGE) == PAGE);
	check(a, read(pipes[0], at, PAGE) == PAGE);
	page_set(p, content);
	close(pipes[0]);
	close(pipes[1]);
}

static int op_view_touch(struct actor *a)
{
	struct view *v = view_pick(a, P_NONE);
	unsigned start, n;

	if (!v)
		return -1;
	n = view_claim(a, v, chance(a, 8) ? 128 : 8, &start);
	for (unsigned i = start; i < start + n; i++) {
		struct page *p = file_shadow(v->file + i);

		if (chance(a, 2))
			page_verify(a, p, page_in(v, i));
		if (v->flags & P_RO || chance(a, 2))
			continue;
		if (chance(a, 16))
			page_read_in(a, p, page_in(v, i));
		else if (chance(a, 2))
			page_write(a, p, page_in(v, i));
		else
			page_modify(a, p, page_in(v, i));
	}
	file_release(v->file + start, n);
	return n ? 0 : -1;
}

/* What was stored before is in the file afterwards, whoever stores beside it meanwhile. */
static int op_view_sync(struct actor *a)
{
	struct view *v = view_pick(a, 0);
	unsigned start, n;

	if (!v)
		return -1;
	n = view_claim(a, v, 64, &start);
	if (!n)
		return -1;
	if (chance(a, 2))
		file_sync(a, page_in(v, start), n * PAGE);
	else
		file_sync(a, page_in(v, 0), v->pages * PAGE);
	file_compare(a, v->file + start, n);
	file_release(v->file + start, n);
	return 0;
}

static int op_view_unmap(struct actor *a)
{
	struct view *v = view_cut_somewhere(a);

	if (!v)
		return -1;
	log_range(a, v->addr, v->pages * PAGE);
	file_unmap(a, page_in(v, 0), v->pages * PAGE);
	v->pages = 0;
	return 0;
}

/* To a place of its own, or wherever it can be longer or shorter. */
static int op_view_move(struct actor *a)
{
	struct view *v = view_pick(a, 0), *other = chance(a, 4) ? view_free(a) : NULL;
	unsigned pages;
	void *to, *where = NULL;
	int flags = MREMAP_MAYMOVE;

	if (!v)
		return -1;
	pages = v->pages;
	if (other) {
		flags |= MREMAP_DONTUNMAP;
	} else if (chance(a, 2)) {
		flags |= MREMAP_FIXED;
		where = mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		check(a, where != MAP_FAILED);
	} else {
		pages = 1 + pick(a, file_left(v->file));
	}
	log_range(a, v->addr, v->pages * PAGE);
	to = remap(page_in(v, 0), v->pages * PAGE, pages * PAGE, flags, where);
	check(a, to != MAP_FAILED);
	log_target(a, (uint64_t)to);
	if (other)
		*other = *v; /* the old one stays, and sees the file as before */
	v->addr = (uint64_t)to;
	v->pages = pages;
	return 0;
}

static int op_view_protect(struct actor *a)
{
	struct view *v = view_cut_somewhere(a);
	unsigned flags;

	if (!v)
		return -1;
	flags = v->flags & P_NONE ? P_RO : chance(a, 2) ? P_RO : P_NONE;
	if (v->flags & (P_RO | P_NONE) && !v->fixed)
		flags = 0;
	log_range(a, v->addr, v->pages * PAGE);
	check(a, mprotect(page_in(v, 0), v->pages * PAGE,
			  flags == P_NONE ? PROT_NONE
			  : flags	  ? PROT_READ
					  : PROT_READ | PROT_WRITE) == 0);
	v->flags = (v->flags & ~(unsigned)(P_RO | P_NONE)) | flags;
	return 0;
}

/* None of this loses anything. */
static int op_view_advise(struct actor *a)
{
	static const int others[] = {MADV_DONTNEED, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED};
	unsigned start, n, advice = pick(a, ADVICES);
	struct view *v = view_pick(a, advice == WILLNEED ? P_NONE : 0);

	if (!v)
		return -1;
	start = pick(a, v->pages);
	n = 1 + pick(a, v->pages - start);
	if (advice == WILLNEED && n > 64)
		n = 64;
	log_range(a, v->addr + start * PAGE, n * PAGE);
	if (chance(a, 4))
		check(a, madvise(page_in(v, start), n * PAGE, others[pick(a, 4)]) == 0);
	else
		file_advise(a, page_in(v, start), n * PAGE, advice, true);
	return 0;
}

static int op_view_dontfork(struct actor *a)
{
	struct view *v = view_cut_somewhere(a);
	bool has;

	if (!v)
		return -1;
	has = v->flags & P_DONTFORK;
	log_range(a, v->addr, v->pages * PAGE);
	check(a, madvise(page_in(v, 0), v->pages * PAGE, has ? MADV_DOFORK : MADV_DONTFORK) == 0);
	v->flags ^= P_DONTFORK;
	return 0;
}

void views_after_fork(struct actor *a)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (a->views[i].flags & P_DONTFORK)
			a->views[i].pages = 0;
}

void views_verify(struct actor *a, const struct actor *whose)
{
	for (unsigned k = 0; k < VIEWS; k++) {
		const struct view *v = &whose->views[k];

		for (unsigned i = 0; i < v->pages && !(v->flags & P_NONE); i++) {
			if (!chance(a, verify_one_in) || !file_claim(v->file + i))
				continue;
			page_verify(a, file_shadow(v->file + i), page_in(v, i));
			file_release(v->file + i, 1);
		}
	}
}

/* ---- a file of one's own ---- */

struct own {
	int fd;
	unsigned pages;
	struct page shadow[OWN_PAGES], copies[OWN_PAGES];
	char *shared, *private;
};

static bool own_map(struct actor *a, struct own *o)
{
	o->shared = file_map(a, o->fd, 0, o->pages * PAGE, FILE_SHARED);
	o->private = o->shared ? file_map(a, o->fd, 0, o->pages * PAGE, FILE_PRIVATE) : NULL;
	for (unsigned i = 0; i < o->pages; i++)
		o->copies[i].flags = P_FILE;
	return o->private;
}

static void own_unmap(struct actor *a, struct own *o)
{
	file_unmap(a, o->shared, o->pages * PAGE);
	file_unmap(a, o->private, o->pages * PAGE);
}

static void own_touch(struct actor *a, struct own *o, unsigned end)
{
	for (unsigned n = pick(a, 2 * OWN_PAGES); n-- > 0;) {
		unsigned i = pick(a, end);
		uint64_t *shared = (uint64_t *)(o->shared + i * PAGE);
		uint64_t *private = (uint64_t *)(o->private + i * PAGE);
		bool copied = !(o->copies[i].flags & P_FILE);

		page_verify(a, &o->shadow[i], shared);
		page_verify(a, copied ? &o->copies[i] : &o->shadow[i], private);
		if (chance(a, 2))
			page_modify(a, &o->shadow[i], shared);
		if (chance(a, 8))
			page_write(a, &o->copies[i], private);
	}
}

static void own_write(struct actor *a, struct own *o, unsigned i)
{
	page_set(&o->shadow[i], content_new(a));
	content_make(o->shadow[i].content, a->expect);
	check(a, pwrite(o->fd, a->expect, PAGE, (off_t)(i * PAGE)) == PAGE);
}

/* The file loses its end: that is noticed when something is written back, and then there is nothing
 * any more. What it gains again is seen by a new mapping. */
static void own_truncate(struct actor *a, struct own *o)
{
	unsigned pages = 1 + pick(a, o->pages - 1);

	/* A write that is under way would make it longer again. */
	file_sync(a, o->shared, o->pages * PAGE);
	check(a, ftruncate(o->fd, (off_t)(pages * PAGE)) == 0);
	page_modify(a, &o->shadow[0], (uint64_t *)o->shared);
	file_sync(a, o->shared, o->pages * PAGE);
	for (unsigned i = pages; i < o->pages; i++) {
		check(a, touch_fails((uint64_t *)(o->shared + i * PAGE)));
		check(a, touch_fails((uint64_t *)(o->private + i * PAGE)));
		page_set(&o->shadow[i], 0);
	}
	own_touch(a, o, pages);
	check(a, ftruncate(o->fd, (off_t)(o->pages * PAGE)) == 0);
}

/* All others stand still, so that no child inherits the mappings: while nobody has any, what others
 * write to the file is seen by the next. */
static int op_own_file(struct actor *a)
{
	struct own o = {.pages = 2 + pick(a, OWN_PAGES - 1)};

	o.fd = temporary_file(a, 0);
	check(a, o.fd >= 0);
	for (unsigned i = 0; i < o.pages; i++)
		own_write(a, &o, i);
	for (unsigned round = pick(a, 3); own_map(a, &o); round--) {
		own_touch(a, &o, o.pages);
		if (chance(a, 2))
			own_truncate(a, &o);
		file_sync(a, o.shared, o.pages * PAGE); /* what is dirty would be written later */
		own_unmap(a, &o);
		if (!round)
			break;
		own_write(a, &o, pick(a, o.pages));
	}
	close(o.fd);
	return 0;
}

struct op ops_file[] = {
	{"private-map", 4, 0, op_private_map},
	{"private-touch", 40, 0, op_private_touch},
	{"private-advise", 6, 0, op_private_advise},
	{"view-map", 4, 0, op_view_map},
	{"view-touch", 80, 0, op_view_touch},
	{"view-sync", 1, 0, op_view_sync},
	{"view-unmap", 2, 0, op_view_unmap},
	{"view-move", 4, 0, op_view_move},
	{"view-protect", 4, 0, op_view_protect},
	{"view-advise", 8, 0, op_view_advise},
	{"view-dontfork", 1, 0, op_view_dontfork},
	{"own-file", 2, OP_ALONE, op_own_file},
	{0},
};
