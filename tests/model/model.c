/* Read from the end: model_step, and what it is made of. */
#include "step.h"

#include <stdio.h>
#include <sys/mman.h>

const char *const outcome_names[OUTCOMES] = {
#define X(name, text) #name,
    COUNTER_OUTCOMES(X)
#undef X
};

const char *state_name(enum page_state state)
{
	static const char *const names[] = {
#define X(name) #name,
	    PAGE_STATES(X)
#undef X
	};

	return state < STATES ? names[state] : "?";
}

/* ---- states ---- */

static int state_of_marker(word_t word)
{
	switch (word_tag(word)) {
	case WORD_NONE:
	case WORD_PRESENT:
		return STATE_ORPHAN;
	case WORD_STANDBY:
		return STATE_STANDBY;
	case WORD_SWAP:
		return word_tier(word) == TIER_SAME ? STATE_SAME : STATE_SWAPPED;
	case WORD_POISON:
		return STATE_LOST;
	default:
		return -1; /* under way, where nothing should be */
	}
}

int state_of(const struct kernel_page *k, word_t word)
{
	bool evicted = word_is_evicted(word);

	if (!k->mapped)
		return word == WORD_NONE || word_tag(word) == WORD_NONE ? STATE_UNMAPPED : -1;
	if (k->guard)
		return STATE_GUARDED;
	if (k->swapped)
		return k->protected ? state_of_marker(word) : STATE_POISONED;
	if (!k->present)
		return evicted ? STATE_STALE : STATE_UNTOUCHED;
	if (evicted)
		return -1; /* two truths */
	if (k->zero)
		return k->protected ? STATE_ZERO_WP : STATE_ZERO;
	/* A slot that is believed clean until a write tells, of a page whose writes do not. */
	if (word & WORD_SLOT && word & WORD_WP && !k->protected)
		return -1;
	if (word & WORD_SLOT)
		return k->protected ? STATE_CLEAN_WP : STATE_CLEAN;
	return k->protected ? STATE_PRESENT_WP : STATE_PRESENT;
}

/* ---- what the steps share ---- */

void may(struct step *s, enum outcome_name name, uint64_t least, uint64_t most)
{
	s->e->least[name] += least;
	s->e->most[name] += most;
}

uint32_t from_slot(const struct model *m, bool write)
{
	return m->clean_wp && !write ? BIT(PRESENT_WP) | BIT(CLEAN_WP) | BIT(PRESENT) | BIT(CLEAN)
				     : BIT(PRESENT) | BIT(CLEAN);
}

bool forbids(const struct model_page *page, bool write)
{
	return !page->mapped || page->guard || !(page->prot & (write ? PROT_WRITE : PROT_READ));
}

void set_zero(struct model_page *page)
{
	page->two = false;
	memset(page->bytes, 0, PAGE);
}

bool model_content(struct model_page *page, const void *bytes)
{
	if (memcmp(bytes, page->bytes, PAGE) == 0) {
		page->two = page->two && !page->written;
		return true;
	}
	if (!page->two || memcmp(bytes, page->other, PAGE) != 0)
		return false;
	memcpy(page->bytes, page->other, PAGE);
	page->two = false;
	return true;
}

/* ---- the limit ---- */

/* What may have left since it was in one of these states. */
static uint32_t may_leave(const struct model *m, const struct model_page *page, uint32_t states)
{
	uint32_t mask = states;

	if (states & RESIDENT && !page->locked &&
	    (page->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE))
		mask |= EVICTED;
	/* Refused, or given back: it may have lost its protection, or its slot. */
	if (states & RESIDENT)
		mask |= RESIDENT;
	if (states & (BIT(STANDBY) | EVICTED))
		mask |= BIT(SWAPPED);
	if (m->errors && states & EVICTED) /* a write in vain */
		mask |= RESIDENT;
	return mask;
}

/* Under a limit that hurts, pages come and go with every touch. */
static void press(struct model *m, const struct seen before[PROCESSES], struct expected *e)
{
	for (unsigned p = 0; p < PROCESSES; p++) {
		for (uint32_t i = 0; i < ARENA_PAGES; i++) {
			uint32_t *states = &e->states[p][i];
			const struct seen_page *seen = &before[p].page[i];

			if (!m->alive[p] || !m->page[p][i].mapped)
				continue;
			if (e->balanced && IS(seen->state, EVICTED | RESIDENT))
				*states |=
				    from_slot(m, false) |
				    (m->errors || seen->lost ? BIT(LOST) | BIT(POISONED) : 0);
			*states = may_leave(m, &m->page[p][i], *states);
		}
	}
	e->balanced = false;
	for (unsigned i = OUTCOME_zero; i <= OUTCOME_gone; i++) {
		e->least[i] = 0;
		e->most[i] = UINT64_MAX;
	}
}

