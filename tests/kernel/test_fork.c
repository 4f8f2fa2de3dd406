/* fork, as pager/fork.c and the sentinel's handshake need it. */
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "kernel.h"

TestSuite(fork, .timeout = 20);

#define FORK UFFD_FEATURE_EVENT_FORK

static int reads(void *at)
{
	return *(volatile unsigned char *)at;
}

static int writes(void *at)
{
	*(volatile char *)at = 'c';
	return 0;
}

/* Reads when it is its turn. */
static int reads_later(void *argument)
{
	struct turns *turns = argument;

	turn_wait(turns, 1);
	return reads(turns->at);
}

static int waits(void *argument)
{
	turn_wait(argument, 1);
	return 0;
}

/* ---- the event ---- */

Test(fork, waits_until_its_event_is_read)
{
	int uffd = uffd_new(WP | FORK), child_uffd;
	struct turns *turns = turns_new();
	struct deed d;

	registered(uffd, 1);
	deed_fork(&d, waits, turns);
	pending(uffd);
	deed_waits(&d);
	child_uffd = event_fork(uffd);
	cr_assert(child_uffd >= 0 && child_uffd != uffd);
	turn_set(turns, 1);
	is_eq(child_end(deed_pid(&d)), 0);
}

/* The handshake's answer goes to the child alone. */
Test(fork, the_child_is_served_through_the_uffd_of_the_event)
{
	int uffd = uffd_new(WP | FORK), child_uffd;
	char *at = registered(uffd, 1);
	struct deed d;

	deed_fork(&d, reads, at);
	child_uffd = event_fork(uffd);
	fault(child_uffd, at, F_READ);
	silent(uffd);
	is_eq(copy_in(child_uffd, at, page_of(9), PAGE, 0), PAGE);
	is_eq(child_end(deed_pid(&d)), 9);
	is_eq(entry(at), 0);
}

/* sys/uffd.c opens with both; a child's is never opened by us. */
Test(fork, the_childs_uffd_has_the_flags_of_its_parents)
{
	int uffd = uffd_new(WP | FORK), child_uffd;
	struct turns *turns = turns_new();
	struct deed d;

	registered(uffd, 1);
	deed_fork(&d, waits, turns);
	child_uffd = event_fork(uffd);
	is_eq(fcntl(child_uffd, F_GETFD), FD_CLOEXEC);
	is_eq(fcntl(child_uffd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	turn_set(turns, 1);
	is_eq(child_end(deed_pid(&d)), 0);
}

/* A child's child is told through the child's. */
static int forks(void *at)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(reads(at));
	return waitpid(pid, &status, 0) == pid ? WEXITSTATUS(status) : 99;
}

Test(fork, the_childs_uffd_has_the_events_of_its_parents)
{
	int uffd = uffd_new(WP | FORK), child_uffd, grandchild_uffd;
	char *at = registered(uffd, 1);
	struct deed d;

	deed_fork(&d, forks, at);
	child_uffd = event_fork(uffd);
	grandchild_uffd = event_fork(child_uffd);
	fault(grandchild_uffd, at, F_READ);
	is_eq(copy_in(grandchild_uffd, at, page_of(5), PAGE, 0), PAGE);
	is_eq(child_end(deed_pid(&d)), 5);
	silent(uffd);
}

/* The event stays until there is room for the descriptor. */
Test(fork, the_event_is_not_lost_for_want_of_descriptors)
{
	int uffd = uffd_new(WP | FORK);
	char *at = registered(uffd, 1);
	struct rlimit limit, none;
	struct uffd_msg m;
	struct deed d;

	is_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	deed_fork(&d, reads, at);
	pending(uffd);
	is_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	is_eq(err(read(uffd, &m, sizeof(m))), -EMFILE);
	is_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	deed_waits(&d);
	is_eq(copy_in(event_fork(uffd), at, page_of(9), PAGE, 0), PAGE);
	is_eq(child_end(deed_pid(&d)), 9);
}

/* vfork and posix_spawn: the memory is the same, nothing is to be done. */
static int clone_reads(void *at)
{
	return reads(at);
}

Test(fork, sharing_the_memory_raises_no_event)
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	int uffd = uffd_new(WP | FORK);
	char *at = registered(uffd, 1);
	pid_t pid;

	is_eq(copy_in(uffd, at, page_of(3), PAGE, 0), PAGE);
	pid = clone(clone_reads, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, at);
	is_eq(child_end(pid), 3);
	silent(uffd);
}

/* ---- when there is one, and when not ---- */

/* What would be evicted would read as zeros there: so the events are demanded. */
Test(fork, without_events_the_child_reads_zeros)
{
	int uffd = uffd_new(MARKER);
	char *at = registered(uffd, 1);

	is_eq(protect(uffd, at, PAGE), 0);
	is_eq(child_run(reads, at), 0);
	silent(uffd);
	cr_assert(is_marker(at));
}

