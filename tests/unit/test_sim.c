/* bench/sim: references against known figures, and the pager's policies against them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "policy/victim.h"
#include "proto/trace.h"
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

static int read_bytes(const void *bytes, size_t n, struct trace *ret, struct source *ret_source)
{
	char path[] = "/tmp/test_sim.XXXXXX";
	int fd = mkstemp(path), r;

	cr_assert(fd >= 0);
	cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
	close(fd);
	r = trace_read(path, ret, ret_source);
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
	struct source source;

	cr_assert_eq(read_bytes(text, strlen(text), &trace, &source), 0);
	check_trace(&trace);
	trace_done(&trace);
}

Test(trace, binary)
{
	static const uint64_t words[] = {0, 0x7f0000002000, 0x7f0000001001, 0x7fff00000000,
					 0x7f0000002000};
	struct trace trace;
	struct source source;
	char bytes[sizeof(words)];

	memcpy(bytes, words, sizeof(words));
	memcpy(bytes, "pagetrc1", 8);
	cr_assert_eq(read_bytes(bytes, sizeof(bytes), &trace, &source), 0);
	check_trace(&trace);
	trace_done(&trace);
}

Test(trace, refused)
{
	struct trace trace;
	struct source source;

	cr_expect_eq(read_bytes("0x1000\nsoap\n", 12, &trace, &source), -EINVAL);
	cr_expect_eq(source.line, 2);
	cr_expect_eq(read_bytes("0x1000 x\n", 9, &trace, &source), -EINVAL);
	cr_expect_eq(source.line, 1);
	cr_expect_eq(trace_read("/nonexistent", &trace, &source), -ENOENT);
	cr_expect_eq(read_bytes("", 0, &trace, &source), 0, "nothing is a trace, too");
	cr_expect_eq(trace.n, 0);
}

/* ---- recordings ---- */

#define SWAP TRACE_LEAF_swap
#define PAGE(n) ((uint64_t)(n) << PAGE_SHIFT)

/* Two tasks, at the same addresses. */
static const struct trace_record recorded[] = {
	{.kind = TRACE_LIMIT, .a = 4096},
	{.kind = TRACE_TASK, .task = 7},
	{.kind = TRACE_FAULT, .task = 7, .address = PAGE(100), .a = TRACE_WRITES},
	{.kind = TRACE_IN, .task = 7, .address = PAGE(100), .pages = 4},
	{.kind = TRACE_OUTCOME, .task = 7, .address = PAGE(100), .how = TRACE_OUTCOME_zero},
	{.kind = TRACE_FAULT, .task = 9, .address = PAGE(100)},
	{.kind = TRACE_IN, .task = 9, .address = PAGE(100), .pages = 1},
	/* The stream goes on, so 101 to 103 have been used; nobody knows it of 105 and 106. */
	{.kind = TRACE_FAULT, .task = 7, .address = PAGE(104)},
	{.kind = TRACE_IN, .task = 7, .address = PAGE(104), .pages = 3},
	/* Two threads, one page. */
	{.kind = TRACE_FAULT, .task = 9, .tid = 1, .address = PAGE(101), .how = SWAP},
	{.kind = TRACE_OUTCOME, .task = 9, .tid = 1, .address = PAGE(101), .how = TRACE_OUTCOME_major},
	{.kind = TRACE_FAULT, .task = 9, .tid = 2, .address = PAGE(101), .how = SWAP, .a = TRACE_WRITES},
	{.kind = TRACE_IN, .task = 9, .address = PAGE(101), .pages = 1, .how = TRACE_LEAF_filling},
	{.kind = TRACE_EVICTED, .task = 7, .address = PAGE(105), .pages = 2, .b = 2},
	{.kind = TRACE_FAULT, .task = 7, .address = PAGE(107)},
	{.kind = TRACE_OUTCOME, .task = 7, .address = PAGE(107), .how = TRACE_OUTCOME_race},
	/* No touches of what is paged. */
	{.kind = TRACE_FAULT, .task = 7, .address = PAGE(200), .a = TRACE_BY_AGENT},
	{.kind = TRACE_IN, .task = 7, .address = PAGE(200), .pages = 1},
	{.kind = TRACE_FAULT, .task = 7, .address = PAGE(900), .how = TRACE_LEAF_file},
	{.kind = TRACE_IN, .task = 7, .address = PAGE(900), .pages = 512, .how = TRACE_LEAF_file},
	{.kind = TRACE_LOST, .a = 3},
	/* It moves, and stays the same page. */
	{.kind = TRACE_REMAP, .task = 7, .address = PAGE(104), .pages = 1, .a = 300},
	{.kind = TRACE_FAULT, .task = 7, .address = PAGE(300), .how = SWAP},
	{.kind = TRACE_REMOVE, .task = 9, .address = PAGE(101), .pages = 1, .how = 1},
	{.kind = TRACE_REMOVE, .task = 9, .address = PAGE(90), .pages = 11},
	{.kind = TRACE_FAULT, .task = 9, .address = PAGE(100)},
	{.kind = TRACE_UNMAP, .task = 7, .address = 0, .pages = 1ull << 40},
	{.kind = TRACE_GONE, .task = 9},
	{.kind = TRACE_END, .a = 28, .b = 3},
};

static const struct trace_header recorded_by = {
	.magic = TRACE_MAGIC, .version = TRACE_VERSION, .size = sizeof(recorded_by), .group = "g"};

/* => bytes */
static size_t encode(const struct trace_record *records, size_t n_records, uint8_t *to)
{
	struct trace_state state = {0};
	size_t n = sizeof(recorded_by);

	memcpy(to, &recorded_by, n);
	for (size_t i = 0; i < n_records; i++)
		n += trace_encode(&state, &records[i], to + n);
	return n;
}

