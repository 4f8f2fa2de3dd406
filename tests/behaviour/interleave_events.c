/* The daemon is held while threads change the address space: events wait, and are then read in an
 * order, and at a time, that is not that of the changes. */
#include "interleave.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES  512ul
#define HOLD   120 /* ms that the daemon is held */
#define ROUNDS 2

static char *a, *b, *c, *below;

/* a and b are evicted, c is a free address: a hole too small for the stacks of threads. */
static void begin(void)
{
	a = map(PAGES);
	b = map(PAGES);
	below = map(PAGES + 1);
	c = below + PAGE;
	fill(a, PAGES, 1000);
	fill(b, PAGES, 20000);
	push_out(a, PAGES);
	push_out(b, PAGES);
	must(munmap(c, PAGES * PAGE) == 0);
}

static void end(void)
{
	for (unsigned i = 0; i < 3; i++) {
		char *at = (char *[]){a, b, c}[i];

		must(munmap(at, PAGES * PAGE) == 0);
	}
	must(munmap(below, PAGE) == 0);
}

static void run(struct op *ops, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!ops[i].pages)
			ops[i].pages = PAGES;
	ops_prepare(ops, n);
	if (!native)
		daemon_hold(HOLD);
	ops_go();
	if (!native)
		daemon_wait();
	ops_join(ops, n);
	printf("waited %u of %u\n", ops_waited(ops, n, HOLD / 4), n);
}

static void unmap_remap(void)
{
	struct op ops[] = {{.run = op_unmap, .a = a},
			   {.run = op_remap, .a = b, .b = a, .delay = 30}};

	run(ops, 2);
	check(a, PAGES, 20000);
	must(!is_mapped(b));
	push_out(a, PAGES);
	check(a, PAGES, 20000);
}

static void unmap_map(void)
{
	struct op ops[] = {{.run = op_unmap, .a = a},
			   {.run = op_map_fill, .a = a, .salt = 70000, .delay = 30}};

	run(ops, 2);
	check(a, PAGES, 70000);
	push_out(a, PAGES);
	check(a, PAGES, 70000);
	check(b, PAGES, 20000);
}

/* a → c, other bytes at a, b → a's old place … */
static void remap_map_remap(void)
{
	struct op ops[] = {{.run = op_remap, .a = a, .b = c},
			   {.run = op_map_fill, .a = a, .salt = 70000, .delay = 25},
			   {.run = op_remap, .a = b, .b = a, .delay = 50}};

	run(ops, 3);
	check(c, PAGES, 1000);
	check(a, PAGES, 20000);
}

/* The same range moves twice, and another one comes after it. */
static void remap_chain(void)
{
	struct op ops[] = {{.run = op_remap, .a = a, .b = c},
			   {.run = op_remap, .a = c, .b = a, .delay = 25},
			   {.run = op_remap, .a = b, .b = c, .delay = 50}};

	run(ops, 3);
	check(a, PAGES, 1000);
	check(c, PAGES, 20000);
	push_out(c, PAGES);
	check(c, PAGES, 20000);
}

static void discard_remap(void)
{
	struct op ops[] = {{.run = op_discard, .a = a},
			   {.run = op_remap, .a = a, .b = c, .delay = 30}};

	run(ops, 2);
	check_either(c, PAGES, 1000);
}

/* The other thread's fault and the discard wait together: afterwards there are zeros. */
static void discard_touch(void)
{
	struct op ops[] = {{.run = op_discard, .a = a},
			   {.run = op_touch, .a = a, .delay = 20},
			   {.run = op_touch, .a = a + 100 * PAGE, .delay = 20},
			   {.run = op_touch, .a = a + (PAGES - 1) * PAGE, .delay = 20}};

	run(ops, 4);
	check(a, PAGES, 0);
	fill(a, PAGES, 5000);
	push_out(a, PAGES);
	check(a, PAGES, 5000);
}

static void touch_discard(void)
{
	struct op ops[] = {{.run = op_touch, .a = a},
			   {.run = op_touch, .a = a + 100 * PAGE},
			   {.run = op_discard, .a = a, .delay = 30}};

	run(ops, 3);
	check(a, PAGES, 0);
}

static void discard_unmap_map(void)
{
	struct op ops[] = {{.run = op_discard, .a = a, .pages = PAGES / 2},
			   {.run = op_unmap, .a = a, .delay = 25},
			   {.run = op_map_fill, .a = a, .salt = 70000, .delay = 50}};

	run(ops, 3);
	/* The zap, which comes last, may meet the new mapping. */
	check_either(a, PAGES / 2, 70000);
	check(a + PAGES / 2 * PAGE, PAGES / 2, 70000 + PAGES / 2);
}

/* ---- fork ---- */

