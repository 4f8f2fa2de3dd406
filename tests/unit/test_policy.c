/* policy/: numbers in, choices out. */
#include <criterion/criterion.h>

#include "base/util.h"
#include "policy/poll.h"
#include "policy/pressure.h"
#include "policy/refault.h"
#include "policy/stream.h"
#include "policy/victim.h"
#include "proto/exchange.h"

static word_t present(unsigned flags)
{
	return word_make(WORD_PRESENT, flags, 0, 7);
}

Test(clock, choose)
{
	cr_expect_eq(victim_clock.choose(WORD_NONE, VICTIM_HAND, 0), VICTIM_TAKE);
	cr_expect_eq(victim_clock.choose(present(0), VICTIM_HAND, 1), VICTIM_TAKE);
	cr_expect_eq(victim_clock.choose(present(WORD_YOUNG), VICTIM_HAND, 1), VICTIM_SPARE);
}

Test(clock, spared)
{
	word_t word = present(WORD_YOUNG | WORD_ACTIVE);

	word = victim_clock.spared(word);
	cr_expect_eq(word, present(WORD_ACTIVE));
	cr_expect_eq(victim_clock.choose(word, VICTIM_HAND, 0), VICTIM_SPARE);
	word = victim_clock.spared(word);
	cr_expect_eq(word, present(0));
	cr_expect_eq(victim_clock.choose(word, VICTIM_HAND, 0), VICTIM_TAKE);
}

Test(clock, comes)
{
	struct victims v = {.memory = 1000};

	cr_expect_eq(victim_clock.comes(&v, &(struct victim_page){.new = true}), WORD_YOUNG);
	cr_expect_eq(victim_clock.comes(&v, &(struct victim_page){.distance = 1000}), WORD_YOUNG);
	cr_expect_eq(victim_clock.comes(&v, &(struct victim_page){.asked = true, .distance = 1001}),
		     WORD_YOUNG);
	cr_expect_eq(victim_clock.comes(&v, &(struct victim_page){.asked = true, .distance = 1000}),
		     WORD_YOUNG | WORD_ACTIVE);
}

/* What every policy must do. */
Test(victim, leaves_alone_what_cannot_leave)
{
	const struct victim_policy *policies[] = {&victim_2q, &victim_clock};

	for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
		for (unsigned from = VICTIM_HAND; from <= VICTIM_QUEUE; from++) {
			word_t pinned = present(WORD_PINNED | (from == VICTIM_QUEUE ? WORD_YOUNG : 0));

			if (from == VICTIM_QUEUE && !policies[i]->queues)
				continue;
			for (uint64_t lap = 0; lap < 32; lap++)
				cr_expect_eq(policies[i]->choose(pinned, from, lap),
					     lap % 8 ? VICTIM_SKIP : VICTIM_TAKE);
			for (unsigned tag = WORD_EVICTING; tag < WORD_TAGS; tag++)
				cr_expect_eq(policies[i]->choose(word_make(tag, 0, 0, 0), from, 0),
					     VICTIM_SKIP, "%s", word_tag_name(tag));
		}
}

/* However a page is offered again and again, it leaves at last: else the limit could not be held. */
Test(victim, nothing_is_spared_for_ever)
{
	const struct victim_policy *policies[] = {&victim_2q, &victim_clock};

	for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
		for (unsigned flags = 0; flags <= WORD_FLAGS; flags += 1 << 4) {
			word_t word = present(flags);
			uint64_t lap = 0;

			while (policies[i]->choose(word, VICTIM_HAND, lap) != VICTIM_TAKE) {
				if (policies[i]->choose(word, VICTIM_HAND, lap) == VICTIM_SPARE)
					word = policies[i]->spared(word);
				cr_assert(++lap < 16, "%s: %#x", policies[i]->name, flags);
			}
		}
}

Test(twoq, choose)
{
	cr_expect_eq(victim_2q.choose(WORD_NONE, VICTIM_HAND, 0), VICTIM_TAKE);
	cr_expect_eq(victim_2q.choose(WORD_NONE, VICTIM_QUEUE, 0), VICTIM_TAKE);
	cr_expect_eq(victim_2q.choose(present(0), VICTIM_HAND, 0), VICTIM_TAKE);
	cr_expect_eq(victim_2q.choose(present(0), VICTIM_QUEUE, 0), VICTIM_SKIP, "in the main part");
	cr_expect_eq(victim_2q.choose(present(WORD_YOUNG), VICTIM_HAND, 0), VICTIM_SPARE);
	cr_expect_eq(victim_2q.choose(present(WORD_YOUNG), VICTIM_QUEUE, 0), VICTIM_TAKE);
}

