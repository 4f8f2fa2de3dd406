/* What changes mappings, or what is in them without a touch. */
#include <errno.h>
#include <sys/mman.h>

#include "step.h"

/* ---- advice ---- */

/* A locked page ends madvise(2); a hole does not, but is told. Returns how many pages it came. */
static uint32_t advised(const struct step *s, int64_t *ret_result)
{
	uint32_t i;

	*ret_result = 0;
	for (i = 0; i < s->op->n; i++) {
		const struct model_page *page = &s->pages[s->op->page + i];

		if (!page->mapped) {
			*ret_result = -ENOMEM;
		} else if (page->locked && s->op->kind != OP_UNGUARD) {
			*ret_result = -EINVAL;
			break;
		}
	}
	return i;
}

static uint32_t after_discard(enum page_state state)
{
	return state == STATE_GUARDED ? BIT(GUARDED) : BIT(UNTOUCHED);
}

static uint32_t after_free(enum page_state state)
{
	switch (state) {
	case STATE_CLEAN:
		return BIT(PRESENT);
	case STATE_CLEAN_WP:
		return BIT(PRESENT_WP);
	case STATE_SAME:
	case STATE_STANDBY:
	case STATE_SWAPPED:
	case STATE_LOST:
		return BIT(ORPHAN) | BIT(UNTOUCHED);
	case STATE_STALE:
		return BIT(UNTOUCHED);
	case STATE_POISONED:
		return BIT(POISONED) | BIT(UNTOUCHED);
	default:
		return 1u << state;
	}
}

static void advise_page(struct step *s, uint32_t i)
{
	struct model_page *page = &s->pages[i];
	enum page_state state = s->before->page[i].state;

	switch (s->op->kind) {
	case OP_DISCARD:
		s->states[i] = after_discard(state);
		set_zero(page);
		break;
	case OP_FREE:
		s->states[i] = after_free(state);
		if (s->m->pressed && !page->guard) /* it may have left before */
			s->states[i] |= BIT(ORPHAN) | BIT(UNTOUCHED);
		if (!IS(state, RESIDENT)) {
			set_zero(page);
		} else if (!page->two) {
			memset(page->other, 0, PAGE);
			page->two = true;
			page->written = false;
		}
		break;
	case OP_GUARD:
		page->guard = true;
		set_zero(page);
		s->states[i] = BIT(GUARDED);
		break;
	case OP_UNGUARD:
		if (page->guard)
			s->states[i] = BIT(UNTOUCHED) | BIT(STALE);
		page->guard = false;
		break;
	default: /* OP_PAGEOUT: without swap, the kernel takes only what was offered with MADV_FREE
		  */
		if (page->two)
			s->states[i] |= BIT(UNTOUCHED) | BIT(ORPHAN);
		break;
	}
}

const char *step_advice(struct step *s)
{
	bool tells = s->op->kind == OP_DISCARD || s->op->kind == OP_FREE;
	int64_t result;
	uint32_t done = advised(s, &result), mapped = 0;

	if (s->outcome->result != result)
		return "madvise answers something else";
	for (uint32_t i = s->op->page; i < s->op->page + done; i++) {
		if (!s->pages[i].mapped)
			continue;
		mapped++;
		advise_page(s, i);
	}
	if (tells)
		may(s, OUTCOME_remove, mapped > 0, mapped);
	return NULL;
}

/* ---- mappings ---- */

static void become_unmapped(struct step *s, uint32_t i)
{
	s->states[i] = BIT(UNMAPPED);
	s->pages[i] = (struct model_page){0};
}

static void become_new(struct step *s, uint32_t i)
{
	s->states[i] = BIT(UNTOUCHED);
	s->pages[i] = (struct model_page){.mapped = true, .prot = PROT_READ | PROT_WRITE};
}

static uint32_t mapped_in(const struct step *s, uint32_t page, uint32_t n)
{
	uint32_t mapped = 0;

	for (uint32_t i = page; i < page + n; i++)
		mapped += s->pages[i].mapped;
	return mapped;
}

static void unmap(struct step *s, uint32_t page, uint32_t n)
{
	uint32_t mapped = mapped_in(s, page, n);

	may(s, OUTCOME_unmap, mapped > 0, mapped);
	for (uint32_t i = page; i < page + n; i++)
		become_unmapped(s, i);
}

