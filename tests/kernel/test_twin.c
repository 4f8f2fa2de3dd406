/* The agent is a process that shares the client's memory and nothing else: clone(CLONE_VM). What
 * that makes it, and what not. Relied on by client/preload.c and client/agent.c. */
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "kernel.h"

TestSuite(twin, .timeout = 20);

/* A twin runs without C library and without thread storage: so these functions make system calls by
 * hand only, and report in `twin`. */
static struct {
	_Atomic int turn;
	long fd, at, to, result;
} twin;

static pid_t twin_new(int (*function)(void *argument))
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	pid_t pid = clone(function, stack + sizeof(stack), CLONE_VM, NULL);

	cr_assert(pid > 0, "clone: %s", strerror(errno));
	return pid;
}

static long sys3(long n, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

static void twin_waits(int turn)
{
	while (twin.turn < turn)
		sys3(SYS_sched_yield, 0, 0, 0);
}

/* Until it is killed, or whoever made it ends. */
static int twin_idles(void *argument)
{
	(void)argument;
	sys3(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0);
	sys3(SYS_pause, 0, 0, 0);
	sys3(SYS_exit, 0, 0, 0);
	return 0;
}

static void twin_end(pid_t pid)
{
	kill(pid, SIGKILL);
	is_eq(child_end(pid), 128 + SIGKILL);
}

/* ---- what it can do ---- */

static int twin_moves(void *argument)
{
	static struct uffdio_move m;

	(void)argument;
	m = (struct uffdio_move){
		.dst = (uint64_t)twin.to,
		.src = (uint64_t)twin.at,
		.len = PAGE,
	};
	twin.result = sys3(SYS_ioctl, twin.fd, (long)UFFDIO_MOVE, (long)&m);
	sys3(SYS_exit, 0, 0, 0);
	return 0;
}

Test(twin, moves_pages_of_the_memory_that_it_shares)
{
	int uffd = uffd_new(ALL);
	char *at = registered(uffd, 1), *to = registered(uffd, 1);

	is_eq(copy_in(uffd, at, page_of(7), PAGE, 0), PAGE);
	twin.fd = uffd;
	twin.at = (long)at;
	twin.to = (long)to;
	is_eq(child_end(twin_new(twin_moves)), 0);
	is_eq(twin.result, 0);
	is_eq(to[0], 7);
	is_eq(entry(at), 0);
	silent(uffd); /* its making was no fork */
}

static int twin_closes(void *argument)
{
	(void)argument;
	twin.result = sys3(SYS_close, twin.fd, 0, 0);
	twin.turn = 1;
	twin_waits(2);
	sys3(SYS_exit, 0, 0, 0);
	return 0;
}

/* So a program that closes everything takes nothing from it, and the reverse. */
Test(twin, has_descriptors_of_its_own)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pid_t pid;

	twin.fd = fd;
	pid = twin_new(twin_closes);
	while (twin.turn < 1)
		usleep(100);
	is_eq(twin.result, 0);
	cr_assert(fcntl(fd, F_GETFD) >= 0);
	twin.turn = 2;
	is_eq(child_end(pid), 0);
}

/* ---- what it is not ---- */

static long sleeps(void *argument)
{
	(void)argument;
	pause();
	return 0;
}

static int unshares(void *argument)
{
	struct deed d;
	pid_t pid = 0;
	int r;

	if (argument)
		deed_run(&d, sleeps, NULL);
	else
		pid = twin_new(twin_idles);
	r = unshare(CLONE_NEWUSER) ? errno : 0;
	if (pid)
		twin_end(pid);
	return r;
}

/* A thread would make such calls fail in a program that has none. */
Test(twin, is_no_thread_of_the_program)
{
	int r = child_run(unshares, NULL);

	if (r == EPERM || r == ENOSPC)
		cr_skip_test("no user namespaces: %s", strerror(r));
	is_eq(r, 0);
	is_eq(child_run(unshares, (void *)1), EINVAL);
}

Test(twin, is_not_seen_by_an_ordinary_wait)
{
	pid_t pid = twin_new(twin_idles);

	is_eq(err(waitpid(-1, NULL, WNOHANG)), -ECHILD);
	is_eq(waitpid(-1, NULL, WNOHANG | __WALL), 0); /* but by this */
	twin_end(pid);
}

static int twin_asks(void *argument)
{
	(void)argument;
	twin_waits(1);
	twin.result = sys3(SYS_getppid, 0, 0, 0);
	sys3(SYS_exit, 0, 0, 0);
	return 0;
}

/* The program's own filters would end it. */
Test(twin, is_not_reached_by_a_filter_for_all_threads)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = filter};
	pid_t pid = twin_new(twin_asks);

	is_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	is_eq(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program),
	      0);
	is_eq(err(syscall(SYS_getppid)), -EPERM);
	twin.turn = 1;
	is_eq(child_end(pid), 0);
	is_eq(twin.result, getpid());
}

/* ---- what it holds ---- */

static int executes(void *argument)
{
	struct turns *turns = argument;

	turns->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	turns->value[0] = twin_new(twin_idles);
	turn_set(turns, 1);
	turn_wait(turns, 2);
	execlp("sleep", "sleep", "20", NULL);
	return 99;
}

static long same_memory(pid_t a, pid_t b)
{
	return err(syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0));
}

/* After exec the program's old memory lives as long as its agent: kcmp tells, and the daemon ends
 * it. */
Test(twin, keeps_the_memory_that_the_program_has_left_by_exec)
{
	struct turns *turns = turns_new();
	int uffd, tries = 5000;
	pid_t pid, agent;

	close(uffd_new(ALL));
	turns->at = region(1);
	pid = child_new(executes, turns);
	turn_wait(turns, 1);
	agent = (pid_t)turns->value[0];
	uffd = fd_of(pid, turns->fd);
	is_eq(uffd_api(uffd, WP), 0);
	is_eq(reg(uffd, turns->at, PAGE, MODE_MW), 0);
	if (same_memory(pid, agent) == -ENOSYS)
		cr_skip_test("this kernel has no kcmp(2)");
	is_eq(same_memory(pid, agent), 0);
	turn_set(turns, 2);
	while (same_memory(pid, agent) == 0 && --tries)
		usleep(1000);
	cr_assert(same_memory(pid, agent) > 0);
	is_eq(copy_in(uffd, turns->at, page_of(1), PAGE, 0), PAGE);
	kill(agent, SIGKILL);
	tries = 5000;
	while (unprotect(uffd, turns->at, PAGE) != -ESRCH && --tries)
		usleep(1000);
	cr_assert(tries);
	kill(pid, SIGKILL);
	is_eq(child_end(pid), 128 + SIGKILL);
}
