#include "tier/zpool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "sys/files.h"
#include "tier/zpool_parts.h"

#define POOR         3072u /* bytes: a page that gets no smaller is not worth its memory */
#define READ_PAGES   32u   /* decompressed in one turn */
#define WRITE_PAGES  8u    /* compressed in one turn */
#define CLEANS       8u    /* segments cleaned in one turn, at most, to get one free */
#define SPARE_KEPT   8u
#define PART_TRIES   2u  /* again, before the whole is said to have failed */
#define SPARE_ALONE  64u /* without a tier behind: for what is promised */
#define RATIO_MAX    8u  /* slots for so many pages in each page of memory */
#define PROMISED     UINT32_MAX /* place of a slot that was taken, and not written yet */
#define NAME         "compressed"

static struct zpool_tier *zpool_of(const struct tier *tier)
{
	return container_of(tier, struct zpool_tier, tier);
}

static struct zpool_worker *worker_of(const struct zpool *pool, struct uring *uring)
{
	struct zpool_worker *w = &pool->workers[uring->owner];

	w->uring = uring;
	return w;
}

static uint32_t place(const struct zpool_tier *z, uint32_t slot)
{
	return atomic_load(&z->places[slot]);
}

/* Where an object's slot says that its bytes are; the object may be anything. */
static _Atomic uint32_t *place_of(void *context, const struct object *object)
{
	const struct zpool *pool = context;
	const struct zpool_tier *z = object->tier < TIERS_MAX ? pool->tiers[object->tier] : NULL;

	return z && object->slot < z->n ? &z->places[object->slot] : NULL;
}

void zpool_wake(struct zpool_worker *w)
{
	if (!w->working)
		uring_post(w->uring, &w->work);
	w->working = true;
}

bool zpool_is_tight(const struct zpool_worker *w)
{
	const struct zlog *log = &w->log;

	return (log->refused && !log->n_spare) ||
	       arena_free(log->arena) + log->n_spare <= w->pool->low;
}

/* ---- one page ---- */

void zpool_forget(struct zpool_worker *w, struct zpool_tier *z, uint32_t slot)
{
	uint32_t old = atomic_exchange(&z->places[slot], 0);

	if (old == PROMISED) {
		w->promised--;
	} else if (old) {
		zlog_drop(&w->log, old);
		z->held--;
	}
}

bool zpool_load(struct zpool_worker *w, const struct zpool_tier *z, uint32_t slot, char *page)
{
	const struct object *object =
		zlog_look(&w->log, place(z, slot), z->number, slot);

	if (object && object->length == PAGE_SIZE)
		memcpy(page, object->bytes, PAGE_SIZE);
	else if (!object || !codec_decompress(&w->codec, object->bytes, object->length, page))
		object = NULL;
	if (!object) {
		memset(page, 0, PAGE_SIZE);
		w->errors++;
	}
	return object;
}

static void store(struct zpool_worker *w, struct zpool_tier *z, uint32_t slot, const char *frame)
{
	const char *bytes = w->small;
	uint32_t length, at = place(z, slot);

	if (at == PROMISED)
		zpool_forget(w, z, slot);
	else if (at)
		return; /* since an earlier attempt */
	/* Clients can write to frames, and compressors do not expect that. */
	memcpy(w->page, frame, PAGE_SIZE);
	length = codec_compress(&w->codec, w->page, w->small, POOR);
	if (!length) {
		w->rejected++;
		if (z->tier.next)
			return;
		bytes = w->page;
		length = PAGE_SIZE;
	}
	at = zlog_add(&w->log, z->number, slot, bytes, length);
	if (!at)
		return;
	atomic_store(&z->places[slot], at);
	z->held++;
	w->pages_out++;
	w->bytes_out += length;
}

/* ---- what is not in memory ---- */

struct part {
	struct tier_io io;
	struct tier_io *whole;
	struct tier *next;
	unsigned attempts;
};

static void part_ended(struct tier_io *whole, int error)
{
	if (error && !whole->error)
		whole->error = error;
	if (--whole->parts == 0)
		whole->finished(whole, whole->error);
}

static int submit_behind(struct tier *next, struct tier_io *io)
{
	io->bytes_done = 0;
	atomic_fetch_add(io->write ? &next->pages_out : &next->pages_in, io->n);
	return next->ops->submit(next, io);
}

