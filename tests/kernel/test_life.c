/* Ends: of the daemon's descriptor, of the client, of its program. */
#include <poll.h>
#include <signal.h>

#include "kernel.h"

TestSuite(life, .timeout = 20);

/* Why the agent holds a duplicate: a dead daemon must mean waiting, never zeros. */
Test(life, when_the_last_descriptor_closes_missing_pages_read_as_zeros)
{
	int uffd = uffd_new(MARKER);
	char *at = registered(uffd, 2);
	struct deed d;

	is_eq(protect(uffd, at, 2 * PAGE), 0);
	deed_read(&d, at);
	fault(uffd, at, F_READ);
	deed_waits(&d);
	close(uffd);
	is_eq(deed_end(&d), 0); /* the fault in flight, too */
	is_eq(entry(at + PAGE), 0);
	is_eq(byte_at(at + PAGE), 0);
}

Test(life, while_a_duplicate_is_open_faults_wait)
{
	int uffd = uffd_new(MARKER), duplicate = fcntl(uffd, F_DUPFD_CLOEXEC, 0);
	char *at = registered(uffd, 2);
	struct deed d[2];

	is_eq(protect(uffd, at, 2 * PAGE), 0);
	deed_read(&d[0], at);
	fault(uffd, at, F_READ);
	close(uffd);
	deed_read(&d[1], at + PAGE);
	deed_waits(&d[0]);
	deed_waits(&d[1]);
	cr_assert(is_marker(at));
	/* Who takes over must wake all: what had been read is not delivered again. */
	fault(duplicate, at + PAGE, F_READ);
	silent(duplicate);
	is_eq(wake(duplicate, at, 2 * PAGE), 0);
	message(duplicate);
	message(duplicate);
	is_eq(copy_in(duplicate, at, page_of(7), PAGE, 0), PAGE);
	is_eq(copy_in(duplicate, at + PAGE, page_of(8), PAGE, 0), PAGE);
	is_eq(deed_end(&d[0]), 7);
	is_eq(deed_end(&d[1]), 8);
}

static int client(void *argument)
{
	struct turns *turns = argument;

	turns->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	turn_set(turns, 1);
	pause();
	return 0;
}

static int client_that_executes(void *argument)
{
	struct turns *turns = argument;

	turns->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	turn_set(turns, 1);
	turn_wait(turns, 2);
	execlp("sleep", "sleep", "20", NULL);
	return 99;
}

static pid_t start(struct turns **ret_turns, int (*function)(void *argument), int *ret_uffd)
{
	struct turns *turns = *ret_turns = turns_new();
	pid_t pid;

	close(uffd_new(ALL));
	turns->at = region(2);
	pid = child_new(function, turns);
	turn_wait(turns, 1);
	*ret_uffd = fd_of(pid, turns->fd);
	is_eq(uffd_api(*ret_uffd, ALL), 0);
	is_eq(reg(*ret_uffd, turns->at, 2 * PAGE, MODE_MW), 0);
	return pid;
}

static void answers_as_dead(int uffd, char *at)
{
	is_eq(copy_in(uffd, at, page_of(1), PAGE, 0), -ESRCH);
	is_eq(zero_in(uffd, at, PAGE, 0), -ESRCH);
	is_eq(protect(uffd, at, PAGE), -ESRCH);
	is_eq(reg(uffd, at, PAGE, MODE_MW), -ENOMEM);
	is_eq(wake(uffd, at, PAGE), 0);
}

/* sys/uffd.c: UFFD_ENDED; the end itself is told by a pidfd. */
Test(life, a_dead_client_answers_esrch_and_its_uffd_never_hangs_up)
{
	struct turns *turns;
	struct pollfd fd;
	int uffd;
	pid_t pid = start(&turns, client, &uffd);

	is_eq(copy_in(uffd, turns->at, page_of(1), PAGE, 0), PAGE);
	kill(pid, SIGKILL);
	is_eq(child_end(pid), 128 + SIGKILL);
	fd = (struct pollfd){.fd = uffd, .events = POLLIN};
	is_eq(poll(&fd, 1, 20), 0);
	silent(uffd);
	answers_as_dead(uffd, turns->at);
}

/* The same process, another memory: its new program attaches anew. */
Test(life, exec_leaves_the_uffd_with_the_memory_that_is_gone)
{
	struct turns *turns;
	int uffd, tries = 2000;
	pid_t pid = start(&turns, client_that_executes, &uffd);

	turn_set(turns, 2);
	while (unprotect(uffd, turns->at, PAGE) != -ESRCH && --tries)
		usleep(1000);
	cr_assert(tries);
	is_eq(kill(pid, 0), 0);
	answers_as_dead(uffd, turns->at);
	silent(uffd);
	kill(pid, SIGKILL);
	is_eq(child_end(pid), 128 + SIGKILL);
}

/* Exit and exec unmap everything, and tell of nothing. */
Test(life, the_end_of_a_client_raises_no_event)
{
	struct turns *turns;
	int uffd;
	pid_t pid = start(&turns, client, &uffd);

	is_eq(copy_in(uffd, turns->at, page_of(1), PAGE, 0), PAGE);
	kill(pid, SIGKILL);
	is_eq(child_end(pid), 128 + SIGKILL);
	silent(uffd);
}

/* A client that waits for a page can be killed. */
static int touches(void *argument)
{
	struct turns *turns = argument;

	turns->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	turn_set(turns, 1);
	turn_wait(turns, 2);
	return *(volatile char *)turns->at;
}

Test(life, who_waits_for_a_page_can_be_killed)
{
	struct turns *turns;
	int uffd;
	pid_t pid = start(&turns, touches, &uffd);

	turn_set(turns, 2);
	fault(uffd, turns->at, F_READ);
	is_eq(kill(pid, SIGKILL), 0);
	is_eq(child_end(pid), 128 + SIGKILL);
}