/* ---- possible operations ---- */

bool model_alike(const struct model *m, const struct op *op)
{
	const struct model_page *first = &m->page[op->process][op->page];

	for (uint32_t i = 0; i < op->n; i++)
		if (!first[i].mapped || first[i].locked != first->locked ||
		    first[i].prot != first->prot)
			return false;
	return true;
}

static bool is_free(const struct model *m, const struct op *op, uint32_t page, uint32_t n)
{
	if (page + n > ARENA_PAGES)
		return false;
	for (uint32_t i = page; i < page + n; i++)
		if (m->page[op->process][i].mapped)
			return false;
	return true;
}

bool model_possible(const struct model *m, const struct op *op)
{
	bool apart = op->to + op->n <= ARENA_PAGES &&
		     (op->to + op->n <= op->page || op->page + op->n <= op->to);
	bool locked = m->page[op->process][op->page].locked;

	switch (op->kind) {
	case OP_MOVE:
		return model_alike(m, op) && apart && is_free(m, op, op->to, op->n);
	case OP_MOVE_OVER:
		return model_alike(m, op) && apart;
	case OP_LEAVE:
		return model_alike(m, op) && apart && !locked && is_free(m, op, op->to, op->n);
	case OP_SHRINK:
		return model_alike(m, op) && op->to > 0 && op->to < op->n;
	case OP_GROW:
		return model_alike(m, op) && !locked && op->to > op->n &&
		       is_free(m, op, op->page + op->n, op->to - op->n);
	case OP_LOCK: {
		/* What refuses to be populated: its own operations try that. */
		for (uint32_t i = op->page; i < op->page + op->n; i++)
			if (m->page[op->process][i].mapped &&
			    (m->page[op->process][i].guard ||
			     forbids(&m->page[op->process][i], true)))
				return false;
		return true;
	}
	case OP_FORK:
		return op->process == 0 && !m->alive[1];
	case OP_EXIT:
		return op->process == 0 && m->alive[1];
	case OP_PRESS:
		return !m->pressed;
	case OP_RELEASE:
		return m->pressed;
	default:
		return true;
	}
}

/* ---- one step ---- */

static const char *dispatch(struct step *s, const void *file)
{
	switch (s->op->kind) {
	case OP_READ:
	case OP_WRITE:
	case OP_POKE:
	case OP_SAME:
		return step_touch(s);
	case OP_COPY_OUT:
	case OP_DIRECT:
		return step_kernel_touch(s, file);
	case OP_POPULATE_READ:
	case OP_POPULATE_WRITE:
		return step_populate(s, s->op->kind == OP_POPULATE_WRITE);
	case OP_DISCARD:
	case OP_FREE:
	case OP_PAGEOUT:
	case OP_GUARD:
	case OP_UNGUARD:
		return step_advice(s);
	case OP_UNMAP:
		return step_unmap(s);
	case OP_MAP:
	case OP_MAP_OVER:
		return step_map(s);
	case OP_MOVE:
	case OP_MOVE_OVER:
	case OP_LEAVE:
		return step_move(s);
	case OP_SHRINK:
	case OP_GROW:
		return step_resize(s);
	case OP_PROTECT:
	case OP_LOCK:
	case OP_UNLOCK:
		return step_attribute(s);
	case OP_FORK:
		return step_fork(s);
	case OP_EXIT:
		s->m->alive[1] = s->m->shared = false;
		return s->outcome->result ? "the child did not end well" : NULL;
	default: /* the limit */
		return NULL;
	}
}

const char *model_step(struct model *m, const struct op *op, const struct outcome *outcome,
		       const struct seen before[PROCESSES], const void *file, struct expected *ret)
{
	bool leaves = m->pressed || op->kind == OP_PUSH || op->kind == OP_NUDGE ||
		      op->kind == OP_PRESS || op->kind == OP_RELEASE;
	struct step s = {
	    .m = m,
	    .op = op,
	    .outcome = outcome,
	    .before = &before[op->process],
	    .pages = m->page[op->process],
	    .states = ret->states[op->process],
	    .e = ret,
	};
	const char *why;

	*ret = (struct expected){0};
	for (unsigned p = 0; p < PROCESSES; p++)
		for (uint32_t i = 0; i < ARENA_PAGES; i++)
			ret->states[p][i] = 1u << before[p].page[i].state;
	why = dispatch(&s, file);
	if (why)
		return why;
	if (op->kind == OP_PRESS || op->kind == OP_RELEASE)
		m->pressed = op->kind == OP_PRESS;
	if (leaves || m->pressed)
		press(m, before, ret);
	return NULL;
}