/* Who repeats the whole begins anew with every part: of many, one would always fail. */
static void part_finished(struct tier_io *io, int error)
{
	struct part *part = container_of(io, struct part, io);
	struct tier_io *whole = part->whole;

	if (error && part->attempts++ < PART_TRIES && submit_behind(part->next, io) == 0)
		return;
	free(part);
	part_ended(whole, error);
}

/* Pages [i, i + n) of a transfer. */
static void pass_part(struct zpool_tier *z, struct tier_io *io, uint32_t i, uint32_t n)
{
	char *buffer = (char *)io->buffer + pages_to_bytes(i);
	struct part *part;
	int r;

	io->parts++;
	if (!z->tier.next) {
		if (!io->write)
			memset(buffer, 0, pages_to_bytes(n)); /* the checksum will tell */
		part_ended(io, io->write ? -ENOSPC : 0);
		return;
	}
	part = malloc(sizeof(*part));
	if (!part) {
		part_ended(io, -ENOMEM);
		return;
	}
	*part = (struct part){.whole = io,
			      .next = z->tier.next,
			      .io = {.uring = io->uring, .buffer = buffer,
				     .buffer_index = io->buffer_index, .slot = io->slot + i,
				     .n = n, .write = io->write, .finished = part_finished}};
	r = submit_behind(z->tier.next, &part->io);
	if (r < 0)
		part_finished(&part->io, r);
}

/* The transfer goes on with what is not in memory, and ends. */
static void pass_rest(struct zpool_tier *z, struct tier_io *io)
{
	uint32_t n;
	int r;

	io->parts = 1;
	for (uint32_t i = 0; i < io->n; i += MAX(n, 1u)) {
		for (n = 0; i + n < io->n && !place(z, io->slot + i + n);)
			n++;
		if (n == io->n && z->tier.next) {
			r = submit_behind(z->tier.next, io);
			if (r < 0)
				io->finished(io, r);
			return;
		}
		if (n)
			pass_part(z, io, i, n);
		else
			io->compressed++;
	}
	part_ended(io, 0);
}

/* ---- turns ---- */

/* Who has asked may have changed his mind, and let go of the slots: while it waits, a read counts them,
 * or they could be another worker's by now. */
static void read_queue(struct zpool_worker *w, struct tier_io *io)
{
	for (uint32_t i = 0; i < io->n; i++)
		slot_get(&io->tier->slots, io->slot + i);
	STAILQ_INSERT_TAIL(&w->reads, io, link);
}

static void read_now(struct zpool_worker *w, struct tier_io *io)
{
	struct zpool_tier *z = zpool_of(io->tier);

	for (uint32_t i = 0; i < io->n; i++) {
		if (!place(z, io->slot + i))
			continue;
		w->pages_in++;
		if (!zpool_load(w, z, io->slot + i, (char *)io->buffer + pages_to_bytes(i)))
			atomic_fetch_add(&z->tier.errors, 1);
	}
	for (uint32_t i = 0; i < io->n; i++)
		tier_put(&z->tier, io->uring, io->slot + i);
	pass_rest(z, io);
}

static void read_some(struct zpool_worker *w)
{
	struct tier_io *io;

	for (uint32_t n = 0; n < READ_PAGES && (io = STAILQ_FIRST(&w->reads));) {
		STAILQ_REMOVE_HEAD(&w->reads, link);
		n += io->n;
		read_now(w, io);
	}
}

/* Where memory gets short, its holes are used; where there are few, pages are written back. */
static void make_room(struct zpool_worker *w)
{
	for (unsigned i = 0; i < CLEANS && zpool_is_tight(w) && zlog_wastes(&w->log, 8); i++)
		if (!zlog_clean(&w->log))
			break;
	if (zpool_is_tight(w))
		drain_start(&w->drain);
}

static void write_some(struct zpool_worker *w)
{
	struct tier_io *io = STAILQ_FIRST(&w->writes);
	struct zpool_tier *z;

	if (!io)
		return;
	z = zpool_of(io->tier);
	make_room(w);
	for (uint32_t n = 0; n < WRITE_PAGES && io->bytes_done < pages_to_bytes(io->n); n++) {
		store(w, z, io->slot + (uint32_t)bytes_to_pages(io->bytes_done),
		      (char *)io->buffer + io->bytes_done);
		io->bytes_done += PAGE_SIZE;
	}
	if (io->bytes_done < pages_to_bytes(io->n))
		return;
	STAILQ_REMOVE_HEAD(&w->writes, link);
	pass_rest(z, io);
}

