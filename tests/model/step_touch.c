/* Pages that are touched: by the program, or by the kernel for it. */
#include <signal.h>
#include <sys/mman.h>

#include "step.h"

#define AHEAD 512u /* pages that may come along with a fault */

/* What a neighbour of a page that is touched may become. */
static uint32_t ahead(const struct model *m, const struct seen_page *seen, bool write)
{
	switch (seen->state) {
	case STATE_UNTOUCHED:
		return write ? BIT(ZERO) : BIT(ZERO_WP);
	case STATE_STANDBY:
	case STATE_SWAPPED:
		return from_slot(m, write) | (seen->lost || m->errors ? BIT(LOST) : 0);
	default:
		return 0;
	}
}

/* A page as it is after a read or a write that found it in this state; its counters. */
static uint32_t touched(struct step *s, uint32_t page, bool write)
{
	const struct seen_page *seen = &s->before->page[page];
	bool served = seen->registered;

	switch (seen->state) {
	case STATE_UNTOUCHED:
	case STATE_STALE:
		may(s, OUTCOME_zero, 0, 1);
		if (write)
			return seen->kept ? BIT(PRESENT) | BIT(CLEAN) : BIT(PRESENT);
		return served ? BIT(ZERO_WP) | BIT(ZERO) : BIT(ZERO);
	case STATE_ZERO:
		return !write ? BIT(ZERO) : seen->kept ? BIT(PRESENT) | BIT(CLEAN) : BIT(PRESENT);
	case STATE_ZERO_WP:
		may(s, OUTCOME_wp_reuse, write, write);
		return !write	    ? BIT(ZERO_WP)
		       : seen->kept ? BIT(PRESENT) | BIT(CLEAN)
				    : BIT(PRESENT);
	case STATE_PRESENT_WP:
	case STATE_CLEAN_WP:
		may(s, OUTCOME_wp_reuse, write, write);
		return write ? BIT(PRESENT) : 1u << seen->state;
	case STATE_SAME:
		may(s, OUTCOME_minor, 1, 1);
		return BIT(PRESENT);
	case STATE_STANDBY:
		may(s, OUTCOME_minor, 0, 1);
		return from_slot(s->m, write);
	case STATE_SWAPPED:
		may(s, OUTCOME_major, 0, 1);
		may(s, OUTCOME_minor, 0, 1); /* it had been read ahead */
		return from_slot(s->m, write);
	case STATE_ORPHAN:
		may(s, OUTCOME_zero, 1, 1);
		return BIT(PRESENT);
	default:
		return 1u << seen->state;
	}
}

/* The page could not be brought back. */
static uint32_t broken(struct step *s, uint32_t page)
{
	const struct seen_page *seen = &s->before->page[page];

	if (seen->state == STATE_POISONED)
		return BIT(POISONED);
	may(s, OUTCOME_poisoned, 1, 1);
	may(s, OUTCOME_major, 0, seen->state != STATE_LOST);
	may(s, OUTCOME_minor, 0, seen->state != STATE_LOST);
	return BIT(POISONED);
}

/* May touching it end with SIGBUS; must it? */
static bool may_break(const struct step *s, const struct seen_page *seen)
{
	return IS(seen->state, BIT(POISONED) | BIT(LOST) | BIT(STALE)) ||
	       (seen->lost && (seen->state == STATE_SWAPPED || s->m->pressed)) ||
	       (s->m->errors && IS(seen->state, EVICTED | RESIDENT));
}

static bool must_break(const struct step *s, const struct seen_page *seen)
{
	return IS(seen->state, BIT(POISONED) | BIT(LOST)) ||
	       (seen->state == STATE_SWAPPED && seen->lost && !s->m->pressed &&
		!s->m->reads_ahead);
}

/* Neighbours from `page` on, of a fault there. */
static void neighbours(struct step *s, uint32_t page, uint32_t n, bool write)
{
	for (uint32_t i = page; i < ARENA_PAGES && i < page + n; i++)
		if (s->pages[i].mapped)
			s->states[i] |= ahead(s->m, &s->before->page[i], write);
}

/* Pages [page, page + done) were touched; then, perhaps, one could not be: SIGBUS. */
static void touch_range(struct step *s, uint32_t page, uint32_t done, bool write, bool bus)
{
	s->e->balanced = true;
	neighbours(s, page, AHEAD, write);
	for (uint32_t i = page; i < page + done; i++)
		s->states[i] = touched(s, i, write);
	if (bus)
		s->states[page + done] = broken(s, page + done);
	if (done > 1) /* what an earlier one reads ahead may still be on its way */
		may(s, OUTCOME_parked, 0, done - 1);
	/* A single page's fault is its own: no neighbour can have brought it in. Of what it may come to
	 * where there are two, the sum of the messages tells that it was one. */
	if (done == 1 && !bus && !s->m->pressed && s->before->page[page].registered &&
	    s->before->page[page].state != STATE_SWAPPED) {
		for (unsigned i = 0; i < OUTCOMES; i++)
			s->e->least[i] = s->e->most[i];
	}
}

