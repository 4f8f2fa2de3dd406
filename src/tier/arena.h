/*
 * Memory for compressed pages: a file of the state directory, in segments of 64 KiB, and logs of
 * objects in them.
 *
 * A log belongs to one worker. Objects are added at its end, so that their order is their age, and
 * what left together lies together. What is dropped leaves a hole; zlog_clean() moves what lives of
 * the oldest segment to the end. Segments are shared: a compare-and-swap takes one, and whoever has
 * taken it owns it until he gives it back.
 *
 * An object's place is kept by the caller, where place_of() finds it: an object lives as long as
 * that is where it is. A dead one may name a slot that is another worker's by now, so places are
 * atomic. Nothing that is read from the memory is believed: a broken object reads as none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define SEGMENT_BYTES  (64u << 10)
#define OBJECT_UNIT    16u                 /* bytes; places count these, from 1 */
#define OBJECT_MAX     4096u               /* bytes of an object */
#define SEGMENT_LEAST  14u                 /* objects that fit into a segment at least */
#define ARENA_SIZE_MAX (64ull << 30)
#define PLACE_MAX      (uint32_t)(ARENA_SIZE_MAX / OBJECT_UNIT)

struct object {
	uint32_t slot;
	uint16_t length;
	uint8_t tier, unused;
	char bytes[];
};

struct zlog;

struct segment {
	TAILQ_ENTRY(segment) link;
	struct zlog *log;
	uint32_t end;     /* bytes in use from its beginning */
	uint32_t live;    /* bytes of objects that live */
	uint32_t objects; /* that live */
	bool held;        /* must stay as it is */
};

TAILQ_HEAD(segments, segment);

struct arena {
	char *base;
	uint32_t n; /* segments */
	struct segment *segments;
	_Atomic uint8_t *taken;
	_Atomic uint32_t used, peak, cursor;
};

struct zlog {
	struct arena *arena;
	_Atomic uint32_t *(*place_of)(void *context, const struct object *object); /* NULL: nowhere */
	void *context;
	struct segments segments; /* oldest first; the last one takes what is added */
	struct segments spare;    /* empty, with memory */
	struct segment *reserve;  /* empty; zlog_clean()'s alone, which otherwise might not get on */
	uint32_t n_segments, n_spare;
	uint32_t keep;            /* how many may be spare */
	uint64_t live;            /* bytes of objects that live */
	bool refused;             /* the system had no memory for the last segment asked for */
};

/* Makes the file `name`, of at most `size` bytes, in directory dir_fd. */
int arena_open(struct arena *arena, int dir_fd, const char *name, uint64_t size);
void arena_close(struct arena *arena, int dir_fd, const char *name);
/* Segments that nobody has taken. */
uint32_t arena_free(const struct arena *arena);

void zlog_init(struct zlog *log, struct arena *arena,
	      _Atomic uint32_t *(*place_of)(void *context, const struct object *object), void *context);
/* => its place, or 0: there is no room. length: 1 … OBJECT_MAX. */
uint32_t zlog_add(struct zlog *log, uint8_t tier, uint32_t slot, const void *bytes, uint32_t length);
/* => its place says something else by now. Memory that is no longer needed is given back. */
void zlog_drop(struct zlog *log, uint32_t place);
/* The object of a slot, or NULL: what is there is none. */
const struct object *zlog_look(const struct zlog *log, uint32_t place, uint8_t tier, uint32_t slot);

/* Moves what lives of the oldest segment, which becomes free. false: it can't, or there is none. */
bool zlog_clean(struct zlog *log);
/* Is more than one part in `part` of its memory dead? */
bool zlog_wastes(const struct zlog *log, unsigned part);
/* Takes segments until so many are spare; false: there are not so many. */
bool zlog_want_spare(struct zlog *log, uint32_t n);
/* Gives spare segments back beyond what it may keep. */
void zlog_trim(struct zlog *log);

/* The oldest segment that can be cleaned: neither held nor the one that is added to. NULL: none. */
struct segment *zlog_oldest(const struct zlog *log);
/* The next object of the segment that lives, from *at on (0 to begin with); NULL: none. */
const struct object *segment_next(const struct segment *segment, uint32_t *at, uint32_t *ret_place);
/* Lets go of one that was held. again: its turn comes when the others have had theirs. */
void segment_release(struct segment *segment, bool again);