static void turn(struct completion *completion, int result)
{
	struct zpool_worker *w = container_of(completion, struct zpool_worker, work);
	bool more;

	(void)result;
	w->working = false;
	read_some(w);
	write_some(w);
	more = drain_go_on(&w->drain);
	/* What has died in the meantime is given back. */
	if (zlog_wastes(&w->log, 4))
		more |= zlog_clean(&w->log);
	if (more || !STAILQ_EMPTY(&w->reads) || !STAILQ_EMPTY(&w->writes))
		zpool_wake(w);
}

/* ---- the tier ---- */

static int zpool_submit(struct tier *tier, struct tier_io *io)
{
	struct zpool_tier *z = zpool_of(tier);
	struct zpool_worker *w = worker_of(z->pool, io->uring);
	uint32_t n = 0;

	while (!io->write && tier->next && n < io->n && !place(z, io->slot + n))
		n++;
	if (n == io->n)
		return submit_behind(tier->next, io);
	if (io->write)
		STAILQ_INSERT_TAIL(&w->writes, io, link);
	else
		read_queue(w, io);
	zpool_wake(w);
	return 0;
}

/* Without a tier behind, every page must find room, whatever it gets down to. */
static uint32_t zpool_reserve(struct tier *tier, struct uring *uring, uint32_t slot, uint32_t n)
{
	struct zpool_tier *z = zpool_of(tier);
	struct zpool_worker *w = worker_of(z->pool, uring);
	uint32_t wanted = (w->promised + n + SEGMENT_LEAST - 1) / SEGMENT_LEAST, room;
	unsigned cleans = 0;

	if (tier->next)
		return n;
	w->log.keep = MAX(wanted, SPARE_ALONE);
	while (!zlog_want_spare(&w->log, wanted) && cleans++ < CLEANS && zlog_wastes(&w->log, 8))
		if (!zlog_clean(&w->log))
			break;
	zlog_trim(&w->log);
	room = w->log.n_spare * SEGMENT_LEAST;
	n = MIN(n, room > w->promised ? room - w->promised : 0);
	for (uint32_t i = 0; i < n; i++)
		atomic_store(&z->places[slot + i], PROMISED);
	w->promised += n;
	return n;
}

static void zpool_discard(struct tier *tier, struct uring *uring, uint32_t slot)
{
	struct zpool_tier *z = zpool_of(tier);
	struct zpool_worker *w = worker_of(z->pool, uring);

	zpool_forget(w, z, slot);
	if (zlog_wastes(&w->log, 4))
		zpool_wake(w);
}

/* Pages that are in memory as well should leave it before others do. */
static bool zpool_is_short(const struct tier *tier, uint32_t slot)
{
	const struct zpool_tier *z = zpool_of(tier);
	const struct arena *arena = &z->pool->arena;

	return place(z, slot) && arena_free(arena) < arena->n / 4;
}

static int zpool_flush(struct tier *tier)
{
	struct tier *next = tier->next;

	return next && next->ops->flush ? next->ops->flush(next) : 0;
}

/* As seen by the tier behind: what is in memory is not there. */
static void zpool_tier_stat(const struct tier *tier, struct tier_stat *stat)
{
	if (!tier->next)
		return;
	stat->used -= MIN(pages_to_bytes(atomic_load(&zpool_of(tier)->held)), stat->used);
	stat->pages_in = atomic_load(&tier->next->pages_in);
	stat->pages_out = atomic_load(&tier->next->pages_out);
}

static const char *name_places(const struct zpool_tier *z, char name[32])
{
	snprintf(name, 32, "places-%u", z->number);
	return name;
}

static void zpool_tier_close(struct tier *tier)
{
	struct zpool_tier *z = zpool_of(tier);
	char name[32];

	file_unmap(z->pool->dir, name_places(z, name), z->n * sizeof(*z->places), (void *)z->places);
	z->pool->tiers[z->number] = NULL;
	free(z);
}

