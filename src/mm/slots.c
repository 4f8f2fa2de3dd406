#include "mm/slots.h"

#include <assert.h>

#if HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h> /* AVX2 or AVX-512 where the processor has it */
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#include "base/util.h"
#include "sys/files.h"

#define SPARE_MIN   2048u /* slots: 8 MiB */
#define SPARE_LEAST 8u    /* parts in use for one that is spare … */
#define SPARE_MOST  2u    /* … and where holes are short: a page costs a record and a half */
#define SHORT       16u   /* slots of a run */

static size_t file_size(const struct slots *slots)
{
	return PAGE_SIZE + (size_t)slots->n * sizeof(*slots->records);
}

int slots_init(struct slots *slots, int dir_fd, const char *name, unsigned tier, uint32_t n,
	       uint64_t seed)
{
	struct slots new = {.n = n, .tier = (uint8_t)tier, .spare = SPARE_LEAST};
	void *memory;
	int r = file_map_new(dir_fd, name, file_size(&new), &memory);

	if (r < 0)
		return r;
	new.header = memory;
	new.records = (struct slot_record *)((char *)memory + PAGE_SIZE);
	*new.header = (struct slots_header){
		.magic = SLOTS_MAGIC, .version = SLOTS_VERSION, .n = n, .seed = seed};
	*slots = new;
	return 0;
}

void slots_done(struct slots *slots, int dir_fd, const char *name)
{
	file_unmap(dir_fd, name, file_size(slots), slots->header);
	slots->header = NULL;
	slots->records = NULL;
}

/* ---- which ---- */

static bool take(struct slots *slots, uint32_t index)
{
	_Atomic uint32_t *state = &slots->records[index].state;
	uint32_t before = atomic_load(state);

	return !(before & (SLOT_COUNT | SLOT_BAD)) &&
	       atomic_compare_exchange_strong(state, &before, before + 1);
}

/* Where does the cursor turn round? Every slot that it comes to costs a record, and blocks of the disk. But
 * the more are free, the longer are the holes, and so the writes. */
static uint32_t turn_at(const struct slots *slots, uint32_t used)
{
	uint64_t end = (uint64_t)used + used / atomic_load(&slots->spare) + SPARE_MIN;

	return (uint32_t)MIN(end, slots->n);
}

/* It has. Pages that left in order free their slots in order, and leave long holes even if few are free;
 * others ask for more. */
static void turned(struct slots *slots)
{
	uint32_t taken = atomic_exchange(&slots->taken, 0), runs = atomic_exchange(&slots->runs, 0);
	uint32_t spare = atomic_load(&slots->spare);

	spare = taken < runs * (uint64_t)SHORT ? spare / 2 : spare * 2;
	atomic_store(&slots->spare, MIN(MAX(spare, SPARE_MOST), SPARE_LEAST));
}

/* Next fit: the cursor walks through the tier like the head of a log, so that what is evicted
 * together lies together. */
uint32_t slots_take(struct slots *slots, uint32_t want, uint32_t *ret_first)
{
	uint32_t at = atomic_load(&slots->cursor), used = atomic_load(&slots->used), n = 0;
	uint32_t turn = turn_at(slots, used);

	if (used >= slots->n)
		return 0;
	for (uint32_t looked = 0; looked < slots->n && !n; looked++, at++) {
		if (at >= (looked < turn ? turn : slots->n)) {
			at = 0;
			turned(slots);
		}
		if (!take(slots, at))
			continue;
		*ret_first = at;
		for (n = 1; n < want && at + n < slots->n && take(slots, at + n);)
			n++;
	}
	if (!n)
		return 0;
	atomic_store(&slots->cursor, *ret_first + n);
	atomic_fetch_add(&slots->used, n);
	atomic_fetch_add(&slots->taken, n);
	atomic_fetch_add(&slots->runs, n < want);
	return n;
}

/* ---- one of them ---- */

void slot_get(struct slots *slots, uint32_t index)
{
	_Atomic uint32_t *state = &slots->records[index].state;
	uint32_t before = atomic_load(state), count = before & SLOT_COUNT;

	assert(count > 0);
	if (count < SLOT_COUNT)
		atomic_store(state, before + 1);
}

bool slot_put(struct slots *slots, uint32_t index)
{
	_Atomic uint32_t *state = &slots->records[index].state;
	uint32_t before = atomic_load(state), count = before & SLOT_COUNT;

	assert(count > 0);
	if (count == SLOT_COUNT)
		return false;
	if (count > 1) {
		atomic_store(state, before - 1);
		return false;
	}
	/* From here on it may be another worker's. */
	atomic_store(state, (before & SLOT_BAD) | ((before >> SLOT_GEN_SHIFT) + 1) << SLOT_GEN_SHIFT);
	atomic_fetch_sub(&slots->used, 1);
	return true;
}

void slot_mark(struct slots *slots, uint32_t index, enum slot_state flag, bool on)
{
	_Atomic uint32_t *state = &slots->records[index].state;
	uint32_t before = atomic_load(state);

	atomic_store(state, on ? before | flag : before & ~(uint32_t)flag);
}

uint64_t slot_sum(const struct slots *slots, const void *page)
{
	return XXH3_64bits_withSeed(page, PAGE_SIZE, slots->header->seed);
}
