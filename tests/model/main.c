/*
 * The model test: random operations on a small arena, done by a real program under a real pager;
 * after each, every page is held against a pure model (model.h).
 *
 * model [--seed N] [--ops N] [--seconds N] [--trace] [--error-every N] [--clean-wp] [--slots N]
 *       [--readahead N] [--delay-us N]
 *
 * The same seed and options do the same operations. A case that fails prints the last ones and how
 * to repeat it; fewer --ops end it sooner, which is how it is shrunk. 77 = cannot be run here.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "rig.h"
#include "sys/uffd.h"
#include "test.h"

#define LEAVE_MS   2000u /* until all that can leave has left */
#define LINGER_MS  20u	 /* where what is shared may stay */

/* ---- doing it ---- */

static void print_op(const struct op *op)
{
	printf("%s process %u, pages %u+%u, to %u, arg %#x, seed %llu", op_names[op->kind],
	       op->process, op->page, op->n, op->to, op->arg, (unsigned long long)op->seed);
}

/* Is it the top page of a mapping that lies above one which can't be written, as a thread's stack does above
 * its guard? Such a page stays. */
static bool stays_on_top(const struct test *t, unsigned process, uint32_t page)
{
	const uint64_t *seams = process ? t->view.child_seams : t->view.seams;
	const struct model_page *pages = t->model.page[process];
	uint32_t first = page;

	if (page + 1 < ARENA_PAGES && pages[page + 1].mapped &&
	    !(seams[(page + 1) / 64] >> (page + 1) % 64 & 1))
		return false;
	while (first > 0 && !(seams[first / 64] >> first % 64 & 1))
		first--;
	return first > 0 && pages[first - 1].mapped &&
	       pages[first - 1].prot != (PROT_READ | PROT_WRITE);
}

/* Whatever could leave has. */
static bool all_left(const struct test *t)
{
	for (unsigned p = 0; p < PROCESSES; p++) {
		for (uint32_t i = 0; t->model.alive[p] && i < ARENA_PAGES; i++) {
			enum page_state state = t->view.seen[p].page[i].state;
			const struct model_page *page = &t->model.page[p][i];

			if (state >= STATE_PRESENT && state <= STATE_CLEAN_WP && !page->locked &&
			    page->prot == (PROT_READ | PROT_WRITE) && !stays_on_top(t, p, i))
				return false;
		}
	}
	return true;
}

static const char *push(struct test *t)
{
	bool may_stay = t->model.shared || t->full || t->options->rig.error_every;
	uint64_t end = now_ns() + (may_stay ? LINGER_MS : LEAVE_MS) * MS;
	const char *why = NULL;

	rig_no_room(t->rig);
	while (!(why = rig_look(t->rig, &t->view)) && !all_left(t) && now_ns() < end)
		usleep(500);
	rig_room(t->rig);
	if (!why && !may_stay && !all_left(t))
		return "pages do not leave";
	return why;
}

static const char *perform(struct test *t, const struct op *op, struct outcome *ret)
{
	uint64_t end = now_ns() + LINGER_MS * MS, evicted = t->view.seen[0].evicted;
	const char *why = NULL;

	*ret = (struct outcome){0};
	switch (op->kind) {
	case OP_PUSH:
		why = push(t);
		if (t->model.pressed)
			rig_less_room(t->rig, 16);
		return why;
	case OP_NUDGE:
		rig_less_room(t->rig, op->arg);
		while (!why && t->view.seen[0].evicted == evicted && now_ns() < end)
			why = rig_look(t->rig, &t->view);
		if (!t->model.pressed)
			rig_room(t->rig);
		return why;
	case OP_PRESS:
		rig_less_room(t->rig, 32);
		return NULL;
	case OP_RELEASE:
		rig_room(t->rig);
		return NULL;
	case OP_SPOIL:
		rig_spoil(t->rig, op->process, op->page);
		return NULL;
	default:
		return rig_do(t->rig, op, ret);
	}
}

