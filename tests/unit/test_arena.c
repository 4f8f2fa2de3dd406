/* tier/arena: objects against a model, density, memory given back, what is broken. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "tier/arena.h"

#define SLOTS 8192u

static struct arena arena;
static struct zlog zlog;
static _Atomic uint32_t places[SLOTS];
static uint32_t lengths[SLOTS], versions[SLOTS];
static uint64_t seed;
static int dir, file;
static char name[32];

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

static _Atomic uint32_t *place_of(void *context, const struct object *object)
{
	(void)context;
	return object->tier == 3 && object->slot < SLOTS ? &places[object->slot] : NULL;
}

static void begin(uint64_t size)
{
	snprintf(name, sizeof(name), "upager-arena-%d", getpid()); /* tests run side by side */
	dir = open("/dev/shm", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_eq(arena_open(&arena, dir, name, size), 0);
	file = openat(dir, name, O_RDONLY | O_CLOEXEC);
	cr_assert_eq(unlinkat(dir, name, 0), 0, "a test that fails shall leave nothing");
	zlog_init(&zlog, &arena, place_of, NULL);
	seed = 1;
}

static uint64_t blocks(void)
{
	struct stat st;

	cr_assert_eq(fstat(file, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void end(void)
{
	arena_close(&arena, dir, name);
	close(file);
	close(dir);
}

TestSuite(arena, .timeout = 60);

static void fill(uint32_t slot, char *bytes)
{
	uint32_t word = slot * 2654435761u + versions[slot];

	for (uint32_t i = 0; i < lengths[slot]; i++)
		bytes[i] = (char)(word >> (i % 4 * 8)) ^ (char)i;
}

static bool add(uint32_t slot, uint32_t length)
{
	char bytes[OBJECT_MAX];

	lengths[slot] = length;
	versions[slot]++;
	fill(slot, bytes);
	places[slot] = zlog_add(&zlog, 3, slot, bytes, length);
	return places[slot];
}

static void drop(uint32_t slot)
{
	uint32_t place = places[slot];

	places[slot] = 0;
	zlog_drop(&zlog, place);
}

static void check_all(void)
{
	uint64_t live = 0;
	char bytes[OBJECT_MAX];

	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		const struct object *object;

		if (!places[slot])
			continue;
		object = zlog_look(&zlog, places[slot], 3, slot);
		cr_assert(object, "slot %u", slot);
		cr_assert_eq(object->length, lengths[slot]);
		fill(slot, bytes);
		cr_assert_eq(memcmp(object->bytes, bytes, lengths[slot]), 0, "slot %u", slot);
		live += (sizeof(*object) + lengths[slot] + OBJECT_UNIT - 1) / OBJECT_UNIT * OBJECT_UNIT;
	}
	cr_assert_eq(zlog.live, live, "%lu, not %lu", zlog.live, live);
	cr_assert_eq(zlog.n_segments + zlog.n_spare + (zlog.reserve != NULL), arena.used);
}

static void drop_all(void)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		if (places[slot])
			drop(slot);
	check_all();
	zlog.keep = 0;
	zlog_trim(&zlog);
	cr_expect(arena.used <= 2, "%u", arena.used);
	cr_expect(blocks() <= 2 * SEGMENT_BYTES, "memory goes back: %lu", blocks());
}

Test(arena, against_a_model)
{
	begin(4 << 20);
	for (uint32_t i = 0; i < 400000; i++) {
		uint32_t slot = draw(SLOTS);

		if (places[slot])
			drop(slot);
		else if (!add(slot, 1 + draw(draw(4) ? 1500 : OBJECT_MAX)))
			while (zlog_wastes(&zlog, 8) && zlog_clean(&zlog))
				;
		if (draw(100) == 0)
			zlog_clean(&zlog);
		if (i % 5000 == 0)
			check_all();
	}
	check_all();
	drop_all();
	end();
}

/* A segment on the way elsewhere stays as it is; others are added to, moved and freed. */
Test(arena, held_segments)
{
	struct segment *segment;
	const struct object *object;
	uint32_t at = 0, place, n = 0;

	begin(4 << 20);
	for (uint32_t slot = 0; slot < 500; slot++)
		cr_assert(add(slot, 1000));
	segment = zlog_oldest(&zlog);
	segment->held = true;
	for (uint32_t slot = 0; slot < 500; slot += 2)
		drop(slot);
	while (zlog_oldest(&zlog) && zlog_wastes(&zlog, 8))
		cr_assert(zlog_clean(&zlog));
	check_all();
	while ((object = segment_next(segment, &at, &place))) {
		cr_assert_eq(object->slot, 2 * n + 1);
		drop(object->slot);
		n++;
	}
	cr_expect_gt(n, 20);
	cr_expect_eq(segment->objects, 0);
	cr_expect(segment->end, "it is still held");
	n = zlog.n_segments;
	segment_release(segment, false);
	cr_expect_eq(zlog.n_segments, n - 1);
	drop_all();
	end();
}

Test(arena, density)
{
	uint64_t used, added = 0;
	uint32_t slot = 0;

	begin(4 << 20);
	while (add(slot, 200 + draw(2500)))
		added += lengths[slot++];
	cr_expect(added > (uint64_t)arena.n * SEGMENT_BYTES * 95 / 100, "%lu", added);
	for (uint32_t i = 0; i < slot; i++)
		if (draw(3) == 0)
			drop(i);
	while (zlog_wastes(&zlog, 8) && zlog_clean(&zlog))
		;
	check_all();
	used = (uint64_t)zlog.n_segments * SEGMENT_BYTES;
	cr_expect(zlog.live > used * 80 / 100, "%lu of %lu", zlog.live, used);
	drop_all();
	end();
}

/* What is promised as spare is there, however long the objects are. */
Test(arena, spare)
{
	uint32_t n = 0, segments;

	begin(1 << 20);
	cr_expect(zlog_want_spare(&zlog, 10));
	cr_expect_not(zlog_want_spare(&zlog, 16), "one is the reserve");
	segments = zlog.n_spare;
	cr_expect_eq(segments, 15);
	while (add(n, OBJECT_MAX))
		n++;
	cr_expect_geq(n, segments * SEGMENT_LEAST);
	check_all();
	drop_all();
	end();
}

Test(arena, two_logs_share)
{
	struct zlog other;
	uint32_t n = 0;

	begin(1 << 20);
	zlog_init(&other, &arena, place_of, NULL);
	cr_expect(zlog_want_spare(&other, 7));
	while (add(n, 3000))
		n++;
	cr_expect_eq(arena.used, arena.n);
	cr_expect_eq(zlog.n_segments, 7, "%u", zlog.n_segments);
	other.keep = 0;
	zlog_trim(&other);
	cr_expect(add(n, 3000), "what one gives back is the other's");
	end();
}

static void consistent(int line)
{
	static uint32_t n[4096];
	memset(n, 0, sizeof(n));
	for (uint32_t s = 0; s < SLOTS; s++) if (places[s]) n[(places[s]-1)/4096]++;
	for (uint32_t i = 0; i < arena.n; i++) if (n[i] != arena.segments[i].objects) { printf("line %d seg %u has %u knows %u end %u\n", line, i, n[i], arena.segments[i].objects, arena.segments[i].end); fflush(0); abort(); }
}

Test(arena, broken_objects)
{
	begin(4 << 20);
	for (uint32_t round = 0; round < 300; round++) {
		for (uint32_t slot = 0; slot < 1000; slot++)
			if (!places[slot])
				add(slot, 1 + draw(3000)), consistent(__LINE__);
		for (uint32_t i = 0; i < 20; i++)
			arena.base[draw(arena.n * SEGMENT_BYTES)] ^= (char)(1 + draw(255));
		for (uint32_t slot = 0; slot < 1000; slot++) {
			const struct object *object =
				places[slot] ? zlog_look(&zlog, places[slot], 3, slot) : NULL;

			if (object)
				cr_assert_leq(object->length, OBJECT_MAX);
			if (places[slot] && draw(3) == 0)
				drop(slot), consistent(__LINE__);
		}
		for (uint32_t i = 0; i < 10; i++)
			zlog_clean(&zlog), consistent(__LINE__);
	}
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		if (places[slot])
			drop(slot);
	cr_expect_eq(zlog.live, 0, "%lu", zlog.live);
	cr_expect_leq(zlog.n_segments, 1);
	end();
}
