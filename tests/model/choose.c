/* What to do next: from the seed and the model alone, so that it can be repeated. */
#include "test.h"

#include <sys/mman.h>

#include "base/util.h"

#define LONG_RANGE 32u

const char *const op_names[OP_KINDS] = {
#define X(name, weight) #name,
    MODEL_OPS(X)
#undef X
};
static const unsigned op_weights[] = {
#define X(name, weight) weight,
    MODEL_OPS(X)
#undef X
};

static uint32_t below(struct test *t, uint32_t n)
{
	t->random += 0x9e3779b97f4a7c15ull;
	return (uint32_t)(mix(t->random) % n);
}

static uint32_t choose_kind(struct test *t)
{
	uint32_t sum = 0, at, kind;

	for (unsigned i = 0; i < OP_KINDS; i++)
		sum += op_weights[i];
	at = below(t, sum);
	for (kind = 0; at >= op_weights[kind]; kind++)
		at -= op_weights[kind];
	return kind;
}

static bool is_single(uint32_t kind)
{
	return kind == OP_POKE || kind == OP_COPY_OUT || kind == OP_DIRECT || kind == OP_SPOIL;
}

struct op choose(struct test *t)
{
	static const uint32_t prots[] = {PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ,
					 PROT_NONE};
	static const uint32_t patterns[] = {0, 0, 0x01010101, 0xdeadbeef};
	struct op op = {.kind = choose_kind(t)};

	/* Every one takes as many random numbers: what a later one does hangs on nothing else. */
	op.process = below(t, 2) && t->model.alive[1];
	op.page = below(t, ARENA_PAGES);
	op.n = 1 + (below(t, 3) ? below(t, 8) : below(t, LONG_RANGE));
	op.to = below(t, ARENA_PAGES);
	op.seed = t->options->seed * 1000000 + t->number * 100;
	op.arg = below(t, 64);
	if (op.kind == OP_FORK || op.kind == OP_EXIT || op.kind >= OP_PUSH)
		op.process = op.kind == OP_SPOIL && op.process;
	if (is_single(op.kind))
		op.n = 1;
	if (!t->number) /* most of it is there to begin with */
		op = (struct op){.kind = OP_MAP, .n = ARENA_PAGES - LONG_RANGE};
	op.n = MIN(op.n, ARENA_PAGES - op.page);
	switch (op.kind) {
	case OP_SHRINK:
		op.to = op.n - 1 ? 1 + op.to % (op.n - 1) : 0;
		break;
	case OP_GROW:
		op.to = MIN(op.n + 1 + op.arg % 16, ARENA_PAGES - op.page);
		break;
	case OP_PROTECT:
		op.arg = prots[op.arg % ARRAY_SIZE(prots)];
		break;
	case OP_SAME:
		op.arg = patterns[op.arg % ARRAY_SIZE(patterns)];
		break;
	case OP_DIRECT:
		op.arg %= FILE_PAGES;
		break;
	case OP_NUDGE:
		op.arg += 1;
		break;
	default:
		break;
	}
	return op;
}

/* A slot, of whatever page of the process rests in one next. */
static void find_slot(const struct test *t, struct op *op)
{
	for (uint32_t i = 0; i < ARENA_PAGES; i++) {
		uint32_t page = (op->page + i) % ARENA_PAGES;

		if (t->view.seen[op->process].page[page].state == STATE_SWAPPED) {
			op->page = page;
			return;
		}
	}
}

/* Some operations want a range that is mapped alike, or one with room behind it: the next that will
 * do. From the model alone, too. */
void adjust(const struct test *t, struct op *op)
{
	const struct model_page *pages = t->model.page[op->process];

	if (op->kind == OP_SPOIL)
		find_slot(t, op);
	if (op->kind < OP_MOVE || op->kind > OP_GROW || model_possible(&t->model, op))
		return;
	for (; op->kind == OP_GROW && op->page + 2 < ARENA_PAGES; op->page++) {
		if (!pages[op->page].mapped || pages[op->page + 1].mapped)
			continue;
		op->n = 1;
		for (op->to = 2; op->to < 1 + op->arg % 16 && !pages[op->page + op->to].mapped &&
				 op->page + op->to + 1 < ARENA_PAGES;)
			op->to++;
		return;
	}
	for (uint32_t n = op->n; n; n /= 2) {
		for (op->page = 0; op->page + n <= ARENA_PAGES; op->page += n) {
			op->n = n;
			if (op->kind == OP_SHRINK)
				op->to = n - 1 ? 1 + op->arg % (n - 1) : 0;
			if (model_alike(&t->model, op) && model_possible(&t->model, op))
				return;
		}
	}
	op->page = 0;
}

/* The kernel moves and resizes within one VMA, and it alone knows its seams. */
bool crosses_seam(const struct test *t, const struct op *op)
{
	const uint64_t *seams = op->process ? t->view.child_seams : t->view.seams;

	if (op->kind < OP_MOVE || op->kind > OP_GROW)
		return false;
	for (uint32_t i = op->page + 1; i < op->page + op->n; i++)
		if (seams[i / 64] & 1ull << i % 64)
			return true;
	return false;
}
