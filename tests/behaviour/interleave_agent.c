/* The agent is stopped, killed or slow while the program goes on. */
#include "interleave.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

#define BIG (16 * MIB / PAGE)

/* ---- stale commands ---- */

static void replace_by_mapping(char *at)
{
	must(munmap(at, BIG * PAGE) == 0);
	map_at(at, BIG);
}

static void replace_in_place(char *at)
{
	must(mmap(at, BIG * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		  -1, 0) == at);
}

static void replace_by_discard(char *at)
{
	must(madvise(at, BIG * PAGE, MADV_DONTNEED) == 0);
}

/* The agent stands still with commands for `at`; the range is replaced, filled anew, and only then
 * does it go on: it must leave the new bytes alone. */
static void stale_command(void (*replace)(char *at))
{
	char *at = map(BIG), *extra = map(1024);
	struct op push = {.run = op_fill, .a = extra, .pages = 1024, .salt = 500000};

	fill(extra, 1, 7);
	push_out(extra, 0);
	for (unsigned round = 0; round < 3; round++) {
		uint64_t salt = 1000000 * (round + 1);

		fill(at, BIG, salt);
		sleep_ms(150); /* the agent sleeps, outside the gate */
		stop_idle(agent(0));
		ops_prepare(&push, 1);
		ops_go();
		sleep_ms(100); /* commands are posted: it waits for room */
		replace(at);
		fill(at, BIG / 4, salt + 500000);
		cont(agent(0));
		sleep_ms(100);
		check(at, BIG / 4, salt + 500000);
		check(at + BIG / 4 * PAGE, BIG - BIG / 4, 0);
		ops_join(&push, 1);
		check(extra, 1024, 500000);
		push_out(at, BIG / 4);
		check(at, BIG / 4, salt + 500000);
	}
}

static void stale_unmap(void)
{
	stale_command(replace_by_mapping);
}

static void stale_fixed(void)
{
	stale_command(replace_in_place);
}

static void stale_discard(void)
{
	stale_command(replace_by_discard);
}

/* The same with a move: the content goes with the range, others' bytes come to its address. */
static void stale_remap(void)
{
	char *at = map(BIG), *to = map(BIG), *extra = map(1024);
	struct op push = {.run = op_fill, .a = extra, .pages = 1024, .salt = 500000};
	struct op move = {.run = op_remap, .a = at, .b = to, .pages = BIG};

	fill(extra, 1, 7);
	push_out(extra, 0);
	for (unsigned round = 0; round < 3; round++) {
		fill(at, BIG, 1000000);
		sleep_ms(150);
		stop_idle(agent(0));
		ops_prepare(&push, 1);
		ops_go();
		sleep_ms(100);
		op_remap(&move);
		map_at(at, BIG);
		fill(at, 2, 2000000); /* each waits for room */
		cont(agent(0));
		sleep_ms(100);
		check(at, 2, 2000000);
		check(to, BIG, 1000000);
		ops_join(&push, 1);
		check(extra, 1024, 500000);
		check(at + 2 * PAGE, BIG - 2, 0);
	}
}

/* The range moves while its pages are on their way to a slow swap. */
static void remap_writing(void)
{
	char *at = map(BIG / 2), *to = map(BIG / 2);
	struct op there = {.run = op_remap, .a = at, .b = to, .pages = BIG / 2};

	push_out(at, 0);
	for (unsigned round = 0; round < 8; round++) {
		uint64_t salt = 1000000 * (round + 1);

		fill(at, BIG / 2, salt);
		op_remap(&there);
		map_at(at, BIG / 2);
		fill(at, 256, salt + 500000);
		if (round % 2)
			await(fork_check(to, BIG / 2, salt, false));
		check(to, BIG / 2, salt);
		check(at, 256, salt + 500000);
		check(at + 256 * PAGE, BIG / 2 - 256, 0);
	}
}

/* ---- agents that are gone ---- */

/* Works on more than the limit for a while; meanwhile `meddle` is called. */
static void work(unsigned ms, void (*meddle)(unsigned round))
{
	char *at = map(2 * BIG);
	uint64_t end = clock_ms() + ms;
	unsigned round = 0;

	fill(at, 2 * BIG, 1);
	if (!native && !pages_out(at, 2 * BIG))
		wrong("nothing leaves");
	for (; clock_ms() < end; round++) {
		for (size_t i = 0; i < 2 * BIG; i += 512) {
			char *part = at + i * PAGE;

			meddle(round);
			check(part, 512, 1 + round * 1000000ul + i);
			fill(part, 512, 1 + (round + 1) * 1000000ul + i);
		}
	}
	check(at, 2 * BIG, 1 + round * 1000000ul);
	printf("out %zu\n", pages_out(at, 2 * BIG));
}

static uint64_t meddle_at;
static pid_t targets[2];
static int number;

static void send_once(unsigned round)
{
	(void)round;
	if (!meddle_at)
		meddle_at = clock_ms() + 200 + (unsigned)getpid() % 97;
	if (clock_ms() < meddle_at)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (targets[i])
			must(kill(targets[i], number) == 0);
	targets[0] = targets[1] = 0;
}