static void op_fork(struct op *op)
{
	pid_t pid = fork_check(op->a, op->pages, op->salt, op->b != NULL);

	/* A grandchild would not be ours to wait for: the thread that forked waits. */
	await(pid);
}

static void fork_unmap(void)
{
	struct op ops[] = {{.run = op_fork, .forks = true, .a = a, .salt = 1000},
			   {.run = op_unmap, .a = a, .delay = 30}};

	run(ops, 2);
	must(!is_mapped(a));
	check(b, PAGES, 20000);
}

static void fork_remap(void)
{
	struct op ops[] = {{.run = op_fork, .forks = true, .a = a, .salt = 1000},
			   {.run = op_remap, .a = a, .b = c, .delay = 30}};

	run(ops, 2);
	check(c, PAGES, 1000);
}

static void fork_discard(void)
{
	struct op ops[] = {{.run = op_fork, .forks = true, .a = a, .salt = 1000},
			   {.run = op_discard, .a = a, .delay = 30}};

	run(ops, 2);
	check(a, PAGES, 0);
}

static void remap_fork(void)
{
	struct op ops[] = {{.run = op_remap, .a = a, .b = c},
			   {.run = op_fork, .forks = true, .a = c, .salt = 1000, .delay = 30}};

	run(ops, 2);
	check(c, PAGES, 1000);
}

static void unmap_remap_fork(void)
{
	struct op ops[] = {{.run = op_unmap, .a = a},
			   {.run = op_remap, .a = b, .b = a, .delay = 25},
			   {.run = op_fork, .forks = true, .a = a, .salt = 20000, .delay = 50}};

	run(ops, 3);
	check(a, PAGES, 20000);
}

static void discard_fork(void)
{
	struct op ops[] = {
	    {.run = op_discard, .a = a},
	    {.run = op_fork, .forks = true, .a = a, .b = a, .salt = 1000, .delay = 30}};

	run(ops, 2);
	check(a, PAGES, 0);
}

static void fork_unmap_map(void)
{
	struct op ops[] = {{.run = op_fork, .forks = true, .a = a, .salt = 1000},
			   {.run = op_unmap, .a = a, .delay = 20},
			   {.run = op_map_fill, .a = a, .salt = 70000, .delay = 40},
			   {.run = op_fork, .forks = true, .a = a, .salt = 70000, .delay = 70}};

	run(ops, 4);
	check(a, PAGES, 70000);
}

/* ---- as fast as they can, nobody held: the events themselves may change places ---- */

/* As soon as a is gone, b comes to its address. */
static void op_chase(struct op *op)
{
	for (;;) {
		char *at = mmap(op->b, op->pages * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (at == op->b)
			break;
		must(at == MAP_FAILED && errno == EEXIST);
	}
	op_remap(op);
}

static void chase(void)
{
	for (unsigned i = 0; i < 60; i++) {
		struct op ops[] = {{.run = op_unmap, .a = a, .pages = 64},
				   {.run = op_chase, .a = b, .b = a, .pages = 64}};

		ops_prepare(ops, 2);
		ops_go();
		ops_join(ops, 2);
		check(a, 64, 20000);
		map_at(b, 64);
		fill(b, 64, 20000);
		if (i % 8 == 0) {
			push_out(a, 64);
			push_out(b, 64);
		}
	}
}

/* Discards and touches of evicted pages, without any pause. */
static void discard_storm(void)
{
	for (unsigned i = 0; i < 30; i++) {
		struct op ops[] = {{.run = op_touch, .a = a + i * 16 * PAGE, .pages = 16},
				   {.run = op_touch, .a = a + (i * 16 + 5) * PAGE, .pages = 16},
				   {.run = op_discard, .a = a + i * 16 * PAGE, .pages = 16}};

		ops_prepare(ops, 3);
		ops_go();
		ops_join(ops, 3);
		check(a + i * 16 * PAGE, 16, 0);
	}
	check(a + 480 * PAGE, PAGES - 480, 1480);
}

static void several(void (*const *each)(void), unsigned n)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < n; i++) {
			begin();
			each[i]();
			end();
		}
		ballast_check();
	}
}

static void ranges(void)
{
	several((void (*const[])(void)){unmap_remap, unmap_map, remap_map_remap, remap_chain}, 4);
}

static void discards(void)
{
	several(
	    (void (*const[])(void)){discard_remap, discard_touch, touch_discard, discard_unmap_map},
	    4);
}

static void forks(void)
{
	several((void (*const[])(void)){fork_unmap, fork_remap, fork_discard, remap_fork,
					unmap_remap_fork, discard_fork, fork_unmap_map},
		7);
}

static void storms(void)
{
	several((void (*const[])(void)){chase, discard_storm}, 2);
}

const struct interleaving event_interleavings[] = {
    {"ranges", ranges}, {"discards", discards}, {"forks", forks}, {"storms", storms}, {NULL, NULL},
};
