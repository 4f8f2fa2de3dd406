#include "tier/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "sys/files.h"

#define SPARE_KEPT 8u /* memory that is about to be needed again */

/* ---- segments ---- */

static uint64_t size_of(const struct arena *arena)
{
	return (uint64_t)arena->n * SEGMENT_BYTES;
}

int arena_open(struct arena *arena, int dir_fd, const char *name, uint64_t size)
{
	void *memory = NULL;
	int r;

	*arena = (struct arena){.n = (uint32_t)(size / SEGMENT_BYTES)};
	r = file_map_new(dir_fd, name, size_of(arena), &memory);
	if (r < 0)
		return r;
	arena->base = memory;
	arena->segments = calloc(arena->n, sizeof(*arena->segments));
	arena->taken = calloc(arena->n, sizeof(*arena->taken));
	if (arena->segments && arena->taken)
		return 0;
	arena_close(arena, dir_fd, name);
	return -ENOMEM;
}

void arena_close(struct arena *arena, int dir_fd, const char *name)
{
	file_unmap(dir_fd, name, size_of(arena), arena->base);
	free(arena->segments);
	free((void *)arena->taken);
	*arena = (struct arena){0};
}

uint32_t arena_free(const struct arena *arena)
{
	return arena->n - atomic_load(&arena->used);
}

static char *memory_of(const struct arena *arena, const struct segment *segment)
{
	return arena->base + (uint64_t)(segment - arena->segments) * SEGMENT_BYTES;
}

/* Its memory is there afterwards: a page that the system can't give would be a SIGBUS later. */
static struct segment *segment_take(struct zlog *log)
{
	struct arena *arena = log->arena;
	uint32_t at = atomic_load(&arena->cursor), looked = 0;
	uint8_t none = 0;
	struct segment *segment;

	if (!arena_free(arena))
		return NULL;
	for (;; at++, looked++, none = 0) {
		if (looked == arena->n)
			return NULL;
		at = at < arena->n ? at : 0;
		if (!atomic_load(&arena->taken[at]) &&
		    atomic_compare_exchange_strong(&arena->taken[at], &none, 1))
			break;
	}
	atomic_store(&arena->cursor, at + 1);
	segment = &arena->segments[at];
	log->refused = madvise(memory_of(arena, segment), SEGMENT_BYTES, MADV_POPULATE_WRITE);
	if (log->refused) {
		/* What it did get goes back, too. */
		madvise(memory_of(arena, segment), SEGMENT_BYTES, MADV_REMOVE);
		atomic_store(&arena->taken[at], 0);
		return NULL;
	}
	at = atomic_fetch_add(&arena->used, 1) + 1;
	if (at > atomic_load(&arena->peak)) /* of two that are the first, one may be forgotten */
		atomic_store(&arena->peak, at);
	*segment = (struct segment){.log = log};
	return segment;
}

static void segment_give(struct arena *arena, struct segment *segment)
{
	madvise(memory_of(arena, segment), SEGMENT_BYTES, MADV_REMOVE);
	atomic_fetch_sub(&arena->used, 1);
	atomic_store(&arena->taken[segment - arena->segments], 0); /* another's, from now on */
}

/* It is empty: it becomes whatever is wanted most. */
static void segment_empty(struct zlog *log, struct segment *segment)
{
	segment->end = segment->live = segment->objects = 0;
	if (!log->reserve) {
		log->reserve = segment;
	} else if (log->n_spare < log->keep) {
		TAILQ_INSERT_HEAD(&log->spare, segment, link);
		log->n_spare++;
	} else {
		segment_give(log->arena, segment);
	}
}

/* ---- objects ---- */

static uint32_t object_size(uint32_t length)
{
	return (uint32_t)(sizeof(struct object) + length + OBJECT_UNIT - 1) / OBJECT_UNIT *
	       OBJECT_UNIT;
}

static struct object *object_at(const struct arena *arena, uint32_t place)
{
	return (struct object *)(arena->base + (uint64_t)(place - 1) * OBJECT_UNIT);
}

static struct segment *segment_of(const struct arena *arena, uint32_t place)
{
	return &arena->segments[(place - 1) / (SEGMENT_BYTES / OBJECT_UNIT)];
}

/* Could there be an object so far from the beginning of the segment? */
static bool object_fits(const struct segment *segment, const struct object *object, uint64_t at)
{
	uint32_t length = object->length;

	return length && length <= OBJECT_MAX && at + object_size(length) <= segment->end;
}

const struct object *zlog_look(const struct zlog *log, uint32_t place, uint8_t tier, uint32_t slot)
{
	const struct object *object = object_at(log->arena, place);
	const struct segment *segment = segment_of(log->arena, place);
	uint64_t at = (uint64_t)((const char *)object - memory_of(log->arena, segment));

	if (object->tier != tier || object->slot != slot || !object_fits(segment, object, at))
		return NULL;
	return object;
}

const struct object *segment_next(const struct segment *segment, uint32_t *at, uint32_t *ret_place)
{
	const struct zlog *log = segment->log;
	char *memory = memory_of(log->arena, segment);

	while (*at + sizeof(struct object) <= segment->end) {
		const struct object *object = (const void *)(memory + *at);
		uint32_t place = (uint32_t)((memory + *at - log->arena->base) / OBJECT_UNIT) + 1;
		const _Atomic uint32_t *known = log->place_of(log->context, object);

		if (!object_fits(segment, object, *at))
			break;
		*at += object_size(object->length);
		if (known && atomic_load(known) == place) {
			*ret_place = place;
			return object;
		}
	}
	return NULL;
}