static void lose(pid_t first, pid_t second, int signal)
{
	targets[0] = first;
	targets[1] = second;
	number = signal;
	work(4000, send_once);
}

static void agent_stopped(void)
{
	lose(agent(0), 0, SIGSTOP);
}

static void agents_stopped(void)
{
	lose(agent(0), agent(1), SIGSTOP);
}

static void agent_killed(void)
{
	lose(agent(0), 0, SIGKILL);
}

static void spare_killed(void)
{
	lose(agent(1), 0, SIGKILL);
}

static void agents_killed(void)
{
	lose(agent(0), agent(1), SIGKILL);
}

/* Stopped for moments again and again, wherever it stands: in the gate, between move and copy. */
static void nothing(unsigned round)
{
	(void)round;
}

static void agent_flickers(void)
{
	if (native)
		skip("without upager there is no agent");
	agent_flicker(800);
	work(4000, nothing);
}

/* ---- pages that a fork shares ---- */

static void shared_by_fork(void)
{
	char *at = map(BIG), *more = map(BIG), *away = map(16);
	int gate[2];
	pid_t pid;
	char c;

	push_out(at, 0);
	fill(at, BIG, 1);
	must(pipe(gate) == 0);
	pid = fork();
	if (pid == 0) {
		/* It keeps the pages shared, then reads what it has, and goes. */
		close(gate[1]);
		if (read(gate[0], &c, 1) < 0)
			_exit(2);
		check(at, BIG, 1);
		_exit(0);
	}
	close(gate[0]);
	check(at, BIG, 1);
	fill(more, BIG, 2000000); /* what is shared cannot leave */
	check(more, BIG, 2000000);
	check(at, BIG, 1);
	printf("shared-out %zu\n", pages_out(at, BIG));
	close(gate[1]);
	await(pid);
	/* It is alone again: the pages can leave. */
	push_out(at, BIG);
	printf("alone-out %zu\n", pages_out(at, BIG));
	check(at, BIG, 1);
	check(more, BIG, 2000000);
	push_out(at, BIG);
	check(at, BIG, 1);
	munmap(away, 16 * PAGE);
}

/* ---- guard pages ---- */

static sigjmp_buf caught;

static void on_segv(int signal)
{
	(void)signal;
	siglongjmp(caught, 1);
}

static bool is_guarded(char *at)
{
	static volatile char sink;

	if (sigsetjmp(caught, 1))
		return true;
	sink = *(volatile char *)at;
	(void)sink;
	return false;
}

static void guard_stream(bool evicted)
{
	enum { PAGES = 2048, GUARD = 1000 };
	char *at = map(PAGES);

	push_out(at, 0);
	sleep_ms(50); /* it is registered */
	if (evicted) {
		fill(at, PAGES, 1);
		push_out(at, PAGES);
		check(at + 1500 * PAGE, 64, 1501);
		push_out(at, PAGES);
	}
	if (madvise(at + GUARD * PAGE, PAGE, MADV_GUARD_INSTALL))
		skip("this kernel has no guard pages");
	/* A stream runs up to the guard, then on behind it. */
	if (evicted) {
		check(at, GUARD, 1);
		must(is_guarded(at + GUARD * PAGE));
		check(at + (GUARD + 1) * PAGE, PAGES - GUARD - 1, GUARD + 2);
	} else {
		fill(at, GUARD, 1);
		must(is_guarded(at + GUARD * PAGE));
		fill(at + (GUARD + 1) * PAGE, PAGES - GUARD - 1, GUARD + 2);
	}
	must(is_guarded(at + GUARD * PAGE));
	push_out(at, GUARD);
	check(at, GUARD, 1);
	check(at + (GUARD + 1) * PAGE, PAGES - GUARD - 1, GUARD + 2);
	must(is_guarded(at + GUARD * PAGE));
	must(madvise(at + GUARD * PAGE, PAGE, MADV_GUARD_REMOVE) == 0);
	check(at + GUARD * PAGE, 1, 0);
	fill(at + GUARD * PAGE, 1, 99);
	push_out(at, PAGES);
	check(at + GUARD * PAGE, 1, 99);
}

static void guards(void)
{
	signal(SIGSEGV, on_segv);
	guard_stream(false);
	guard_stream(true);
}

const struct interleaving agent_interleavings[] = {
    {"stale-unmap", stale_unmap},
    {"stale-fixed", stale_fixed},
    {"stale-discard", stale_discard},
    {"stale-remap", stale_remap},
    {"remap-writing", remap_writing},
    {"agent-stopped", agent_stopped},
    {"agents-stopped", agents_stopped},
    {"agent-killed", agent_killed},
    {"spare-killed", spare_killed},
    {"agents-killed", agents_killed},
    {"agent-flickers", agent_flickers},
    {"shared-by-fork", shared_by_fork},
    {"guards", guards},
    {NULL, NULL},
};
