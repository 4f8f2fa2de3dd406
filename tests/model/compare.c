/* What was seen, held against what is expected. */
#include <stdio.h>

#include "step.h"

static unsigned names(uint32_t mask, char *text, unsigned size)
{
	unsigned n = 0;

	for (unsigned i = 0; i < STATES; i++)
		if (mask & 1u << i && n < size)
			n += (unsigned)snprintf(text + n, size - n, "%s%s", n ? "|" : "",
						state_name(i));
	return n;
}

static bool came_in(enum page_state before, enum page_state after)
{
	return IS(before, EMPTY | EVICTED | BIT(ORPHAN)) &&
	       IS(after, RESIDENT | BIT(ZERO) | BIT(ZERO_WP));
}

static const char *compare_states(const struct model *m, const struct expected *e,
				  const struct seen before[PROCESSES],
				  const struct seen after[PROCESSES], char text[256])
{
	char allowed[128] = "";

	for (unsigned p = 0; p < PROCESSES; p++) {
		for (uint32_t i = 0; m->alive[p] && i < ARENA_PAGES; i++) {
			if (IS(after[p].page[i].state, e->states[p][i]))
				continue;
			names(e->states[p][i], allowed, sizeof(allowed));
			snprintf(text, 256, "process %u, page %u: %s → %s, expected %s", p, i,
				 state_name(before[p].page[i].state),
				 state_name(after[p].page[i].state), allowed);
			return text;
		}
	}
	return NULL;
}

static const char *compare_outcomes(const struct expected *e, const struct seen *before,
				    const struct seen *after, char text[256])
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < OUTCOMES; i++) {
		uint64_t delta = after->outcome[i] - before->outcome[i];

		sum += delta;
		if (delta >= e->least[i] && delta <= e->most[i])
			continue;
		snprintf(text, 256, "%s moved by %llu, expected %llu to %llu", outcome_names[i],
			 (unsigned long long)delta, (unsigned long long)e->least[i],
			 (unsigned long long)e->most[i]);
		return text;
	}
	if (sum == after->messages - before->messages)
		return NULL;
	snprintf(text, 256, "%llu messages, but %llu outcomes",
		 (unsigned long long)(after->messages - before->messages), (unsigned long long)sum);
	return text;
}

static const char *compare_fills(const struct seen *before, const struct seen *after,
				 char text[256])
{
	uint64_t came = 0, hidden = 0, said = after->readahead - before->readahead;

	for (uint32_t i = 0; i < ARENA_PAGES; i++) {
		const struct seen_page *seen = &before->page[i];

		came += seen->registered && came_in(seen->state, after->page[i].state);
		/* Read in vain: its word is not known to be stale yet, or its bytes are lost. */
		hidden += seen->kept && IS(seen->state, BIT(GUARDED) | BIT(STALE));
		hidden += seen->state == STATE_SWAPPED &&
			  IS(after->page[i].state, BIT(LOST) | BIT(POISONED));
	}
	for (unsigned i = OUTCOME_zero; i <= OUTCOME_major; i++)
		said += after->outcome[i] - before->outcome[i];
	if (said >= came && said <= came + hidden)
		return NULL;
	snprintf(text, 256, "%llu pages came in, but the counters say %llu",
		 (unsigned long long)came, (unsigned long long)said);
	return text;
}

const char *model_compare(const struct model *m, const struct op *op, const struct expected *e,
			  const struct seen before[PROCESSES], const struct seen after[PROCESSES],
			  char text[256])
{
	const char *why = compare_states(m, e, before, after, text);

	if (!why)
		why = compare_outcomes(e, &before[op->process], &after[op->process], text);
	if (!why && e->balanced && !m->errors)
		why = compare_fills(&before[op->process], &after[op->process], text);
	return why;
}