static const char *check_contents(struct test *t, char text[256])
{
	for (unsigned p = 0; p < PROCESSES; p++) {
		for (uint32_t i = 0; t->model.alive[p] && i < ARENA_PAGES; i++) {
			if (!t->view.known[p][i] ||
			    model_content(&t->model.page[p][i], t->view.bytes[p][i]))
				continue;
			snprintf(text, 256, "process %u, page %u (%s) holds WRONG BYTES", p, i,
				 state_name(t->view.seen[p].page[i].state));
			return text;
		}
	}
	return NULL;
}

static const char *one(struct test *t, const struct op *op, char text[256])
{
	static struct expected expected;
	struct outcome outcome;
	const char *why;

	memcpy(t->before, t->view.seen, sizeof(t->before));
	why = perform(t, op, &outcome);
	if (!why)
		why = rig_look(t->rig, &t->view);
	if (!why)
		why = model_step(&t->model, op, &outcome, t->before,
				 rig_file_page(t->rig, op->arg % FILE_PAGES), &expected);
	if (why) {
		snprintf(text, 256, "%s (result %lld, signal %d)", why, (long long)outcome.result,
			 outcome.signal);
		return text;
	}
	why = model_compare(&t->model, op, &expected, t->before, t->view.seen, text);
	return why ? why : check_contents(t, text);
}

/* ---- the whole ---- */

/* Runs of pages, as they were before and after the operation that failed. */
static void print_states(const struct test *t, unsigned p)
{
	const struct seen_page *before = t->before[p].page, *after = t->view.seen[p].page;

	for (uint32_t i = 0, n; i < ARENA_PAGES; i += n) {
		for (n = 1; i + n < ARENA_PAGES && before[i + n].state == before[i].state &&
			    after[i + n].state == after[i].state;)
			n++;
		printf("  process %u, pages %u+%u: %s → %s\n", p, i, n, state_name(before[i].state),
		       state_name(after[i].state));
	}
}

static void report(struct test *t, const char *why)
{
	const struct options *o = t->options;

	printf("FAILED after operation %llu: %s\n", (unsigned long long)t->number, why);
	for (uint64_t i = t->number > LAST ? t->number - LAST + 1 : 1; i <= t->number; i++) {
		printf("  %llu ", (unsigned long long)i);
		print_op(&t->last[i % LAST]);
		printf("\n");
	}
	for (unsigned p = 0; p < PROCESSES; p++)
		if (t->model.alive[p])
			print_states(t, p);
	printf("to repeat: model --seed %llu --ops %llu --slots %u --readahead %u --error-every %u "
	       "--delay-us %u%s\n",
	       (unsigned long long)o->seed, (unsigned long long)t->number, o->rig.slots,
	       o->rig.readahead, o->rig.error_every, o->rig.delay_us,
	       o->rig.clean_wp ? " --clean-wp" : "");
}

static const char *run(struct test *t, char text[256])
{
	uint64_t end = now_ns() + t->options->seconds * 1000 * MS;
	const char *why = rig_look(t->rig, &t->view);

	while (!why && t->number < t->options->ops && (!t->options->seconds || now_ns() < end)) {
		struct op op = choose(t);

		adjust(t, &op);
		if (!model_possible(&t->model, &op) || crosses_seam(t, &op))
			continue;
		t->number++;
		t->done[op.kind]++;
		t->last[t->number % LAST] = op;
		if (t->options->trace) {
			printf("%llu ", (unsigned long long)t->number);
			print_op(&op);
			printf("\n");
			fflush(stdout);
		}
		why = one(t, &op, text);
	}
	return why;
}