static const struct tier_ops zpool_ops = {
	.name = "compressed",
	.submit = zpool_submit,
	.reserve = zpool_reserve,
	.discard = zpool_discard,
	.is_short = zpool_is_short,
	.flush = zpool_flush,
	.stat = zpool_tier_stat,
	.close = zpool_tier_close,
};

int tier_zpool_open(struct zpool *pool, unsigned number, uint32_t n, struct tier *next,
		    struct tier **ret)
{
	struct zpool_tier *z = calloc(1, sizeof(*z));
	char name[32];
	void *places;
	int r;

	if (!z)
		return -ENOMEM;
	z->tier.ops = &zpool_ops;
	z->tier.next = next;
	z->pool = pool;
	z->number = (uint8_t)number;
	z->n = n;
	r = file_map_new(pool->dir, name_places(z, name), n * sizeof(*z->places), &places);
	if (r < 0) {
		free(z);
		return r;
	}
	z->places = places;
	if (next) {
		z->tier.priority = next->priority;
		memcpy(z->tier.path, next->path, sizeof(next->path));
		pool->backed = true;
	}
	pool->tiers[number] = z;
	*ret = &z->tier;
	return 0;
}

/* ---- the pool ---- */

static int worker_init(struct zpool *pool, struct zpool_worker *w,
		       const struct zpool_options *options)
{
	w->pool = pool;
	w->work.done = turn;
	STAILQ_INIT(&w->reads);
	STAILQ_INIT(&w->writes);
	zlog_init(&w->log, &pool->arena, place_of, pool);
	w->log.keep = SPARE_KEPT;
	return codec_init(&w->codec, options->algorithm, options->level) ?: drain_init(&w->drain, w);
}

int zpool_open(const struct zpool_options *options, struct zpool **ret)
{
	struct zpool *pool;
	int r;

	if (options->size < ZPOOL_SIZE_MIN || options->size > ARENA_SIZE_MAX)
		return -EINVAL;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->dir = options->dir;
	r = arena_open(&pool->arena, pool->dir, NAME, options->size);
	if (r < 0) {
		free(pool);
		return r;
	}
	pool->low = MIN(MAX(pool->arena.n / 8, 2u), 64u);
	pool->workers = calloc(options->workers, sizeof(*pool->workers));
	r = pool->workers ? 0 : -ENOMEM;
	while (r == 0 && pool->n_workers < options->workers)
		r = worker_init(pool, &pool->workers[pool->n_workers++], options);
	if (r < 0) {
		zpool_close(pool);
		return r;
	}
	*ret = pool;
	return 0;
}

void zpool_close(struct zpool *pool)
{
	if (!pool)
		return;
	for (unsigned i = 0; i < pool->n_workers; i++) {
		drain_done(&pool->workers[i].drain);
		codec_done(&pool->workers[i].codec);
	}
	free(pool->workers);
	arena_close(&pool->arena, pool->dir, NAME);
	free(pool);
}

uint32_t zpool_slots(const struct zpool *pool)
{
	uint64_t pages = bytes_to_pages((uint64_t)pool->arena.n * SEGMENT_BYTES);

	return (uint32_t)MIN(RATIO_MAX * pages, 1ull << SLOT_INDEX_BITS);
}

void zpool_stat(const struct zpool *pool, struct zpool_stat *ret)
{
	*ret = (struct zpool_stat){
		.size = (uint64_t)pool->arena.n * SEGMENT_BYTES,
		.used = (uint64_t)atomic_load(&pool->arena.used) * SEGMENT_BYTES,
		.peak = (uint64_t)atomic_load(&pool->arena.peak) * SEGMENT_BYTES,
	};
	for (unsigned i = 0; i < TIERS_MAX; i++)
		if (pool->tiers[i])
			ret->pages += atomic_load(&pool->tiers[i]->held);
	for (unsigned i = 0; i < pool->n_workers; i++) {
		const struct zpool_worker *w = &pool->workers[i];

		ret->pages_in += atomic_load(&w->pages_in);
		ret->pages_out += atomic_load(&w->pages_out);
		ret->bytes_out += atomic_load(&w->bytes_out);
		ret->written_back += atomic_load(&w->written_back);
		ret->rejected += atomic_load(&w->rejected);
		ret->errors += atomic_load(&w->errors);
	}
}