static uint8_t bytes[sizeof(recorded_by) + 1000 * TRACE_RECORD_MAX];

Test(recording, is_replayed)
{
	static const struct {
		char op;
		uint32_t page;
	} expected[] = {
		/* used before it is known: the second task's 101 */
		{'w', 136},
		{'w', 0}, {'r', 135}, {'r', 1}, {'r', 2}, {'r', 3}, {'r', 4}, {'w', 136}, {'r', 7},
		{'r', 4}, {'d', 135}, {'r', 135}};
	size_t n = encode(recorded, ARRAY_SIZE(recorded), bytes);
	struct source source;
	struct trace trace;

	cr_assert_eq(read_bytes(bytes, n, &trace, &source), 0);
	cr_expect_eq(source.kind, SOURCE_RECORDING);
	cr_assert_eq(trace.warm, 1);
	cr_assert_eq(trace.discards, 1 + 6 + 2);
	cr_assert_eq(trace.n, ARRAY_SIZE(expected) + 8);
	for (size_t i = 0; i < trace.n; i++) {
		char op = trace_is_discard(&trace, i) ? 'd' : trace_is_write(&trace, i) ? 'w' : 'r';

		cr_expect_eq(op, i < ARRAY_SIZE(expected) ? expected[i].op : 'd', "%zu: %c", i, op);
		if (i < ARRAY_SIZE(expected))
			cr_expect_eq(trace_page(&trace, i), expected[i].page, "%zu: %u", i,
				     trace_page(&trace, i));
	}
	cr_expect_eq(source.recording.limit, 4096);
	cr_expect_eq(source.recording.tasks, 2);
	cr_expect_eq(source.recording.faults, 7);
	cr_expect_eq(source.recording.along, 3);
	cr_expect_eq(source.recording.discarded, 9);
	cr_expect_eq(source.recording.lost, 3);
	cr_expect_eq(source.recording.offset, n);
	cr_expect(source.recording.whole);
	trace_done(&trace);
}

/* It may end anywhere, and is replayed up to there; within its header it is none. */
Test(recording, is_cut)
{
	size_t n = encode(recorded, ARRAY_SIZE(recorded), bytes);
	uint64_t touches = 0, offset = 0;

	for (size_t cut = 0; cut < n; cut++) {
		struct trace trace = {0};
		struct source source;
		int r = read_bytes(bytes, cut, &trace, &source);

		cr_assert_eq(r, cut == 0 ? 0 : cut < 8 ? -EINVAL : cut < sizeof(recorded_by) ? -EBADMSG : 0,
			     "%zu: %d", cut, r);
		if (cut < sizeof(recorded_by)) {
			cr_expect_eq(source.recording.offset, 0);
			continue;
		}
		cr_expect_not(source.recording.whole);
		cr_expect(source.recording.offset >= offset && source.recording.offset <= cut);
		cr_expect_geq(trace.n, touches);
		touches = trace.n;
		offset = source.recording.offset;
		trace_done(&trace);
	}
	cr_expect_gt(touches, 10);
}

Test(recording, is_damaged)
{
	static const struct trace_record too_many[] = {
		{.kind = TRACE_GONE, .task = 1},
		{.kind = TRACE_IN, .task = 1, .address = PAGE(1), .pages = 1ull << 40}};
	size_t n = encode(recorded, ARRAY_SIZE(recorded), bytes), before = encode(recorded, 5, bytes);
	struct source source;
	struct trace trace;

	encode(recorded, ARRAY_SIZE(recorded), bytes);
	bytes[before] = TRACE_N_KINDS;
	cr_expect_eq(read_bytes(bytes, n, &trace, &source), -EBADMSG);
	cr_expect_eq(source.recording.offset, before, "%lu", source.recording.offset);

	n = encode(too_many, 2, bytes);
	cr_expect_eq(read_bytes(bytes, n, &trace, &source), -EBADMSG);
	cr_expect_eq(source.recording.offset, encode(too_many, 1, bytes), "where the record begins");

	bytes[8]++;
	cr_expect_eq(read_bytes(bytes, n, &trace, &source), -EPROTONOSUPPORT);
	bytes[0]++;
	cr_expect_eq(read_bytes(bytes, n, &trace, &source), -EINVAL);
	cr_expect_eq(source.line, 1);
}

/* Whatever records say, and in whatever order. */
Test(recording, hostile, .timeout = 120)
{
	static struct trace_record records[1000];
	uint64_t touches = 0;

	for (unsigned round = 0; round < 100; round++) {
		struct source source;
		struct trace trace;
		size_t n;
		int r;

		for (size_t i = 0; i < ARRAY_SIZE(records); i++)
			records[i] = (struct trace_record){
				.kind = (uint8_t)(1 + random() % (TRACE_END - 1)),
				.task = (uint64_t)random() % 3,
				.address = PAGE(random() % 64 ? random() % 200 : random() << 20),
				.pages = 1 + (random() % 64 ? random() % 9 : random() % 300000),
				.how = (uint8_t)(random() % (random() % 8 ? 4 : 128)),
				.a = (uint64_t)random() % (random() % 8 ? 200 : UINT64_MAX),
				.b = (uint64_t)random() % 2,
			};
		n = encode(records, ARRAY_SIZE(records), bytes);
		for (unsigned i = 0; i < round % 4; i++)
			bytes[sizeof(recorded_by) + (size_t)random() % (n - sizeof(recorded_by))] =
			    (uint8_t)random();
		r = read_bytes(bytes, n, &trace, &source);
		cr_assert(r == 0 || r == -EBADMSG, "%d", r);
		if (r == 0) {
			touches += trace.n;
			trace_done(&trace);
		}
	}
	cr_expect_gt(touches, 1000);
}