static uint32_t first_forbidden(const struct step *s, bool write)
{
	uint32_t i = 0;

	while (i < s->op->n && !forbids(&s->pages[s->op->page + i], write))
		i++;
	return i;
}

/* How far a touch may come: up to the first page that must break or is forbidden. */
static const char *judge(const struct step *s, uint32_t done, bool bus, bool forbidden, bool write)
{
	uint32_t end = first_forbidden(s, write);

	for (uint32_t i = 0; i < done; i++)
		if (must_break(s, &s->before->page[s->op->page + i]))
			return "a page was read that is lost";
	if (bus)
		return done < end && may_break(s, &s->before->page[s->op->page + done])
			   ? NULL
			   : "SIGBUS for a page that was never lost";
	if (forbidden)
		return done == end ? NULL : "SIGSEGV for a page that may be touched";
	return done == s->op->n && done == end ? NULL : "a touch that must fail succeeded";
}

static void write_page(struct step *s, uint32_t i)
{
	struct model_page *page = &s->pages[s->op->page + i];

	if (s->op->kind == OP_POKE) {
		content_poke(page->bytes, s->op->seed);
		content_poke(page->other, s->op->seed);
		page->written = true;
		return; /* what the rest of it is, is seen */
	}
	page->two = false;
	if (s->op->kind == OP_WRITE)
		content_fill(page->bytes, s->op->seed + i);
	else
		content_same(page->bytes, s->op->arg);
}

/* ---- touches ---- */

const char *step_touch(struct step *s)
{
	bool write = s->op->kind != OP_READ, bus = s->outcome->signal == SIGBUS;
	uint32_t done = (uint32_t)s->outcome->result;
	const char *why = judge(s, done, bus, s->outcome->signal == SIGSEGV, write);
	uint64_t sum = 0;
	bool two = false;

	if (why)
		return why;
	for (uint32_t i = 0; i < done; i++) {
		two = two || s->pages[s->op->page + i].two;
		sum = content_sum(sum, s->pages[s->op->page + i].bytes);
		if (write)
			write_page(s, i);
	}
	if (!write && !two && sum != s->outcome->sum)
		return "the program read wrong bytes";
	touch_range(s, s->op->page, done, write, bus);
	return NULL;
}

/* The kernel touches it for the program, and answers with an error instead of a signal. */
const char *step_kernel_touch(struct step *s, const void *file)
{
	bool write = s->op->kind == OP_DIRECT, done = s->outcome->result == 1;
	struct model_page *page = &s->pages[s->op->page];
	bool forbidden = forbids(page, write), bus = !done && !forbidden;
	const char *why = judge(s, done, bus, !done && forbidden, write);

	if (why)
		return why;
	if (done && !write && !page->two && s->outcome->sum != content_sum(0, page->bytes))
		return "process_vm_readv read wrong bytes";
	if (done && write) {
		page->two = false;
		memcpy(page->bytes, file, PAGE);
	}
	touch_range(s, s->op->page, done, write, bus);
	return NULL;
}

/* Goes on until a page refuses; how far it came is not said. */
const char *step_populate(struct step *s, bool write)
{
	uint32_t end = first_forbidden(s, write), n = s->op->n;
	bool breaks = false, must = false;

	for (uint32_t i = 0; i < end; i++) {
		breaks = breaks || may_break(s, &s->before->page[s->op->page + i]);
		must = must || must_break(s, &s->before->page[s->op->page + i]);
	}
	if (s->outcome->result == 0 && (end < n || must))
		return "populating succeeded where a page is forbidden or lost";
	if (s->outcome->result != 0 && end == n && !breaks)
		return "populating failed";
	if (s->outcome->result == 0) {
		touch_range(s, s->op->page, n, write, false);
		return NULL;
	}
	neighbours(s, s->op->page, AHEAD, write);
	may(s, OUTCOME_parked, 0, end);
	for (uint32_t i = s->op->page; i < s->op->page + end; i++) {
		s->states[i] |= touched(s, i, write);
		if (may_break(s, &s->before->page[i])) {
			s->states[i] |= BIT(POISONED) | BIT(LOST);
			may(s, OUTCOME_poisoned, 0, 1);
			may(s, OUTCOME_major, 0, 1);
			may(s, OUTCOME_minor, 0, 1);
		}
	}
	for (unsigned i = 0; i < OUTCOMES; i++)
		s->e->least[i] = 0;
	return NULL;
}