/* ---- the log ---- */

void zlog_init(struct zlog *log, struct arena *arena,
	      _Atomic uint32_t *(*place_of)(void *context, const struct object *object), void *context)
{
	*log = (struct zlog){.arena = arena, .place_of = place_of, .context = context,
			    .keep = SPARE_KEPT};
	TAILQ_INIT(&log->segments);
	TAILQ_INIT(&log->spare);
}

static struct segment *open_segment(const struct zlog *log)
{
	return TAILQ_LAST(&log->segments, segments);
}

bool zlog_want_spare(struct zlog *log, uint32_t n)
{
	if (!log->reserve)
		log->reserve = segment_take(log);
	while (log->reserve && log->n_spare < n) {
		struct segment *segment = segment_take(log);

		if (!segment)
			return false;
		TAILQ_INSERT_TAIL(&log->spare, segment, link);
		log->n_spare++;
	}
	return log->n_spare >= n;
}

void zlog_trim(struct zlog *log)
{
	while (log->n_spare > log->keep) {
		struct segment *segment = TAILQ_FIRST(&log->spare);

		TAILQ_REMOVE(&log->spare, segment, link);
		log->n_spare--;
		segment_give(log->arena, segment);
	}
}

/* Begins a new one at the end. cleaning: the reserve may be used, too. */
static struct segment *extend(struct zlog *log, bool cleaning)
{
	struct segment *segment;

	if (zlog_want_spare(log, 1)) {
		segment = TAILQ_FIRST(&log->spare);
		TAILQ_REMOVE(&log->spare, segment, link);
		log->n_spare--;
	} else if (cleaning && log->reserve) {
		segment = log->reserve;
		log->reserve = NULL;
	} else {
		return NULL;
	}
	TAILQ_INSERT_TAIL(&log->segments, segment, link);
	log->n_segments++;
	return segment;
}

static uint32_t add(struct zlog *log, uint8_t tier, uint32_t slot, const void *bytes,
		    uint32_t length, bool cleaning)
{
	struct segment *segment = open_segment(log);
	uint32_t size = object_size(length), at;
	struct object *object;

	if (!segment || segment->held || segment->end + size > SEGMENT_BYTES)
		segment = extend(log, cleaning);
	if (!segment)
		return 0;
	at = segment->end;
	object = (struct object *)(memory_of(log->arena, segment) + at);
	*object = (struct object){.slot = slot, .length = (uint16_t)length, .tier = tier};
	memcpy(object->bytes, bytes, length);
	segment->end += size;
	segment->live += size;
	segment->objects++;
	log->live += size;
	return (uint32_t)(((char *)object - log->arena->base) / OBJECT_UNIT) + 1;
}

uint32_t zlog_add(struct zlog *log, uint8_t tier, uint32_t slot, const void *bytes, uint32_t length)
{
	assert(length && length <= OBJECT_MAX);
	return add(log, tier, slot, bytes, length, false);
}

/* Is it of no more use where it is? */
static void retire(struct zlog *log, struct segment *segment)
{
	if (segment->objects || segment->held)
		return;
	log->live -= segment->live; /* of broken ones */
	segment->live = 0;
	if (segment == open_segment(log)) {
		segment->end = 0;
		return;
	}
	TAILQ_REMOVE(&log->segments, segment, link);
	log->n_segments--;
	segment_empty(log, segment);
}

void zlog_drop(struct zlog *log, uint32_t place)
{
	const struct object *object = object_at(log->arena, place);
	struct segment *segment = segment_of(log->arena, place);
	uint32_t size = MIN(object_size(object->length), segment->live);

	assert(segment->log == log && segment->objects);
	segment->live -= size;
	segment->objects--;
	log->live -= size;
	retire(log, segment);
}

struct segment *zlog_oldest(const struct zlog *log)
{
	struct segment *segment;

	TAILQ_FOREACH(segment, &log->segments, link)
		if (!segment->held)
			return segment == open_segment(log) ? NULL : segment;
	return NULL;
}

bool zlog_clean(struct zlog *log)
{
	struct segment *segment = zlog_oldest(log);
	const struct object *object;
	uint32_t at = 0, place;

	if (!segment)
		return false;
	segment->held = true; /* until the last has gone */
	while ((object = segment_next(segment, &at, &place))) {
		uint32_t moved = add(log, object->tier, object->slot, object->bytes,
				     object->length, true);

		if (!moved)
			break;
		atomic_store(log->place_of(log->context, object), moved);
		zlog_drop(log, place);
	}
	at = segment->objects;
	segment_release(segment, true);
	return !at;
}

void segment_release(struct segment *segment, bool again)
{
	struct zlog *log = segment->log;
	struct segment *open = open_segment(log);

	segment->held = false;
	if (again && segment->objects && segment != open) {
		TAILQ_REMOVE(&log->segments, segment, link);
		TAILQ_INSERT_BEFORE(open, segment, link);
	}
	retire(log, segment);
}

bool zlog_wastes(const struct zlog *log, unsigned part)
{
	const struct segment *open = open_segment(log);
	uint64_t held = (uint64_t)log->n_segments * SEGMENT_BYTES;
	uint64_t room = open ? SEGMENT_BYTES - open->end : 0;

	return held - log->live - room > held / part + 2 * SEGMENT_BYTES;
}
