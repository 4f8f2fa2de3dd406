/* A page that has left: from messages about nothing to reads that others wait for. */
#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define SALT 1000

static char *evicted(size_t pages)
{
	char *at = region(pages);

	fill(at, pages, SALT);
	expel_to_tier(at, pages);
	return at;
}

static void op_map_over(struct op *op)
{
	must(mmap(op->a, op->pages * PAGE, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == op->a);
}

/* Row 41: by the time the message is looked at, something else is mapped there, which is none of the
 * pager's. */
static void stale_message(void)
{
	char *at = evicted(64);
	struct op ops[] = {{.run = op_touch, .a = at + 7 * PAGE, .pages = 1, .word = 1},
			   {.run = op_map_over, .a = at, .pages = 64, .delay = 40}};
	struct figures before, d;

	ops_prepare(ops, 2);
	before = figures();
	daemon_hold(150);
	ops_go();
	daemon_wait();
	ops_join(ops, 2);
	d = since(&before);
	must(ops[0].word == 0);
	at_least(d.spurious, 1);
	same_as(d.pages_in + d.major + d.minor, 0);
	check(at, 64, 0);
}

static void op_write_all(struct op *op)
{
	for (size_t i = 0; i < op->pages; i++)
		poke(op->a + i * PAGE, op->salt + i);
}

/* Row 42 and F5: a write to a protected page that is about to leave waits for the command, and
 * then goes on with the page that has come back. (clean = wp: what was read is protected.) */
static void parks_on_eviction(void)
{
	enum { PAGES = 4096 };
	char *at = evicted(PAGES), *copy = map(1);
	struct op write = {.run = op_write_all, .a = at, .pages = PAGES, .salt = 5000};
	struct figures before, d;

	set_limit(24 * MIB);
	ballast_discard(); /* what can leave is this, and nothing else */
	check(at, PAGES, SALT);
	ops_prepare(&write, 1);
	stop_idle(agent(0));
	before = figures();
	set_limit(16 * MIB); /* a command is posted */
	sleep_ms(100);
	ops_go();
	sleep_ms(300);
	d = since(&before);
	same_as(d.parked, 1); /* one writer, waiting for one page */
	must(!atomic_load(&write.done));
	cont(agent(0));
	ops_join(&write, 1);
	d = since(&before);
	at_least(d.minor + d.major, 1); /* the page had left, and came back */
	for (size_t i = 0; i < PAGES; i++) {
		must(peek(at + i * PAGE) == 5000 + i);
		fill(copy, 1, SALT + i);
		must(!memcmp(at + i * PAGE + 8, copy + 8, PAGE - 8));
	}
}

/* Row 43: the kernel knows already, and nobody is asked. */
static void guard(void)
{
	char *at = region(64);
	struct figures before, d;

	fill(at, 64, SALT);
	expel(at, 64);
	if (madvise(at + 9 * PAGE, PAGE, MADV_GUARD_INSTALL))
		skip("this kernel has no guard pages");
	before = figures();
	must(signal_of_read(at + 9 * PAGE) == SIGSEGV);
	must(signal_of_write(at + 9 * PAGE) == SIGSEGV);
	d = since(&before);
	same_as(d.messages, 0);
	check(at, 9, SALT);
	check(at + 10 * PAGE, 54, SALT + 10);
	must(signal_of_read(at + 9 * PAGE) == SIGSEGV);
}

/* Where the bytes of page `salt` lie in the swap file. */
static off_t slot_of(int fd, uint64_t salt)
{
	static uint64_t page[WORDS];
	char *wanted = map(1);

	fill(wanted, 1, salt);
	for (off_t at = 0; pread(fd, page, PAGE, at) == PAGE; at += PAGE)
		if (!memcmp(page, wanted, PAGE)) {
			munmap(wanted, PAGE);
			return at;
		}
	wrong("the page is not in the swap file");
}

static void corrupt(uint64_t salt, unsigned pages)
{
	int fd = open_swap(O_RDWR);

	for (unsigned i = 0; i < pages; i++)
		must(pwrite(fd, "x", 1, slot_of(fd, salt + i) + 1234) == 1);
	must(fsync(fd) == 0);
	close(fd);
}

static void poisoned_stays(void)
{
	char *at = evicted(64);
	struct figures before, d;

	corrupt(SALT + 5, 1);
	must(signal_of_read(at + 5 * PAGE) == SIGBUS);
	before = figures();
	must(signal_of_read(at + 5 * PAGE) == SIGBUS);
	must(signal_of_write(at + 5 * PAGE) == SIGBUS);
	d = since(&before);
	same_as(d.messages, 0);
	must(madvise(at + 5 * PAGE, PAGE, MADV_DONTNEED) == 0);
	check(at + 5 * PAGE, 1, 0);
	check(at, 5, SALT);
}

/* Row 44: it is still in a frame. */
static void standby(void)
{
	char *at = region(16);
	struct figures before, d;

	for (unsigned round = 0; round < 20; round++) {
		expel_to_standby(at, 16, SALT + 16 * round);
		before = figures();
		must(peek(at) != 0);
		d = since(&before);
		same_as(d.messages, 1);
		same_as(d.minor + d.major, 1);
		check(at, 16, SALT + 16 * round);
		if (d.minor) {
			same_as(d.standby_hits, 1);
			same_as(d.pages_in, 0);
			return;
		}
	}
	wrong("no page was ever on standby");
}

/* Row 45: it is read. */
static void miss(void)
{
	char *at = evicted(64);
	struct figures before = figures(), d;

	check(at + 20 * PAGE, 1, SALT + 20);
	d = since(&before);
	same_as(d.major, 1);
	same_as(d.messages, 1);
	same_as(d.pages_in, 1);
	same_as(d.minor + d.readahead, 0);
	check(at, 64, SALT);
}

/* A stream brings its neighbours (readahead as ever). */
static void reads_ahead(void)
{
	char *at = evicted(512);
	struct figures before = figures(), d;

	check(at, 512, SALT);
	d = since(&before);
	same_as(d.pages_in + d.standby_hits, 512);
	at_least(d.readahead, 384);
	between(d.major, 2, 128);
}

/* Row 46: nothing to read yet: the slot's bytes are still on their way there from another task. */
static void not_yet_written(void)
{
	char *at = region(1);

	for (unsigned round = 0; round < 8; round++) {
		struct figures before = figures(), d;

		fill(at, 1, SALT + round);
		expel(at, 1);
		await(fork_check(at, 1, SALT + round, false));
		d = since(&before);
		check(at, 1, SALT + round);
		if (d.retries)
			return;
	}
	wrong("it was always written already");
}

/* Row 47: it is known to be lost: SIGBUS, without another read. */
static void known_to_be_lost(void)
{
	char *at = evicted(32);
	struct figures before, d;

	corrupt(SALT, 32);
	before = figures();
	for (unsigned i = 0; i < 32; i++)
		must(signal_of_read(at + i * PAGE) == SIGBUS);
	d = since(&before);
	same_as(d.poisoned, 32);
	same_as(d.pages_in, 32);
	between(d.major, 1, 31);
}

/* Row 48: it is being read for another thread. */
static void one_read(void)
{
	char *at = evicted(64);
	struct figures before = figures(), d;

	touch_begin(at + 3 * PAGE, TOUCHERS, false);
	touch_end();
	d = since(&before);
	same_as(d.major, 1);
	same_as(d.pages_in, 1);
	at_least(d.parked, TOUCHERS - 1);
	check(at + 3 * PAGE, 1, SALT + 3);
}

/* ---- slots ---- */

/* Row 49: while the page is being read it is discarded, and its slot goes to others. */
static void slot_reused(void)
{
	char *at = evicted(200);
	struct figures before = figures();

	touch_begin(at + 50 * PAGE, 1, false);
	sleep_ms(20);
	must(madvise(at, 200 * PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < 2; i++) { /* every slot of the tier is taken several times */
		char *other = region(150);

		fill(other, 150, 70000);
		expel(other, 150);
		check(other, 150, 70000);
		must(munmap(other, 150 * PAGE) == 0);
	}
	touch_end();
	check(at, 200, 0);
	same_as(since(&before).poisoned, 0);
}

/* Row 50: it is read, but there is no memory to put it in: the slot is kept. */
static void no_memory(void)
{
	char *at = evicted(64);
	struct figures before = figures(), d;

	inject->error = ENOMEM;
	inject->fail[INJECT_COPY] = 5;
	check(at + 30 * PAGE, 1, SALT + 30);
	d = since(&before);
	same_as(inject->failed[INJECT_COPY], 5);
	same_as(d.major, 6);
	same_as(d.messages, 6);
	same_as(d.used, 0);
	at_least(d.reclaims, 1);
	check(at, 64, SALT);
}

/* Row 51: when it has been read, something else is there. */
static void replaced_meanwhile(void)
{
	char *at = evicted(64);
	struct figures before = figures(), d;

	touch_begin(at + 30 * PAGE, 1, false);
	sleep_ms(20);
	must(madvise(at + 30 * PAGE, PAGE, MADV_DONTNEED) == 0);
	fill(at + 30 * PAGE, 1, 5);
	touch_end();
	sleep_ms(150);
	d = since(&before);
	same_as(d.used, -1);
	same_as(d.major, 1);
	check(at + 30 * PAGE, 1, 5);
	check(at + 29 * PAGE, 1, SALT + 29);
	check(at + 31 * PAGE, 1, SALT + 31);
}

/* Row 52: what was read is not what was written. */
static void checksum(void)
{
	char *at = evicted(64);
	struct figures before, d;

	corrupt(SALT + 40, 1);
	before = figures();
	must(signal_of_read(at + 40 * PAGE) == SIGBUS);
	d = since(&before);
	same_as(d.poisoned, 1);
	same_as(d.used, -1);
	check(at, 40, SALT);
	check(at + 41 * PAGE, 23, SALT + 41);
}

/* Row 53: a write makes the slot useless. It goes at once where slots are short (here the tier is
 * more than half full), else when the page leaves again. */
static void sole_owner(void)
{
	char *at = evicted(200);
	struct figures before = figures(), d;

	poke(at + 70 * PAGE, 5);
	d = since(&before);
	same_as(d.major, 1);
	same_as(d.used, -1);
	same_as(d.wp_reuse, 0);
	must(peek(at + 70 * PAGE) == 5);
	check(at, 70, SALT);
}

static void sole_owner_later(void)
{
	char *at = evicted(64);
	struct figures before = figures(), d;

	fill(at, 64, 70000);
	expel_to_tier(at, 64);
	d = since(&before);
	same_as(d.used, 0);
	same_as(d.clean, 0);
	same_as(d.pages_out, 64);
	check(at, 64, 70000);
}

/* Row 54: the other owner of the slot keeps what was there. */
static void shared_slot(void)
{
	char *at = evicted(64);
	struct figures before = figures();
	pid_t pid = fork();

	must(pid >= 0);
	if (pid == 0) {
		poke(at + 9 * PAGE, 5);
		must(peek(at + 9 * PAGE) == 5);
		check(at, 9, SALT);
		fill(at, 64, 70000);
		check(at, 64, 70000);
		_exit(0);
	}
	await(pid);
	same_as(since(&before).used, 0);
	check(at, 64, SALT);
}

/* Row 55: what was only read leaves again without being written. */
static void clean(void)
{
	char *at = evicted(256);
	struct figures before = figures(), d;

	check(at, 256, SALT);
	d = since(&before);
	same_as(d.used, 0);
	expel_to_tier(at, 256);
	d = since(&before);
	same_as(d.pages_out, 0);
	same_as(d.clean, 256);
	check(at, 256, SALT);
}

const struct interleaving swap_rows[] = {
    {"row_41_stale_message_is_woken", stale_message},
    {"row_42_parks_on_eviction", parks_on_eviction},
    {"row_F5_blocked_writer_resumes", parks_on_eviction},
    {"row_43_guard_page", guard},
    {"row_43_poisoned_page_stays", poisoned_stays},
    {"row_44_standby_hit", standby},
    {"row_45_swap_miss_reads_tier", miss},
    {"row_45_stream_reads_ahead", reads_ahead},
    {"row_46_slot_not_yet_written", not_yet_written},
    {"row_47_known_to_be_lost", known_to_be_lost},
    {"row_48_many_threads_one_read", one_read},
    {NULL, NULL},
};

const struct interleaving slot_rows[] = {
    {"row_49_slot_reassigned", slot_reused},
    {"row_50_no_memory_after_the_read", no_memory},
    {"row_51_replaced_while_read", replaced_meanwhile},
    {"row_52_checksum_mismatch", checksum},
    {"row_53_write_frees_the_slot", sole_owner},
    {"row_53_written_page_leaves_again", sole_owner_later},
    {"row_54_sibling_keeps_old_bytes", shared_slot},
    {"row_55_clean_page_is_not_written", clean},
    {NULL, NULL},
};
