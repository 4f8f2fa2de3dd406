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

#define TURN_MIN 16384u /* slots: 64 MiB */

static size_t file_size(const struct slots *slots)
{
	return PAGE_SIZE + (size_t)slots->n * sizeof(*slots->records);
}

int slots_init(struct slots *slots, int dir_fd, const char *name, unsigned tier, uint32_t n,
	       uint64_t seed)
{
	struct slots new = {.n = n, .tier = (uint8_t)tier};
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

/* Next fit: the cursor walks through the tier like the head of a log, so that what is evicted
 * together lies together. It turns round where there is as much free behind it as is used: to go on would
 * cost records, and the disk's blocks, for slots that nobody needs. */
uint32_t slots_take(struct slots *slots, uint32_t want, uint32_t *ret_first)
{
	uint32_t at = atomic_load(&slots->cursor), used = atomic_load(&slots->used), n = 0;
	uint32_t turn = (uint32_t)MIN(2ull * used + TURN_MIN, slots->n);

	if (used >= slots->n)
		return 0;
	for (uint32_t looked = 0; looked < slots->n && !n; looked++, at++) {
		if (at >= (looked < turn ? turn : slots->n))
			at = 0;
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
