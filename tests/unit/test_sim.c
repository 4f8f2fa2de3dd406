/* bench/sim: references against known figures, and the pager's policies against them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "policy/victim.h"
#include "sim.h"

#define LIMIT 16384u /* pages */

static struct outcome refer(const char *name, const struct trace *trace, uint32_t limit)
{
	const struct reference *r = references;
	struct outcome o;

	while (strcmp(r->name, name))
		r++;
	reference_run(r, trace, limit, NULL, &o);
	return o;
}

static struct outcome model(const struct victim_policy *policy, const struct trace *trace)
{
	struct model m = {.policy = policy, .limit = LIMIT, .readahead = 128};
	struct outcome o;

	model_run(&m, trace, NULL, &o);
	return o;
}

static struct trace make(const char *name)
{
	const struct pattern *p = patterns;
	struct trace trace;

	while (strcmp(p->name, name))
		p++;
	trace_make(&trace, p, LIMIT);
	return trace;
}

/* Belady's own string, for which FIFO does worse with more memory. */
Test(sim, known_figures)
{
	static const struct {
		const char *name;
		uint32_t limit;
		uint64_t misses;
	} cases[] = {{"fifo", 3, 9}, {"fifo", 4, 10}, {"lru", 3, 10},
		     {"lru", 4, 8},  {"opt", 3, 7},   {"opt", 4, 6}};
	static const uint32_t touches[] = {1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5};
	struct trace trace = {0};

	for (size_t i = 0; i < ARRAY_SIZE(touches); i++)
		trace_add(&trace, touches[i], false);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct outcome o = refer(cases[i].name, &trace, cases[i].limit);

		cr_expect_eq(o.fresh, 5);
		cr_expect_eq(o.fresh + o.faults, cases[i].misses, "%s %u: %lu", cases[i].name,
			     cases[i].limit, o.fresh + o.faults);
		cr_expect_eq(o.out, cases[i].misses - cases[i].limit);
	}
	trace_done(&trace);
}

/* A page that was used when its turn comes stays, once more. */
Test(sim, two_lists_spare_what_is_used)
{
	struct trace trace = {0};

	for (uint32_t i = 0; i < 1000; i++) {
		trace_add(&trace, 0, false);
		trace_add(&trace, 1 + i, false);
	}
	cr_expect_eq(refer("2 lists", &trace, 10).faults, 0);
	cr_expect_gt(refer("fifo", &trace, 10).faults, 90);
	trace_done(&trace);
}

Test(sim, nothing_is_better_than_opt)
{
	for (const struct pattern *p = patterns; p->name; p++) {
		struct trace trace;
		struct outcome opt;

		trace_make(&trace, p, LIMIT);
		opt = refer("opt", &trace, LIMIT);
		for (const struct reference *r = references; r->name; r++)
			cr_expect_leq(opt.reads, refer(r->name, &trace, LIMIT).reads, "%s %s",
				      p->name, r->name);
		cr_expect_leq(opt.reads, model(&victim_2q, &trace).reads, "%s 2q", p->name);
		cr_expect_leq(opt.reads, model(&victim_clock, &trace).reads, "%s clock", p->name);
		trace_done(&trace);
	}
}

/* What 2q is for. */
Test(sim, twoq_resists_loops_and_scans)
{
	static const struct {
		const char *name;
		double reads, faults; /* of the clock's, at most */
	} cases[] = {{"cyclic", 0.4, 9}, {"sequential", 0.7, 9}, {"list", 0.8, 0.8}, {"mixed", 1, 0.4},
		     {"zipf-long", 0.98, 0.98}, {"zipf-sorted", 0.95, 0.95}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct trace trace = make(cases[i].name);
		struct outcome twoq = model(&victim_2q, &trace), clock = model(&victim_clock, &trace);

		cr_expect_leq((double)twoq.reads, cases[i].reads * (double)clock.reads,
			      "%s: reads %lu, the clock's %lu", cases[i].name, twoq.reads, clock.reads);
		cr_expect_leq((double)twoq.faults, cases[i].faults * (double)clock.faults,
			      "%s: faults %lu, the clock's %lu", cases[i].name, twoq.faults,
			      clock.faults);
		trace_done(&trace);
	}
}

/* What has a place and is not used any more loses it, even to a stream. */
Test(sim, twoq_gives_up_what_is_dead)
{
	struct trace trace = make("small-loop");
	struct outcome o = model(&victim_2q, &trace);

	cr_expect_lt(o.reads, trace.n / 5, "%lu of %lu", o.reads, trace.n);
	trace_done(&trace);
}