Test(fork, no_event_if_the_child_inherits_nothing_registered)
{
	int uffd = uffd_new(WP | FORK);
	char *at = registered(uffd, 1);

	is_eq(err(madvise(at, PAGE, MADV_DONTFORK)), 0);
	is_eq(child_run(waits, &(struct turns){.turn = 1}), 0);
	silent(uffd);
}

/* The sentinel: it alone raises the event, and is missing in the child whatever the parent has
 * there. */
Test(fork, a_page_that_is_wiped_on_fork_faults_on_the_childs_uffd)
{
	int uffd = uffd_new(WP | FORK), child_uffd;
	char *at = registered(uffd, 1);
	struct deed d;

	is_eq(err(madvise(at, PAGE, MADV_WIPEONFORK)), 0);
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), PAGE);
	deed_fork(&d, reads, at);
	child_uffd = event_fork(uffd);
	fault(child_uffd, at, F_READ);
	is_eq(copy_in(child_uffd, at, page_of(2), PAGE, 0), PAGE);
	is_eq(child_end(deed_pid(&d)), 2);
	is_eq(at[0], 1);
	silent(uffd);
}

/* A uffd that a child inherits as a descriptor still means the parent's memory. */
static int copies(void *argument)
{
	const struct turns *turns = argument;

	return (int)copy_in(turns->fd, turns->at, page_of(6), PAGE, 0) != (int)PAGE;
}

Test(fork, an_inherited_uffd_means_the_parents_memory)
{
	int uffd = uffd_new(WP);
	struct turns turns = {.fd = uffd, .at = registered(uffd, 1)};

	is_eq(child_run(copies, &turns), 0);
	is_eq(turns.at[0], 6);
}

/* ---- what the child has ---- */

/* fork.c counts a slot for each word: the child's markers say which of them it has. */
Test(fork, a_marker_is_the_childs_too)
{
	int uffd = uffd_new(MARKER | FORK), child_uffd;
	struct turns *turns = turns_new();
	struct deed d;
	pid_t pid;

	turns->at = registered(uffd, 2);
	is_eq(protect(uffd, turns->at, PAGE), 0);
	deed_fork(&d, reads_later, turns);
	child_uffd = event_fork(uffd);
	pid = deed_pid(&d);
	cr_assert(is_marker_of(pid, turns->at));
	is_eq(entry_of(pid, turns->at + PAGE), 0);
	cr_assert(is_marker(turns->at));
	/* fill_is_ours: the probe for a child without hello. */
	is_eq(zero_in(child_uffd, turns->at, PAGE, 0), -EEXIST);
	is_eq(zero_in(child_uffd, turns->at + PAGE, PAGE, 0), PAGE);
	turn_set(turns, 1);
	fault(child_uffd, turns->at, F_READ);
	is_eq(copy_in(child_uffd, turns->at, page_of(8), PAGE, 0), PAGE);
	is_eq(child_end(pid), 8);
	cr_assert(is_marker(turns->at)); /* the parent's is untouched */
}

/* Until its hello the daemon holds the child's only uffd. */
Test(fork, when_the_childs_only_uffd_closes_its_markers_go_and_it_reads_zeros)
{
	int uffd = uffd_new(MARKER | FORK), child_uffd;
	struct turns *turns = turns_new();
	struct deed d;
	pid_t pid;

	turns->at = registered(uffd, 1);
	is_eq(protect(uffd, turns->at, PAGE), 0);
	deed_fork(&d, reads_later, turns);
	child_uffd = event_fork(uffd);
	pid = deed_pid(&d);
	cr_assert(is_marker_of(pid, turns->at));
	close(child_uffd);
	is_eq(entry_of(pid, turns->at), 0);
	turn_set(turns, 1);
	is_eq(child_end(pid), 0);
	cr_assert(is_marker(turns->at));
}

Test(fork, a_protected_page_is_protected_in_the_child)
{
	int uffd = uffd_new(WP | FORK), child_uffd;
	char *at = registered(uffd, 1);
	struct deed d;

	is_eq(copy_in(uffd, at, page_of(7), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	deed_fork(&d, writes, at);
	child_uffd = event_fork(uffd);
	fault(child_uffd, at, F_WP);
	is_eq(unprotect(child_uffd, at, PAGE), 0);
	is_eq(child_end(deed_pid(&d)), 0);
	is_eq(at[0], 7);
	is_eq(entry(at) & PM_WP, PM_WP); /* the parent's stays */
}

/* adopt.c: look_for_life. There is no descriptor that would tell of such a child's end. */
Test(fork, protecting_a_child_that_has_ended_answers_esrch)
{
	int uffd = uffd_new(WP | FORK), child_uffd;
	struct turns *turns = turns_new();
	char *at = registered(uffd, 1);
	struct deed d;

	deed_fork(&d, waits, turns);
	child_uffd = event_fork(uffd);
	is_eq(unprotect(child_uffd, at, PAGE), 0);
	turn_set(turns, 1);
	is_eq(child_end(deed_pid(&d)), 0);
	is_eq(unprotect(child_uffd, at, PAGE), -ESRCH);
}
