#include "mm/word.h"

#define TO(tag) (1u << WORD_##tag)

bool word_may_become(enum word_tag from, enum word_tag to)
{
	static const unsigned legal[WORD_TAGS] = {
		/* REMAP, FORK and limbo bring resting pages to an address that had none. */
		[WORD_NONE] = TO(NONE) | TO(PRESENT) | TO(EVICTING) | TO(STANDBY) | TO(SWAP) |
			      TO(POISON),
		[WORD_PRESENT] = TO(NONE) | TO(PRESENT) | TO(EVICTING) | TO(STANDBY) | TO(SWAP) |
				 TO(POISON),
		/* Moved: STANDBY, or SWAP if same-filled; refused or put back: PRESENT. */
		[WORD_EVICTING] = TO(NONE) | TO(PRESENT) | TO(EVICTING) | TO(STANDBY) | TO(SWAP),
		[WORD_STANDBY] = TO(NONE) | TO(PRESENT) | TO(STANDBY) | TO(SWAP),
		[WORD_SWAP] = TO(NONE) | TO(PRESENT) | TO(SWAP) | TO(FILLING) | TO(POISON),
		/* Read in vain (the marker went, no memory): back to SWAP or NONE. */
		[WORD_FILLING] = TO(NONE) | TO(PRESENT) | TO(SWAP) | TO(POISON),
		[WORD_POISON] = TO(NONE) | TO(PRESENT) | TO(POISON),
	};

	return legal[from] & 1u << to;
}

const char *word_tag_name(enum word_tag tag)
{
	static const char *const names[WORD_TAGS] = {"NONE", "PRESENT", "EVICTING", "STANDBY",
						     "SWAP", "FILLING", "POISON"};

	return tag < WORD_TAGS ? names[tag] : "?";
}