static void summary(const struct test *t)
{
	struct counters c;

	rig_counters(t->rig, &c);
	printf("model: ok, seed %llu, %llu operations:", (unsigned long long)t->options->seed,
	       (unsigned long long)t->number);
	for (unsigned i = 0; i < OP_KINDS; i++)
		printf(" %s %llu", op_names[i], (unsigned long long)t->done[i]);
	printf("\n");
#define X(name, text)                                                                              \
	if (c.name)                                                                                \
		printf(#name " %llu ", (unsigned long long)c.name);
	COUNTERS(X)
#undef X
	printf("\n");
}

static int test(const struct options *options)
{
	struct test *t = calloc(1, sizeof(*t));
	char text[256];
	const char *why;

	if (!t)
		return 1;
	t->options = options;
	t->random = options->seed;
	t->model.alive[0] = true;
	t->model.clean_wp = options->rig.clean_wp;
	t->model.reads_ahead = options->rig.readahead > 1;
	t->model.errors = options->rig.error_every;
	t->full = options->rig.slots < 4 * ARENA_PAGES;
	for (unsigned p = 0; p < PROCESSES; p++) {
		t->view.bytes[p] = calloc(ARENA_PAGES, PAGE);
		if (!t->view.bytes[p])
			return 1;
	}
	why = rig_start(&options->rig, &t->rig);
	if (!why)
		why = run(t, text);
	if (why)
		report(t, why);
	else
		summary(t);
	fflush(stdout);
	rig_end(t->rig);
	for (unsigned p = 0; p < PROCESSES; p++)
		free(t->view.bytes[p]);
	free(t);
	return why != NULL;
}

static int cannot_run(const struct options *o)
{
	struct uffd_features features = {.evict = true, .poison = true};
	int fd = uffd_open(-1), r = fd < 0 ? fd : uffd_handshake(fd, &features);
	const char *why = NULL;

	if (geteuid() != 0)
		why = "needs root";
	else if (r < 0 || !features.evict || !features.poison)
		why = "needs userfaultfd with MOVE, WP_UNPOPULATED and POISON (Linux 6.8)";
	else if (!o->rig.client || !o->rig.preload || access(o->rig.client, X_OK) ||
		 access(o->rig.preload, R_OK))
		why = "the client or the shim is not built";
	if (fd >= 0)
		close(fd);
	if (why)
		printf("skip: %s\n", why);
	return why != NULL;
}

/* Beside us in the build directory. */
static char *beside(const char *path)
{
	char self[4096], *result = NULL;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return NULL;
	self[n] = 0;
	return asprintf(&result, "%s/%s", dirname(self), path) < 0 ? NULL : result;
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
	    {"seed", 1, NULL, 's'},	   {"ops", 1, NULL, 'n'},
	    {"seconds", 1, NULL, 't'},	   {"trace", 0, NULL, 'v'},
	    {"error-every", 1, NULL, 'e'}, {"clean-wp", 0, NULL, 'w'},
	    {"slots", 1, NULL, 'S'},	   {"readahead", 1, NULL, 'r'},
	    {"delay-us", 1, NULL, 'd'},	   {0}};
	struct options o = {.seed = (uint64_t)time(NULL),
			    .ops = UINT64_MAX,
			    .rig = {.slots = 4096, .readahead = 32}};
	char *here, *shim;
	int c, r;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 's':
			o.seed = value;
			break;
		case 'n':
			o.ops = value;
			break;
		case 't':
			o.seconds = value;
			break;
		case 'v':
			o.trace = true;
			break;
		case 'e':
			o.rig.error_every = (unsigned)value;
			break;
		case 'w':
			o.rig.clean_wp = true;
			break;
		case 'S':
			o.rig.slots = (uint32_t)value;
			break;
		case 'r':
			o.rig.readahead = (unsigned)value;
			break;
		case 'd':
			o.rig.delay_us = (unsigned)value;
			break;
		default:
			return 64;
		}
	}
	if (o.ops == UINT64_MAX && !o.seconds)
		o.ops = 2000;
	o.rig.client = here = beside("model-client");
	o.rig.preload = shim = beside("../../client/libupager-preload.so");
	r = cannot_run(&o) ? 77 : test(&o);
	free(here);
	free(shim);
	return r;
}
