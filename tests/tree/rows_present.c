/* The page is there, or its frame is: protection, hints, and what the kernel does alone. */
#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SALT 1000
#define FAR(at, i) ((at) + (size_t)(i) * 64 * PAGE)

/* ---- hints ---- */

static void pin(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setaffinity(pid, sizeof(set), &set) == 0);
}

/* The daemon's worker is the thread that is not the first. */
static void pin_daemon(int cpu)
{
	char path[64];
	pid_t tid;

	for (tid = daemon_pid(); tid < daemon_pid() + 64; tid++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)daemon_pid(), (int)tid);
		if (access(path, F_OK) == 0)
			pin(tid, cpu);
	}
}

static int second_cpu(void)
{
	cpu_set_t set;

	must(sched_getaffinity(0, sizeof(set), &set) == 0);
	if (!CPU_ISSET(0, &set) || !CPU_ISSET(1, &set))
		skip("processors 0 and 1 are needed");
	return 1;
}

/* Row 56: the touch of a page on standby is the hint: no read, and the page comes to the node of the
 * thread that touches it. (The daemon is told of two nodes: even and odd processors.) */
static void hint(void)
{
	int other = second_cpu();
	unsigned far = 0, near = 0;
	char *at = region(16);

	pin_daemon(0);
	for (unsigned round = 0; round < 40 && (far < 2 || near < 2); round++) {
		bool is_far = far <= near;
		struct figures before, d;

		pin(0, is_far ? other : 0);
		expel_to_standby(at, 16, SALT + 16 * round);
		before = figures();
		must(peek(at) != 0);
		d = since(&before);
		check(at, 16, SALT + 16 * round);
		if (!d.minor)
			continue;
		same_as(d.pages_in, 0);
		same_as(d.migrated, is_far);
		far += is_far;
		near += !is_far;
	}
	at_least(far, 2);
	at_least(near, 2);
}

/* Row 57: when the message is looked at, the page has come back for somebody else. */
static void resolved_meanwhile(void)
{
	char *at = region(16);

	for (unsigned round = 0; round < 20; round++) {
		struct figures d;

		expel_to_standby(at, 16, SALT);
		d = touch_together(at, false);
		check(at, 16, SALT);
		if (!d.minor || d.major)
			continue; /* it had left its frame */
		at_least(d.race, TOUCHERS - 1);
		same_as(d.pages_in, 0);
		return;
	}
	wrong("no page was ever on standby");
}

/* ---- writes ---- */

/* Row 59: the zero page becomes memory. */
static void zero_page_written(void)
{
	char *at = region(4 * 64);
	struct figures before, d;

	for (unsigned i = 0; i < 4; i++)
		check(FAR(at, i), 1, 0);
	before = figures();
	for (unsigned i = 0; i < 4; i++)
		poke(FAR(at, i), 5);
	d = since(&before);
	same_as(d.wp_reuse, 4);
	same_as(d.messages, 4);
	same_as(d.zero + d.pages_in, 0);
	for (unsigned i = 0; i < 4; i++)
		must(peek(FAR(at, i)) == 5 && peek(FAR(at, i) + 8) == 0);
	same_as(since(&before).messages, 4);
}

static char *read_in(size_t pages)
{
	char *at = region(pages);

	fill(at, pages, SALT);
	expel_to_tier(at, pages);
	check(at, pages, SALT);
	return at;
}

/* Row 60: the first write to a page that was only read: its slot goes, nothing else happens.
 * (clean = wp) */
static void reuse(void)
{
	char *at = read_in(64);
	struct figures before = figures(), d;

	for (unsigned i = 0; i < 64; i += 8)
		poke(at + i * PAGE, 5);
	d = since(&before);
	same_as(d.wp_reuse, 8);
	same_as(d.messages, 8);
	same_as(d.used, -8);
	same_as(d.evicted + d.pages_in + d.zero, 0);
	for (unsigned i = 0; i < 64; i += 8)
		poke(at + i * PAGE, 6);
	same_as(since(&before).messages, 8);
}

static void child_writes(char *at, size_t pages)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (pid == 0) {
		fill(at, pages, 70000);
		check(at, pages, 70000);
		_exit(0);
	}
	await(pid);
}

