/*
 * 2Q (Johnson and Shasha, 1994), for a pager that sees faults only.
 *
 * What comes in is on probation: a queue, a thirty-second of what is resident, that leaves in the order
 * in which it came. A scan, or a loop over more than there is memory for, passes through it and
 * leaves the rest alone. The rest is the main part. A page gets there that is asked for again within
 * `reach`; as many must leave it, by the hand, whether used or not: nobody can tell. If one of them was
 * used it comes back, mostly from standby.
 *
 * That is also how `reach` is found: so that four fifths of what the hand takes come back within it. A
 * page deserves a place if it comes back sooner than the laggards of those that have one. To know it
 * even if nobody gets in, the hand takes a run once in a while. If nothing of that comes back, the main
 * part is dead, reach grows, and at last everything gets in.
 *
 * A page of a stream costs a sixteenth to bring back, so it must come back so much sooner. bench/sim shows
 * what each of these choices is worth.
 */
#include "base/util.h"
#include "policy/refault.h"
#include "policy/victim.h"

#define SHARE   32u   /* of what is resident, one part is on probation */
#define SLACK   32u   /* and one part may be more */
#define TRY     64u   /* pages that the hand takes at a time: a run, so that they come back as one */
#define TRY_PER 8192u /* pages that leave meanwhile, half of what is resident at most; fewer, as what it
			 takes does not come back */
#define STREAM  16u   /* how much dearer a page is that comes alone */
#define NEW     4u    /* × memory: the distance of what has never left */
#define RAISE(reach) ((reach) + (reach) / 256)      /* with each page that the hand takes … */
#define LOWER(reach) ((reach) - (reach) * 5 / 1024) /* … and four that come back in time undo five */
#define NEAREST  4u   /* of memory, one part is the least that reach can be … */
#define FARTHEST 16u  /* … and so much of it the most */

static uint64_t clamp(const struct victims *v, uint64_t reach)
{
	uint64_t memory = MAX(v->memory, 64ull) << 8;

	return MIN(MAX(reach, memory / NEAREST), memory * FARTHEST);
}

/* Is the main part short? Then it takes what comes, until it is not: much at a time, so that what a
 * scan leaves behind is no stripes. */
static bool has_room(struct victims *v)
{
	if (v->queued > v->resident / SHARE + v->resident / SLACK)
		v->short_of_main = true;
	else if (v->queued <= v->resident / SHARE)
		v->short_of_main = false;
	return v->short_of_main;
}

static unsigned comes(struct victims *v, const struct victim_page *page)
{
	uint64_t distance = page->new ? v->memory * NEW : page->distance;
	bool soon;

	if (!v->reach)
		v->reach = v->memory << 8;
	if (!page->new && page->by_hand && distance << 8 <= v->reach)
		v->reach = clamp(v, LOWER(v->reach));
	if (!page->new && page->streamed)
		distance *= STREAM;
	soon = refault_activates(distance, v->reach >> 8);
	if (soon || has_room(v))
		return soon ? WORD_ACTIVE : 0;
	return WORD_YOUNG;
}

static uint64_t try_per(const struct victims *v)
{
	uint64_t pages = MIN((uint64_t)TRY_PER, v->memory / 2);

	return v->reach >> 8 > v->memory ? pages * v->memory / (v->reach >> 8) : pages;
}

static enum victim_source source(struct victims *v, uint32_t *want)
{
	uint64_t probation = v->resident / SHARE;

	if (v->leaving < try_per(v) && v->queued > probation) {
		*want = (uint32_t)MIN((uint64_t)*want, v->queued - probation);
		v->leaving += *want;
		return VICTIM_QUEUE;
	}
	*want = MIN(*want, TRY);
	v->leaving = 0;
	return VICTIM_HAND;
}

static enum victim_choice choose(word_t word, enum victim_source from, uint64_t lap)
{
	switch (word_tag(word)) {
	case WORD_NONE:
	case WORD_PRESENT:
		if (word & WORD_PINNED && lap % 8)
			return VICTIM_SKIP;
		if (from == VICTIM_HAND)
			return word & WORD_YOUNG ? VICTIM_SPARE : VICTIM_TAKE;
		/* It has left since, and come back to the main part? Zeros have no word. */
		return word == WORD_NONE || word & WORD_YOUNG ? VICTIM_TAKE : VICTIM_SKIP;
	default:
		return VICTIM_SKIP;
	}
}

/* The queue has it, or has lost it: then the hand takes it next time. */
static word_t spared(word_t word)
{
	return word & ~(word_t)WORD_YOUNG;
}

static void left(struct victims *v, enum victim_source from, uint32_t pages)
{
	while (from == VICTIM_HAND && pages--)
		v->reach = clamp(v, RAISE(v->reach));
}

const struct victim_policy victim_2q = {
	.name = "2q",
	.comes = comes,
	.source = source,
	.choose = choose,
	.spared = spared,
	.left = left,
	.queues = true,
};