const char *step_unmap(struct step *s)
{
	unmap(s, s->op->page, s->op->n);
	return s->outcome->result ? "munmap failed" : NULL;
}

const char *step_map(struct step *s)
{
	uint32_t mapped = mapped_in(s, s->op->page, s->op->n);

	if (s->op->kind == OP_MAP && mapped)
		return s->outcome->result == -EEXIST ? NULL : "mapped where something is";
	if (s->outcome->result)
		return "mmap failed";
	may(s, OUTCOME_unmap, mapped > 0, mapped);
	for (uint32_t i = s->op->page; i < s->op->page + s->op->n; i++)
		become_new(s, i);
	return NULL;
}

/* A page at another address, or in a child: it has neither frame nor, if it is present, a slot. */
static uint32_t after_elsewhere(enum page_state state)
{
	switch (state) {
	case STATE_CLEAN:
		return BIT(PRESENT);
	case STATE_CLEAN_WP:
		return BIT(PRESENT_WP);
	case STATE_STANDBY:
		return BIT(SWAPPED);
	case STATE_STALE:
		return BIT(STALE) | BIT(UNTOUCHED);
	default:
		return 1u << state;
	}
}

const char *step_move(struct step *s)
{
	static struct model_page moved[ARENA_PAGES];
	const struct op *op = s->op;
	uint32_t states[ARENA_PAGES], n = op->n;

	if (s->outcome->result)
		return "mremap failed";
	for (uint32_t i = 0; i < n; i++) {
		moved[i] = s->pages[op->page + i];
		states[i] = after_elsewhere(s->before->page[op->page + i].state);
	}
	unmap(s, op->to, n);
	for (uint32_t i = 0; i < n; i++) {
		unsigned char prot = moved[i].prot;

		if (op->kind == OP_LEAVE) {
			become_new(s, op->page + i);
			s->pages[op->page + i].prot = prot;
		} else {
			become_unmapped(s, op->page + i);
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		s->pages[op->to + i] = moved[i];
		s->states[op->to + i] = states[i];
	}
	may(s, OUTCOME_remap, 1, 1);
	may(s, OUTCOME_unmap, 0, 2); /* of the old place */
	return NULL;
}

const char *step_resize(struct step *s)
{
	const struct op *op = s->op;
	unsigned char prot = s->pages[op->page].prot;

	if (op->kind == OP_SHRINK) {
		if (s->outcome->result)
			return "mremap could not shrink";
		unmap(s, op->page + op->to, op->n - op->to);
		return NULL;
	}
	/* The kernel may find that it is no whole VMA: then nothing has happened. */
	if (s->outcome->result == -EFAULT || s->outcome->result == -ENOMEM)
		return NULL;
	if (s->outcome->result)
		return "mremap could not grow";
	may(s, OUTCOME_remap, 0, 1);
	for (uint32_t i = op->page + op->n; i < op->page + op->to; i++) {
		become_new(s, i);
		s->pages[i].prot = prot;
	}
	return NULL;
}

/* mprotect, mlock, munlock: up to the first hole. */
const char *step_attribute(struct step *s)
{
	const struct op *op = s->op;
	bool lock = op->kind == OP_LOCK;
	uint32_t i;

	for (i = op->page; i < op->page + op->n && s->pages[i].mapped; i++) {
		if (op->kind == OP_PROTECT)
			s->pages[i].prot = (unsigned char)op->arg;
		else
			s->pages[i].locked = lock;
	}
	if (i < op->page + op->n)
		return s->outcome->result == -ENOMEM ? NULL : "a hole was not told of";
	/* Locked pages are made present: as by writes, where the program may write. */
	return lock		    ? step_populate(s, true)
	       : s->outcome->result ? "mprotect or munlock failed"
				    : NULL;
}

/* ---- processes ---- */

const char *step_fork(struct step *s)
{
	if (s->outcome->result <= 0)
		return "fork failed";
	s->m->alive[1] = s->m->shared = true;
	memcpy(s->m->page[1], s->m->page[0], sizeof(s->m->page[1]));
	for (uint32_t i = 0; i < ARENA_PAGES; i++) {
		s->m->page[1][i].locked = false;
		s->e->states[1][i] = after_elsewhere(s->before->page[i].state);
	}
	may(s, OUTCOME_fork, 1, 1);
	return NULL;
}
