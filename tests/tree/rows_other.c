/* The other sides of the table: fork, discard, eviction, refault. */
#include "rows.h"

#include <sys/mman.h>
#include <unistd.h>

#define SALT 1000

static char *evicted(size_t pages)
{
	char *at = region(pages);

	fill(at, pages, SALT);
	expel_to_tier(at, pages);
	return at;
}

/* F1: a fork counts the slots of both. */
static void fork_evicted(void)
{
	char *at = evicted(64);
	struct figures before = figures();

	await(fork_check(at, 64, SALT, false));
	same_as(since(&before).used, 0);
	for (unsigned i = 0; i < 2; i++) /* several at once, and one after the other */
		await(fork_check(at, 64, SALT, false));
	same_as(since(&before).used, 0);
	check(at, 64, SALT);
}

/* F2: protection survives a fork on both sides. (clean = wp) */
static void fork_protected(void)
{
	char *at = evicted(8);
	struct figures before, d;
	pid_t pid;

	check(at, 8, SALT);
	before = figures();
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		poke(at, 5);
		_exit(0);
	}
	await(pid);
	d = since(&before);
	at_least(d.wp_reuse, 1);
	before = figures();
	poke(at, 6);
	d = since(&before);
	same_as(d.wp_reuse, 1);
	same_as(d.messages, 1);
	must(peek(at) == 6);
	check(at + PAGE, 7, SALT + 1);
}

/* F3: what is discarded gives its slots back, and reads as zeros. */
static void discard(void)
{
	char *at = evicted(64);
	struct figures before = figures(), d;

	must(madvise(at, 32 * PAGE, MADV_DONTNEED) == 0);
	d = since(&before);
	same_as(d.used, -32);
	same_as(d.remove, 1);
	check(at, 32, 0);
	check(at + 32 * PAGE, 32, SALT + 32);
	d = since(&before);
	at_least(d.zero, 1);
	same_as(d.pages_in, 32);
	must(munmap(at, 64 * PAGE) == 0);
	d = since(&before);
	same_as(d.used, -64);
}

/* F4: a slot is not read before it is written: whoever touches the page has it from the frame. And
 * what is locked does not leave. */
static void not_read_before_written(void)
{
	char *at = region(4), *locked = region(64);
	bool seen = false;

	fill(locked, 64, 70000);
	must(mlock(locked, 64 * PAGE) == 0);
	for (unsigned round = 0; round < 8 && !seen; round++) {
		struct figures before = figures(), d;

		fill(at, 4, SALT + round);
		expel(at, 4); /* writes take long: they are under way */
		check(at, 4, SALT + round);
		d = since(&before);
		seen = d.pages_in == 0 && d.standby_hits >= 4;
	}
	must(seen);
	must(is_in(locked, 64));
	check(locked, 64, 70000);
}

/* F6: nothing is written for what is in its slot already, or needs none. (See also the unit test.) */
static void nothing_to_write(void)
{
	char *at = evicted(64), *same = region(64);
	struct figures before = figures(), d;

	check(at, 64, SALT);
	for (unsigned i = 0; i < 64; i++)
		for (unsigned w = 0; w < WORDS; w++)
			((uint64_t *)(same + i * PAGE))[w] = 0x0101010101010101ul * i;
	expel_to_tier(at, 64);
	expel_to_tier(same, 64);
	d = since(&before);
	same_as(d.pages_out, 0);
	same_as(d.used, 0);
	at_least(d.clean, 64);
	check(at, 64, SALT);
	for (unsigned i = 0; i < 64; i++)
		must(peek(same + i * PAGE + 512) == 0x0101010101010101ul * i);
}

/* F7: how much has left since it left? Little: the page belongs to what is worked with. Much: not. */
static void refault_distance(void)
{
	char *at = region(64);
	struct figures before, d;

	fill(at, 64, SALT);
	expel(at, 64);
	before = figures();
	check(at, 64, SALT);
	d = since(&before);
	same_as(d.activate, 64);
	expel_to_tier(at, 64);
	for (unsigned i = 0; i < 2; i++) { /* as much again, twice */
		char *other = region(2048);

		fill(other, 2048, 70000);
		expel(other, 2048);
		must(munmap(other, 2048 * PAGE) == 0);
	}
	before = figures();
	check(at, 64, SALT);
	d = since(&before);
	same_as(d.activate, 0);
	same_as(d.major, 64);
}

const struct interleaving other_rows[] = {
    {"row_F1_fork_of_evicted_pages", fork_evicted},
    {"row_F2_fork_of_protected_pages", fork_protected},
    {"row_F3_discard_frees_slots", discard},
    {"row_F4_frame_before_slot", not_read_before_written},
    {"row_F6_nothing_to_write", nothing_to_write},
    {"row_F7_refault_distance", refault_distance},
    {NULL, NULL},
};
