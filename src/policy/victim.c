#include "policy/victim.h"

enum victim_choice victim_choose(word_t word, uint64_t lap)
{
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

word_t victim_spared(word_t word)
{
	return word & ~(word_t)(word & WORD_YOUNG ? WORD_YOUNG : WORD_ACTIVE);
}

uint64_t victim_weight(uint64_t resident_pages, uint64_t refaults)
{
	return resident_pages * 64 / (64 + refaults);
}
