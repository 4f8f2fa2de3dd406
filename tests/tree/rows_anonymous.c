/* Nothing there yet: first touches. */
#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Pages far enough apart that none is part of another's stream. */
#define FAR(at, i) ((at) + (size_t)(i) * 64 * PAGE)

static uint64_t frame_of(const char *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	must(fd >= 0 && pread(fd, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) == 8);
	close(fd);
	return entry & ((1ull << 55) - 1);
}

/* Row 24: zeros, without memory, without a tier. */
static void anonymous_read(void)
{
	char *at = region(4 * 64);
	struct figures before = figures(), d;

	for (unsigned i = 0; i < 4; i++)
		check(FAR(at, i), 1, 0);
	d = since(&before);
	same_as(d.zero, 4);
	same_as(d.messages, 4);
	same_as(d.pages_in + d.readahead, 0);
	must(frame_of(FAR(at, 0)) == frame_of(FAR(at, 3))); /* the one zero page */
}

/* Row 25: memory of its own; the write is there and the rest is zero. */
static void anonymous_write(void)
{
	char *at = region(4 * 64);
	struct figures before = figures(), d;

	for (unsigned i = 0; i < 4; i++)
		poke(FAR(at, i) + 8, 77 + i);
	d = since(&before);
	same_as(d.zero, 4);
	same_as(d.messages, 4);
	same_as(d.pages_in + d.wp_reuse, 0);
	for (unsigned i = 0; i < 4; i++) {
		must(peek(FAR(at, i) + 8) == 77 + i);
		poke(FAR(at, i) + 8, 0);
		check(FAR(at, i), 1, 0);
	}
	must(frame_of(FAR(at, 0)) != frame_of(FAR(at, 3)));
}

static void check_touches(const char *at)
{
	for (unsigned i = 0; i < TOUCHERS; i++)
		must(peek(at + (i + 1) * 8) == 700 + i);
}

/* Row 26: many threads, one fill. */
static void one_fill(void)
{
	char *at = region(2 * 64);
	struct figures d = touch_together(at, true);

	check_touches(at);
	same_as(d.zero, 1);
	at_least(d.race, TOUCHERS - 1);
	same_as(d.pages_in, 0);
	d = touch_together(FAR(at, 1), false);
	same_as(d.zero, 1);
	at_least(d.race, TOUCHERS - 1);
	check(FAR(at, 1), 1, 0);
}

/* Row 27: no memory for it: it waits, as in row 6. */
static void no_memory(void)
{
	char *at = region(4 * 64);
	struct figures before = figures(), d;

	inject->error = ENOMEM;
	inject->fail[INJECT_ZEROPAGE] = 20;
	poke(FAR(at, 0), 5);
	d = since(&before);
	same_as(d.zero, 1);
	same_as(d.messages, 1);
	same_as(d.retries, 20);
	must(peek(FAR(at, 0)) == 5);
}

/* Row 28: a program that is killed while it waits for pages leaves no slot behind. */
static void dying(void)
{
	struct figures before = figures(), d;
	int ready[2], status;
	pid_t pid;
	char c;

	must(pipe2(ready, O_CLOEXEC) == 0);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		char *at = region(512);

		fill(at, 512, 1000);
		expel_to_tier(at, 512);
		must(write(ready[1], "r", 1) == 1);
		for (unsigned i = 0; i < 8; i++)
			touch_begin(FAR(at, i), 1, i % 2);
		pause();
		_exit(1);
	}
	must(read(ready[0], &c, 1) == 1);
	sleep_ms(50);
	at_least(since(&before).used, 500);
	must(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	for (unsigned i = 0; i < 50 && since(&before).used; i++)
		;
	d = since(&before);
	same_as(d.used, 0);
}

const struct interleaving anonymous_rows[] = {
    {"row_24_anonymous_read", anonymous_read},
    {"row_25_anonymous_write", anonymous_write},
    {"row_26_many_threads_one_fill", one_fill},
    {"row_27_no_memory_for_zeros", no_memory},
    {"row_28_dying_task_frees_slots", dying},
    {NULL, NULL},
};