/* Within reach: the main part. A page of a stream must come back sixteen times as soon. */
Test(twoq, comes)
{
	static const struct {
		struct victim_page page;
		unsigned flags;
	} cases[] = {
		{{.new = true}, WORD_YOUNG},
		{{.distance = 1600}, WORD_ACTIVE},
		{{.distance = 1601}, WORD_YOUNG},
		{{.distance = 100, .streamed = true}, WORD_ACTIVE},
		{{.distance = 101, .streamed = true}, WORD_YOUNG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct victims v = {.resident = 1600, .memory = 1600, .queued = 100};

		cr_expect_eq(victim_2q.comes(&v, &cases[i].page), cases[i].flags, "case %zu", i);
	}
}

/* If too much is on probation, the main part is short, and gets what comes until it is not. */
Test(twoq, room_in_the_main_part)
{
	static const struct {
		uint64_t queued;
		unsigned flags;
	} steps[] = {{100, WORD_YOUNG}, {101, 0}, {100, 0}, {51, 0}, {50, WORD_YOUNG}, {51, WORD_YOUNG}};
	struct victims v = {.resident = 1600, .memory = 1600};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		v.queued = steps[i].queued;
		cr_expect_eq(victim_2q.comes(&v, &(struct victim_page){.new = true}), steps[i].flags,
			     "step %zu", i);
	}
}

/* Four fifths of what the hand takes come back within reach: then that stays as it is. */
Test(twoq, reach)
{
	const struct victim_page back = {.by_hand = true, .distance = 6000};
	struct victims v = {.resident = 16000, .memory = 16000, .queued = 0, .reach = 10000 << 8};

	for (unsigned i = 0; i < 1000; i++) {
		victim_2q.left(&v, VICTIM_HAND, 5);
		for (unsigned k = 0; k < 4; k++)
			victim_2q.comes(&v, &back);
	}
	cr_expect(v.reach > 8000 << 8 && v.reach < 12000 << 8, "%lu", v.reach >> 8);
	for (unsigned i = 0; i < 10000; i++) {
		victim_2q.left(&v, VICTIM_HAND, 1);
		victim_2q.comes(&v, &back);
	}
	cr_expect(v.reach >> 8 <= 6000 && v.reach >> 8 > 5900,
		  "all of it: down to where it is not: %lu", v.reach >> 8);
	victim_2q.left(&v, VICTIM_QUEUE, 10000);
	cr_expect(v.reach >> 8 <= 6000, "what the queue lets go tells nothing");
	for (unsigned i = 0; i < 1000; i++)
		victim_2q.comes(&v, &(struct victim_page){.by_hand = true});
	cr_expect_eq(v.reach >> 8, 16000 / 4, "at once: no nearer than that");
	for (unsigned i = 0; i < 10; i++)
		victim_2q.left(&v, VICTIM_HAND, 512);
	cr_expect_eq(v.reach >> 8, 16 * 16000, "nothing: the main part is dead");
	cr_expect_eq(victim_2q.comes(&v, &(struct victim_page){.new = true}), WORD_ACTIVE);
}

static unsigned by_hand(struct victims *v, unsigned commands)
{
	unsigned n = 0;

	while (commands--) {
		uint32_t want = 256;

		n += victim_2q.source(v, &want) == VICTIM_HAND;
	}
	return n;
}

/* The queue, while more than its share is in it; but the hand takes a run once in a while. */
Test(twoq, source)
{
	struct victims v = {.resident = 1600, .memory = 1600, .queued = 50};
	uint32_t want = 256;

	cr_expect_eq(victim_2q.source(&v, &want), VICTIM_HAND);
	cr_expect_eq(want, 64);
	v.queued = 80;
	want = 256;
	cr_expect_eq(victim_2q.source(&v, &want), VICTIM_QUEUE);
	cr_expect_eq(want, 30);
	v.leaving = 0;
	cr_expect_eq(by_hand(&v, 280), 10, "after half of the memory: 27 commands of 30 pages");
	v.reach = 16 * 1600 << 8;
	cr_expect_eq(by_hand(&v, 30), 10, "the main part is dead");
	v = (struct victims){.resident = 1 << 20, .memory = 1 << 20, .queued = 1 << 20};
	cr_expect_eq(by_hand(&v, 330), 10, "after 32 commands of 256 pages");
}

