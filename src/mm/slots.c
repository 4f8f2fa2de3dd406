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

int slots_init(struct slots *slots, int dir_fd, const char *name, unsigned tier, uint32_t n)
{
	struct slots new = {.n = n, .tier = (uint8_t)tier};
	void *memory;
	int r = file_map_new(dir_fd, name, (size_t)n * sizeof(*new.records), &memory);

	if (r < 0)
		return r;
	new.records = memory;
	*slots = new;
	return 0;
}

void slots_done(struct slots *slots, int dir_fd, const char *name)
{
	file_unmap(dir_fd, name, (size_t)slots->n * sizeof(*slots->records), slots->records);
	slots->records = NULL;
}

#define TURN_MIN 16384u /* slots: 64 MiB */

static bool take(struct slots *slots, uint32_t index)
{
	struct slot_record *record = &slots->records[index];
	uint32_t free_count = 0;

	return !record->bad && !atomic_load(&record->count) && atomic_compare_exchange_strong(&record->count, &free_count, 1);
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
	if (n)
		atomic_store(&slots->cursor, *ret_first + n);
	atomic_fetch_add(&slots->used, n);
	return n;
}

void slot_get(struct slots *slots, uint32_t index)
{
	uint32_t before = atomic_fetch_add(&slots->records[index].count, 1);

	assert(before > 0);
	(void)before;
}

bool slot_put(struct slots *slots, uint32_t index)
{
	struct slot_record *record = &slots->records[index];
	uint32_t count = atomic_load(&record->count);

	/* Only one worker counts a slot that is in use; others merely look for free ones. So the
	 * generation goes first, and the slot is freed last. */
	assert(count > 0);
	if (count == 1) {
		record->gen++;
		atomic_store(&record->writing, 0);
	}
	atomic_store(&record->count, count - 1);
	if (count > 1)
		return false;
	atomic_fetch_sub(&slots->used, 1);
	return true;
}

struct slot_sum slot_sum_of(const void *page)
{
	XXH128_hash_t hash = XXH3_128bits(page, PAGE_SIZE);

	return (struct slot_sum){.low = hash.low64, .high = hash.high64};
}

bool slot_sum_equal(struct slot_sum a, struct slot_sum b)
{
	return a.low == b.low && a.high == b.high;
}