/* Row 61: the kernel copies what a fork shares. Protected before (clean = wp), the write is told of
 * on the child's own descriptor; not protected, nobody hears of it. */
static void shared_protected(void)
{
	char *at = read_in(8);
	struct figures before = figures(), d;

	child_writes(at, 8);
	d = since(&before);
	at_least(d.wp_reuse, 8);
	check(at, 8, SALT);
	same_as(d.used, 0);
}

static void shared_unprotected(void)
{
	char *at = region(8);
	struct figures before, d;

	fill(at, 8, SALT);
	before = figures();
	child_writes(at, 8);
	d = since(&before);
	same_as(d.messages, d.fork + d.handshake);
	check(at, 8, SALT);
}

/* Row 64: there is no memory for the copy: that is between the kernel and the child. */
static void copy_fails(void)
{
	char *at = region(600);
	struct cgroup group;
	int go[2], status;
	pid_t pid;
	char c;

	fill(at, 600, SALT);
	must(pipe2(go, O_CLOEXEC) == 0);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		fill(at, 600, 70000);
		_exit(0);
	}
	cgroup_enter(&group, pid);
	must(cgroup_set(&group, "memory.limit_in_bytes", MIB / 4));
	must(write(go[1], "g", 1) == 1 && waitpid(pid, &status, 0) == pid);
	cgroup_leave(&group, 0);
	must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	check(at, 600, SALT);
	expel_to_tier(at, 600);
	check(at, 600, SALT);
}

/* Rows 65 and 67: what is there and may be touched is nobody's business. */
static void touched_again(bool write)
{
	char *at = region(64);
	struct figures before, d;

	fill(at, 64, SALT);
	before = figures();
	for (unsigned round = 0; round < 100; round++) {
		if (write)
			fill(at, 64, SALT + round);
		else
			check(at, 64, SALT);
	}
	d = since(&before);
	same_as(d.messages, 0);
	check(at, 64, write ? SALT + 99 : SALT);
}

static void written_again(void)
{
	touched_again(true);
}

static void read_again(void)
{
	touched_again(false);
}

static void op_write(struct op *op)
{
	poke(op->a, op->salt);
}

static void op_map_over(struct op *op)
{
	sleep_ms(40); /* the write waits, and it would be waited for */
	must(mmap(op->a, op->pages * PAGE, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == op->a);
}

/* Row 66: a write's message that there is nothing to be done about any more. */
static void spurious(void)
{
	char *at = region(64);
	struct op ops[] = {{.run = op_write, .a = at + 7 * PAGE, .pages = 1, .salt = 5},
			   {.run = op_map_over, .a = at, .pages = 64}};
	struct figures before, d;

	check(at + 7 * PAGE, 1, 0); /* the zero page, protected */
	ops_prepare(ops, 2);
	before = figures();
	daemon_hold(150);
	ops_go();
	daemon_wait();
	ops_join(ops, 2);
	d = since(&before);
	at_least(d.spurious, 1);
	same_as(d.pages_in + d.wp_reuse, 0);
	must(peek(at + 7 * PAGE) == 5);
}

/* Several writes to one protected page: the first is let through, the others with it. */
static void let_through_once(void)
{
	char *at = region(64);
	struct figures d;

	check(at, 1, 0);
	d = touch_together(at, true);
	at_least(d.wp_reuse + d.spurious, TOUCHERS);
	same_as(d.pages_in, 0);
	for (unsigned i = 0; i < TOUCHERS; i++)
		must(peek(at + (i + 1) * 8) == 700 + i);
}

const struct interleaving present_rows[] = {
    {"row_56_standby_touch_is_a_hint", hint},
    {"row_57_resolved_meanwhile", resolved_meanwhile},
    {"row_59_zero_page_written", zero_page_written},
    {"row_60_sole_owner_writes", reuse},
    {"row_61_shared_protected_page", shared_protected},
    {"row_61_shared_page", shared_unprotected},
    {"row_64_copy_has_no_memory", copy_fails},
    {"row_65_write_again", written_again},
    {"row_66_spurious_write", spurious},
    {"row_66_many_threads_one_write_fault", let_through_once},
    {"row_67_read_again", read_again},
    {NULL, NULL},
};