Test(refault, row_F7_distance)
{
	static const struct {
		uint32_t evictions, shadow;
		uint64_t resident;
		bool activates;
	} cases[] = {
		{0, 0, 0, true},       {100, 0, 100, true},         {101, 0, 100, false},
		{5000, 4990, 9, false}, {5000, 4990, 10, true},      {3, UINT32_MAX - 3, 7, true},
		{3, UINT32_MAX - 3, 6, false}, {0, 1, UINT32_MAX - 1, false}, {0, 1, UINT32_MAX, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		cr_expect_eq(refault_activates(refault_distance(cases[i].evictions,
								cases[i].shadow),
					       cases[i].resident),
			     cases[i].activates, "case %zu", i);
}

Test(stream, doubles_while_it_lasts)
{
	struct streams streams = {0};
	struct stream *stream;
	uint64_t at = 0x10000000;
	uint32_t expected = 1;

	for (unsigned i = 0; i < 10; i++) {
		uint32_t window = stream_window(&streams, 0, at, 64, &stream);

		cr_expect_eq(window, expected, "%u: %u", i, window);
		at += window * (uint64_t)PAGE_SIZE;
		stream_advance(stream, at);
		expected = MIN(expected * 2, 64u);
	}
	cr_expect_eq(stream_window(&streams, 0, at + 100 * PAGE_SIZE, 64, &stream), 1, "a jump");
	cr_expect_eq(stream_window(&streams, 0, at + 16 * PAGE_SIZE, 64, &stream), 64,
		     "some were there already");
}

Test(stream, bounds)
{
	struct streams streams = {0};
	struct stream *stream;

	for (unsigned i = 0; i < 10000; i++) {
		uint64_t at = 0x1000000 + (i * 2654435761u) % 4096 * (uint64_t)PAGE_SIZE;
		uint32_t max = 1 + i % 512, window = stream_window(&streams, 0, at, max, &stream);

		cr_assert(window >= 1 && window <= max, "%u of %u", window, max);
		stream_advance(stream, at + window * (uint64_t)PAGE_SIZE);
	}
}

Test(stream, several_at_once)
{
	struct streams streams = {0};
	struct stream *stream;
	uint32_t window = 0;

	for (unsigned turn = 0; turn < 6; turn++)
		for (unsigned i = 0; i < STREAMS; i++) {
			uint64_t at = (i + 1) * 0x10000000ull + turn * 100ull * PAGE_SIZE;

			window = stream_window(&streams, 0, at, 32, &stream);
			stream_advance(stream, at + 100ull * PAGE_SIZE);
		}
	cr_expect_eq(window, 32, "each goes on by itself");
}

/* Faults of one thread, so many bytes apart, n of them; the last one's window. */
static uint32_t walk(struct streams *streams, uint32_t thread, uint64_t at, int64_t step, unsigned n,
		     struct stream **stream)
{
	uint32_t window = 0;

	for (unsigned i = 0; i < n; i++, at += (uint64_t)step) {
		window = stream_window(streams, thread, at, 64, stream);
		stream_advance(*stream, at + (uint64_t)(*stream)->step);
	}
	return window;
}

Test(stream, other_steps)
{
	static const int64_t steps[] = {-4096, -5 * 4096, 7 * 4096, 16 * 4096, 300 * 4096};
	struct streams streams = {0};
	struct stream *stream;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		uint32_t window = walk(&streams, 1, 0x700000000000, steps[i], 9, &stream);

		cr_expect_eq(stream->step, steps[i], "step %zu: %lld", i, (long long)stream->step);
		cr_expect_geq(window, 32, "step %zu: %u", i, window);
	}
	walk(&streams, 0, 0x700000000000, -4096, 9, &stream);
	cr_expect_eq(stream->step, PAGE_SIZE, "of no thread");
}

Test(stream, threads_do_not_mix)
{
	struct streams streams = {0};
	struct stream *stream;

	for (unsigned i = 0; i < 8; i++) {
		stream_window(&streams, 1, 0x10000000 - i * 4096ull, 64, &stream);
		stream_advance(stream, 0x10000000 - i * 4096ull + (uint64_t)stream->step);
		cr_expect(i < 2 || stream->step == -4096, "%u", i);
		stream_window(&streams, 2, 0x20000000 + i * 5 * 4096ull, 64, &stream);
		stream_advance(stream, 0x20000000 + i * 5 * 4096ull + (uint64_t)stream->step);
		cr_expect(i < 2 || stream->step == 5 * 4096, "%u", i);
	}
}

Test(stream, random_faults_leave_it_alone)
{
	struct streams streams = {0};
	struct stream *stream;
	uint64_t at = 0x10000000;
	uint32_t window = 0;

	for (unsigned i = 0; i < 1000; i++) {
		if (i % (i < 200 ? 20 : 100) == 0) {
			window = stream_window(&streams, 1, at, 64, &stream);
			stream_advance(stream, at += window * 4096ull);
		} else {
			stream_window(&streams, 2, 0x100000000 + i * i * 2654435761ull % 65536 * 4096,
				      64, &stream);
			stream_advance(stream, 0x300000000);
		}
	}
	cr_expect_eq(window, 64, "%u", window);
}

/* Random faults now and then fall where a stream once ended. */
Test(stream, begins_anew_after_a_pause)
{
	struct streams streams = {0};
	struct stream *stream;
	uint64_t at = 0x10000000;

	cr_expect_eq(walk(&streams, 1, at, 4096, 9, &stream), 64);
	for (unsigned i = 0; i < 500; i++)
		stream_window(&streams, 2, 0x100000000 + i * i * 2654435761ull % 65536 * 4096, 64,
			      &stream);
	cr_expect_leq(stream_window(&streams, 1, at + 12 * 4096, 64, &stream), 2);
}

Test(stream, steps)
{
	struct stream s = {.step = -3 * 4096};

	cr_expect_eq(stream_steps(&s, 0x10000, 0x10000 - 6 * 4096, 10), 2);
	cr_expect_eq(stream_steps(&s, 0x10000, 0x10000 - 7 * 4096, 10), -1, "between");
	cr_expect_eq(stream_steps(&s, 0x10000, 0x10000 + 6 * 4096, 10), -1, "behind");
	cr_expect_eq(stream_steps(&s, 0x10000, 0x10000 - 6 * 4096, 1), -1, "too far");
}

/* ---- poll ---- */

Test(poll, while_a_read_is_awaited)
{
	struct poll p = {0};

	for (unsigned i = 0; i < 50; i++) {
		poll_read_begins(&p, i * 1000000);
		poll_read_ends(&p, 50000);
	}
	poll_read_begins(&p, 100000000);
	cr_expect(poll_pays(&p, 100050000, true));
	cr_expect_not(poll_pays(&p, 100050000, false));
	cr_expect_not(poll_pays(&p, 100150000, true), "longer than they take");
	for (unsigned i = 0; i < 50; i++)
		poll_read_ends(&p, 5000000);
	cr_expect_not(poll_pays(&p, 100000001, true), "a slow device");
}

Test(poll, a_moment_that_does_not_pay_is_given_up)
{
	struct poll p = {.moment = 20000};
	unsigned tried = 0;

	for (uint64_t at = 1; at <= 1000; at++) {
		poll_active(&p, at * 1000000);
		tried += poll_pays(&p, at * 1000000 + 1000, false);
		cr_expect_not(poll_pays(&p, at * 1000000 + 30000, false));
	}
	cr_expect_leq(tried, 30, "%u", tried);
	/* Then it does. */
	for (uint64_t i = 0; i < 200; i++)
		poll_active(&p, 2000000000 + i * 10000);
	cr_expect(poll_pays(&p, 2000000000 + 199 * 10000 + 1000, false));
}

Test(pressure, bounds)
{
	for (uint64_t bytes = PRESSURE_LIMIT_MIN; bytes <= 1ull << 40; bytes += bytes / 8) {
		uint64_t limit = bytes_to_pages(bytes);
		uint64_t overheads[] = {0, 300, pressure_frames(limit, 1) + 2 * EXCHANGE_BATCH,
					limit / 2};

		for (size_t i = 0; i < ARRAY_SIZE(overheads); i++) {
			struct pressure p = pressure_of(limit, overheads[i]);

			cr_assert_eq(p.limit, limit);
			cr_assert(p.high <= limit - overheads[i], "%lu: high %lu", bytes, p.high);
			cr_assert(p.low < p.high, "%lu: low %lu", bytes, p.low);
			cr_assert(p.arm < p.low, "%lu: arm %lu", bytes, p.arm);
			cr_assert(p.arm > 0);
		}
	}
}

/* More overhead than limit: nothing sensible can be held, but nothing wraps. */
Test(pressure, overhead_beyond_limit)
{
	struct pressure p = pressure_of(4096, 1 << 20);

	cr_expect(p.high > 0 && p.high <= 4096);
	cr_expect(p.low < p.high);
	cr_expect(p.arm <= p.low);
}

Test(pressure, frames)
{
	for (uint64_t bytes = PRESSURE_LIMIT_MIN; bytes <= 1ull << 40; bytes *= 2) {
		uint32_t before = UINT32_MAX;

		for (unsigned tasks = 0; tasks < 100; tasks++) {
			uint32_t n = pressure_frames(bytes_to_pages(bytes), tasks);

			cr_assert(n > 0 && n <= EXCHANGE_FRAMES_MAX && n <= before);
			before = n;
		}
		cr_expect(pressure_frames(bytes_to_pages(bytes), 1) <= bytes_to_pages(bytes) / 8);
	}
}

Test(pressure, interval)
{
	struct pressure p = pressure_of(1 << 20, 0);

	cr_expect_eq(pressure_interval_ns(&p, p.arm), 1 * MS);
	cr_expect_eq(pressure_interval_ns(&p, 1ull << 40), 1 * MS);
	cr_expect_eq(pressure_interval_ns(&p, 0), 100 * MS);
	/* 8 GB/s cannot come from here to there in that time. */
	cr_expect(pressure_interval_ns(&p, p.arm - 20000) * 8 <= 20000ull * PAGE_SIZE);
}
