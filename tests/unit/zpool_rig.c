#include "zpool_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct uring uring;
struct zpool *pool;
struct tier *tier, behind;
char *buffer;
unsigned n_waiting, fails;
uint8_t written[SLOTS];

static int dir;
static char *disk;
static uint64_t seed;
static struct tier_ios waiting;

uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

/* ---- the tier behind ---- */

static int behind_submit(struct tier *self, struct tier_io *io)
{
	(void)self;
	for (uint32_t i = 0; io->write && i < io->n; i++)
		cr_assert_eq(written[io->slot + i]++, 0, "slot %u is being written", io->slot + i);
	STAILQ_INSERT_TAIL(&waiting, io, link);
	n_waiting++;
	return 0;
}

void behind_serve(unsigned n)
{
	while (n-- && n_waiting) {
		struct tier_io *io = STAILQ_FIRST(&waiting);
		char *at = disk + pages_to_bytes(io->slot);
		int error = io->write && fails ? -EIO : 0;

		STAILQ_REMOVE_HEAD(&waiting, link);
		n_waiting--;
		fails -= error != 0;
		for (uint32_t i = 0; io->write && i < io->n; i++)
			written[io->slot + i]--;
		if (!error && io->write)
			memcpy(at, io->buffer, pages_to_bytes(io->n));
		else if (!error)
			memcpy(io->buffer, at, pages_to_bytes(io->n));
		io->finished(io, error);
	}
}

static void behind_close(struct tier *self)
{
	(void)self;
}

static const struct tier_ops behind_ops = {.submit = behind_submit, .close = behind_close};

/* ---- a pool ---- */

struct zpool_options rig_options(uint64_t size)
{
	return (struct zpool_options){.size = size, .workers = 1, .dir = dir};
}

void begin_with(uint64_t size, bool backed, enum codec_kind algorithm)
{
	struct zpool_options options = rig_options(size);
	uint32_t n = SLOTS;

	options.algorithm = algorithm;
	cr_assert_eq(zpool_open(&options, &pool), 0);
	if (!backed)
		n = MIN(SLOTS, zpool_slots(pool));
	cr_assert_eq(tier_zpool_open(pool, 2, n, backed ? &behind : NULL, &tier), 0);
	cr_assert_eq(slots_init(&tier->slots, dir, "slots", 2, n, 7), 0);
}

static char folder[] = "/dev/shm/upager-zpool-XXXXXX";

void rig_begin(void)
{
	cr_assert(mkdtemp(folder));
	dir = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_eq(uring_init(&uring, 16, 1), 0);
	cr_assert_eq(posix_memalign((void **)&buffer, PAGE_SIZE, pages_to_bytes(PAGES)), 0);
	disk = calloc(SLOTS, PAGE_SIZE);
	behind.ops = &behind_ops;
	STAILQ_INIT(&waiting);
	seed = 1;
}

void rig_end(void)
{
	slots_done(&tier->slots, dir, "slots");
	tier_close(tier);
	zpool_close(pool);
	free(buffer);
	free(disk);
	uring_done(&uring);
	close(dir);
	cr_expect_eq(rmdir(folder), 0, "something was left");
}

static void finished(struct tier_io *io, int error)
{
	struct transfer *transfer = container_of(io, struct transfer, io);

	transfer->result = error;
	transfer->ended++;
}

void begin_transfer(struct transfer *t, bool write, uint32_t slot, uint32_t n, char *at)
{
	*t = (struct transfer){.io = {.uring = &uring, .buffer = at, .buffer_index = -1,
				      .slot = slot, .n = n, .write = write, .finished = finished}};
	tier_submit(tier, &t->io);
	cr_assert_not(t->ended, "not before tier_submit() has returned");
}

void settle_all(void)
{
	for (unsigned i = 0; i < 100 || n_waiting || !STAILQ_EMPTY(&uring.posted); i++) {
		uring_run_posted(&uring);
		behind_serve(1);
	}
}

int transfer_with(bool write, uint32_t slot, uint32_t n, uint32_t *ret_compressed)
{
	struct transfer t;

	begin_transfer(&t, write, slot, n, buffer);
	while (!t.ended) {
		uring_run_posted(&uring);
		behind_serve(1);
	}
	cr_assert_eq(t.ended, 1);
	*ret_compressed = t.io.compressed;
	return t.result;
}

int transfer(bool write, uint32_t slot, uint32_t n)
{
	uint32_t compressed;

	return transfer_with(write, slot, n, &compressed);
}

/* Takes all slots up to n: each counted once. */
void take(uint32_t n)
{
	for (uint32_t taken = 0, first; taken < n;) {
		uint32_t got = tier_take(tier, &uring, n - taken, &first);

		cr_assert(got);
		taken += got;
	}
}

void make_page(char *page, uint32_t slot, uint32_t version, enum kind kind)
{
	uint64_t x = slot * 0x9e3779b97f4a7c15u + version;

	for (unsigned i = 0; i < PAGE_SIZE / 8; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		((uint64_t *)page)[i] = kind == NOISE || i % 4 == 0 ? x ^ x >> 29 : slot;
	}
}

void make_pages(uint32_t slot, uint32_t n, uint32_t version, enum kind kind)
{
	for (uint32_t i = 0; i < n; i++)
		make_page(buffer + pages_to_bytes(i), slot + i, version,
			  kind == KINDS ? (slot + i) / 3 % 2 : kind);
}

void check_pages(uint32_t slot, uint32_t n, uint32_t version, enum kind kind)
{
	char page[PAGE_SIZE];

	for (uint32_t i = 0; i < n; i++) {
		make_page(page, slot + i, version, kind == KINDS ? (slot + i) / 3 % 2 : kind);
		cr_assert_eq(memcmp(page, buffer + pages_to_bytes(i), PAGE_SIZE), 0, "slot %u",
			     slot + i);
	}
}

uint32_t place_now(uint32_t slot)
{
	return container_of(tier, struct zpool_tier, tier)->places[slot];
}

struct zpool_stat stat_now(void)
{
	struct zpool_stat stat;

	zpool_stat(pool, &stat);
	return stat;
}