Test(sim, model_adds_up)
{
	struct trace trace = make("random");
	struct outcome o;

	trace.warm = 0;
	o = model(&victim_2q, &trace);
	/* What came in and did not leave is resident. */
	cr_expect_leq(2 * LIMIT + o.reads + o.standby - o.out, LIMIT);
	cr_expect_leq(o.writes, 2 * LIMIT, "only what was filled is ever dirty");
	cr_expect_leq(o.out_runs, o.out);
	trace_done(&trace);
}

/* What is discarded takes no room, is not read again, and is no touch. */
Test(sim, discards)
{
	struct trace trace = {0};
	struct outcome o;

	for (unsigned round = 0; round < 8; round++) {
		for (uint32_t i = 0; i < LIMIT; i++)
			trace_add(&trace, round % 3 * LIMIT + i, true);
		for (uint32_t i = 0; i < LIMIT; i++)
			trace_discard(&trace, round % 3 * LIMIT + i);
	}
	for (const struct reference *r = references; r->name; r++) {
		o = refer(r->name, &trace, LIMIT);
		cr_expect_eq(o.touches, 8 * LIMIT);
		cr_expect_eq(o.fresh, 8 * LIMIT, "%s %lu", r->name, o.fresh);
		cr_expect_eq(o.reads + o.out, 0, "%s %lu", r->name, o.reads + o.out);
	}
	trace_done(&trace);
}

/* At random: in every state that a page may have. */
Test(sim, discards_at_random)
{
	struct trace trace = {0};
	struct outcome opt;

	for (uint32_t i = 0; i < 40 * LIMIT; i++) {
		uint32_t page = (uint32_t)random() % (2 * LIMIT);

		if (random() % 4)
			trace_add(&trace, page, random() % 2);
		else
			for (uint32_t n = (uint32_t)random() % 9; n; n--)
				trace_discard(&trace, page + n);
	}
	opt = refer("opt", &trace, LIMIT);
	for (const struct reference *r = references; r->name; r++)
		cr_expect_leq(opt.reads, refer(r->name, &trace, LIMIT).reads, "%s", r->name);
	cr_expect_leq(opt.reads, model(&victim_2q, &trace).reads);
	cr_expect_leq(opt.reads, model(&victim_clock, &trace).reads);
	trace_done(&trace);
}

/* ---- files ---- */

static int read_bytes(const void *bytes, size_t n, struct trace *ret, uint64_t *ret_line)
{
	char path[] = "/tmp/test_sim.XXXXXX";
	int fd = mkstemp(path), r;

	cr_assert(fd >= 0);
	cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
	close(fd);
	r = trace_read(path, ret, ret_line);
	unlink(path);
	return r;
}

static void check_trace(const struct trace *trace)
{
	static const uint32_t pages[] = {1, 0, 65, 1};

	cr_assert_eq(trace->n, 4);
	for (size_t i = 0; i < 4; i++) {
		cr_expect_eq(trace_page(trace, i), pages[i], "%zu: %u", i, trace_page(trace, i));
		cr_expect_eq(trace_is_write(trace, i), i == 1);
	}
	cr_expect_eq(trace->n_pages, 66);
	cr_expect_eq(trace->warm, 0);
}

Test(trace, text)
{
	static const char text[] = "# a trace\n0x7f0000002008\n 0x7f0000001fff w # written\n"
				   "0x7fff00000000 r\n\n0x7f0000002000\n";
	struct trace trace;
	uint64_t line;

	cr_assert_eq(read_bytes(text, strlen(text), &trace, &line), 0);
	check_trace(&trace);
	trace_done(&trace);
}

Test(trace, binary)
{
	static const uint64_t words[] = {0, 0x7f0000002000, 0x7f0000001001, 0x7fff00000000,
					 0x7f0000002000};
	struct trace trace;
	uint64_t line;
	char bytes[sizeof(words)];

	memcpy(bytes, words, sizeof(words));
	memcpy(bytes, "pagetrc1", 8);
	cr_assert_eq(read_bytes(bytes, sizeof(bytes), &trace, &line), 0);
	check_trace(&trace);
	trace_done(&trace);
}

Test(trace, refused)
{
	struct trace trace;
	uint64_t line = 0;

	cr_expect_eq(read_bytes("0x1000\nsoap\n", 12, &trace, &line), -EINVAL);
	cr_expect_eq(line, 2);
	cr_expect_eq(read_bytes("0x1000 x\n", 9, &trace, &line), -EINVAL);
	cr_expect_eq(line, 1);
	cr_expect_eq(trace_read("/nonexistent", &trace, &line), -ENOENT);
	cr_expect_eq(read_bytes("", 0, &trace, &line), 0, "nothing is a trace, too");
	cr_expect_eq(trace.n, 0);
}
