/* Children of the tests. */
#include "kernel.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

pid_t child_new(int (*function)(void *argument), void *argument)
{
	pid_t pid = _Fork();

	cr_assert(pid >= 0, "fork: %s", strerror(errno));
	if (pid == 0) {
		alarm(2 * PATIENCE / 1000); /* if the test ends without it */
		_exit(function(argument));
	}
	return pid;
}

struct forked {
	int (*function)(void *argument);
	void *argument;
};

static long fork_now(void *context)
{
	struct forked forked = *(struct forked *)context;

	free(context);
	return child_new(forked.function, forked.argument);
}

void deed_fork(struct deed *deed, int (*function)(void *argument), void *argument)
{
	struct forked *forked = malloc(sizeof(*forked));

	*forked = (struct forked){function, argument};
	deed_run(deed, fork_now, forked);
}

pid_t deed_pid(struct deed *deed)
{
	return (pid_t)deed_end(deed);
}

int child_end(pid_t pid)
{
	uint64_t until = now_ms() + PATIENCE;
	int status = 0;
	pid_t r;

	while ((r = waitpid(pid, &status, __WALL | WNOHANG)) == 0 && now_ms() < until)
		usleep(PAUSE_US);
	cr_assert(r == pid, "a child has not ended");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_run(int (*function)(void *argument), void *argument)
{
	return child_end(child_new(function, argument));
}

int fd_of(pid_t pid, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	long got = err(syscall(SYS_pidfd_getfd, pidfd, fd, 0));

	cr_assert(got >= 0, "pidfd_getfd: %s", strerror((int)-got));
	close(pidfd);
	return (int)got;
}

struct turns *turns_new(void)
{
	struct turns *turns = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert(turns != MAP_FAILED);
	return turns;
}

void turn_set(struct turns *turns, int turn)
{
	turns->turn = turn;
}

/* In children, too, where no assertion may be made: they are ended by their alarm. */
void turn_wait(struct turns *turns, int turn)
{
	uint64_t until = now_ms() + PATIENCE;

	while (turns->turn < turn && now_ms() < until)
		usleep(PAUSE_US);
	if (turns->turn < turn)
		abort();
}
