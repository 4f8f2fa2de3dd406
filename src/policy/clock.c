/*
 * A clock: what came in since the hand last passed is spared once; what was asked for again before
 * as much had left as is resident (the kernel's mm/workingset.c), twice.
 */
#include "policy/refault.h"
#include "policy/victim.h"

static unsigned comes(struct victims *v, const struct victim_page *page)
{
	bool active = page->asked && refault_activates(page->distance, v->memory);

	return active ? WORD_YOUNG | WORD_ACTIVE : WORD_YOUNG;
}

static enum victim_source source(struct victims *v, uint32_t *want)
{
	(void)v;
	(void)want;
	return VICTIM_HAND;
}

static enum victim_choice choose(word_t word, enum victim_source from, uint64_t lap)
{
	(void)from;
	switch (word_tag(word)) {
	case WORD_NONE:
	case WORD_PRESENT:
		if (word & (WORD_YOUNG | WORD_ACTIVE))
			return VICTIM_SPARE;
		if (word & WORD_PINNED && lap % 8)
			return VICTIM_SKIP;
		return VICTIM_TAKE;
	default:
		return VICTIM_SKIP;
	}
}

static word_t spared(word_t word)
{
	return word & ~(word_t)(word & WORD_YOUNG ? WORD_YOUNG : WORD_ACTIVE);
}

static void left(struct victims *v, enum victim_source from, uint32_t pages)
{
	(void)v;
	(void)from;
	(void)pages;
}

const struct victim_policy victim_clock = {
	.name = "clock",
	.comes = comes,
	.source = source,
	.choose = choose,
	.spared = spared,
	.left = left,
};
