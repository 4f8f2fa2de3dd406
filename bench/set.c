#include "set.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "now.h"

#define PAGE_WORDS  (PAGE_BYTES / sizeof(uint64_t))
#define CHUNK_PAGES 16u /* neighbours in a set that is spread */

static uint64_t *page_words(const struct set *set, uint64_t page)
{
	uint64_t chunk = page / CHUNK_PAGES, within = page % CHUNK_PAGES;

	return (uint64_t *)(set->memory + chunk * set->stride + within * PAGE_BYTES);
}

static uint64_t seal(uint64_t page, uint32_t version)
{
	return mix(page ^ ((uint64_t)version << 40));
}

void set_write(struct set *set, uint64_t page)
{
	volatile uint64_t *words = page_words(set, page);
	uint32_t version = ++set->versions[page];

	words[0] = page;
	words[1] = version;
	words[PAGE_WORDS - 1] = seal(page, version);
}

/* The first few, for whoever has to find out why. */
static void complain(const struct set *set, uint64_t page)
{
	static unsigned said;
	const uint64_t *words = page_words(set, page);

	if (__atomic_fetch_add(&said, 1, __ATOMIC_RELAXED) >= 5)
		return;
	fprintf(stderr,
		"workset: page %" PRIu64 " at %p, version %" PRIu32 ": found index %" PRIu64
		", version %" PRIu64 ", seal %016" PRIx64 "\n",
		page, (const void *)words, set->versions[page], words[0], words[1],
		words[PAGE_WORDS - 1]);
}

bool set_check(const struct set *set, uint64_t page)
{
	const volatile uint64_t *words = page_words(set, page);
	uint32_t version = set->versions[page];

	if (words[0] == page && words[1] == version && words[PAGE_WORDS - 1] == seal(page, version))
		return true;
	complain(set, page);
	return false;
}

/* The words between header and seal: the same for every version. */
static uint64_t body_word(const struct set *set, uint64_t page, uint64_t i)
{
	uint64_t random = mix(set->options.seed ^ (page * PAGE_WORDS + i));

	if (set->options.fill == FILL_HEADER)
		return 0;
	/* Every third word of text is random: two to three times compressible. */
	if (set->options.fill == FILL_RANDOM || i % 3 == 0)
		return random;
	return 0x2020202020202020u + (page & 7);
}

static bool body_right(const struct set *set, uint64_t page)
{
	const uint64_t *words = page_words(set, page);

	for (uint64_t i = 2; i < PAGE_WORDS - 1; i++)
		if (words[i] != body_word(set, page, i)) {
			complain(set, page);
			return false;
		}
	return true;
}

uint64_t set_check_all(const struct set *set)
{
	uint64_t wrong = 0;

	for (uint64_t page = 0; page < set->pages; page++)
		wrong += !set_check(set, page) || !body_right(set, page);
	return wrong;
}

static void *map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Every other piece gets a flag of its own, so that no two neighbours can be one mapping. */
static int split(struct set *set, uint64_t length)
{
	uint64_t piece = length / set->options.vmas & ~(uint64_t)(PAGE_BYTES - 1);

	for (uint64_t i = 1; i < set->options.vmas; i += 2)
		if (madvise(set->memory + i * piece, piece, MADV_DONTDUMP))
			return -errno;
	return 0;
}

int set_new(const struct set_options *options, struct set *ret)
{
	struct set set = {.options = *options, .pages = options->size / PAGE_BYTES};
	uint64_t chunks = (set.pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
	uint64_t length;
	int r;

	set.stride = CHUNK_PAGES * PAGE_BYTES;
	if (options->spread > chunks * set.stride)
		set.stride = options->spread / chunks & ~(uint64_t)(PAGE_BYTES - 1);
	length = chunks * set.stride;
	set.memory = map(length);
	set.versions = map(set.pages * sizeof(*set.versions));
	if (!set.memory || !set.versions)
		return -ENOMEM;
	r = options->vmas > 1 ? split(&set, length) : 0;
	if (r < 0)
		return r;
	for (uint64_t page = 0; page < set.pages; page++) {
		set_write(&set, page);
		for (uint64_t i = 2; options->fill != FILL_HEADER && i < PAGE_WORDS - 1; i++)
			page_words(&set, page)[i] = body_word(&set, page, i);
	}
	*ret = set;
	return 0;
}
