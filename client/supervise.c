#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "children.h"

#define KILL_TIMEOUT 5000 /* milliseconds for the descendants of a run whose daemon died */

static sigset_t original_mask, blocked;
static int signals = -1;

int supervise_prepare(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};

	sigfillset(&blocked);
	for (unsigned i = 0; i < sizeof(faults) / sizeof(*faults); i++)
		sigdelset(&blocked, faults[i]);
	if (sigprocmask(SIG_BLOCK, &blocked, &original_mask) < 0)
		return -errno;
	signals = signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK);
	return signals < 0 ? -errno : signals;
}

int supervise_interrupted(void)
{
	static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	sigset_t pending;

	sigpending(&pending);
	for (unsigned i = 0; i < sizeof(ending) / sizeof(*ending); i++) {
		struct sigaction action;

		if (sigismember(&pending, ending[i]) &&
		    sigaction(ending[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			return ending[i];
	}
	return 0;
}

/* => in the child. errno goes through `report`, which exec closes. */
static _Noreturn void become_program(const struct supervised *program, pid_t parent, int report)
{
	int error;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	sigprocmask(SIG_SETMASK, &original_mask, NULL);
	execvpe(program->path, program->argv, program->env);
	error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(EXIT_FAILURE);
	_exit(EXIT_SUCCESS);
}

static int start(struct supervised *program)
{
	int report[2], error = 0;
	pid_t parent = getpid();

	if (pipe2(report, O_CLOEXEC) < 0)
		return errno;
	program->pid = fork();
	if (program->pid == 0)
		become_program(program, parent, report[1]);
	if (program->pid < 0)
		error = errno;
	close(report[1]);
	if (program->pid > 0 && read(report[0], &error, sizeof(error)) == sizeof(error))
		waitpid(program->pid, NULL, 0);
	close(report[0]);
	return error;
}

/*
 * The terminal sends its signals to the whole foreground group, the program included: those must
 * not arrive twice. What another process sent to us is meant for the program.
 */
static void forward(const struct supervised *program, const struct signalfd_siginfo *info)
{
	bool sent = info->ssi_code == SI_USER || info->ssi_code == SI_QUEUE ||
		    info->ssi_code == SI_TKILL;

	if (info->ssi_signo == SIGCHLD || !sent || (pid_t)info->ssi_pid == getpid())
		return;
	if (info->ssi_code == SI_QUEUE) {
		union sigval value = {.sival_ptr = (void *)(uintptr_t)info->ssi_ptr};

		sigqueue(program->pid, (int)info->ssi_signo, value);
	} else {
		kill(program->pid, (int)info->ssi_signo);
	}
}

static bool continued(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WCONTINUED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == pid;
}

/* Stops us as the program was stopped, so that the shell's job control sees it; and continues the
 * program when we are continued, by whomever. */
static void stop_like(const struct supervised *program, int signal_number)
{
	struct sigaction fallback = {.sa_handler = SIG_DFL}, saved;
	sigset_t set;

	if (continued(program->pid))
		return;
	sigemptyset(&set);
	sigaddset(&set, signal_number);
	if (signal_number != SIGSTOP)
		sigaction(signal_number, &fallback, &saved);
	raise(signal_number);
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* here we stop */
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (signal_number != SIGSTOP)
		sigaction(signal_number, &saved, NULL);
	if (!continued(program->pid))
		kill(program->pid, SIGCONT);
	sigemptyset(&set);
	sigaddset(&set, SIGCONT);
	sigtimedwait(&set, NULL, &(struct timespec){0}); /* it has been forwarded */
}

/* True when the program has ended. Orphans that became our children are reaped by the way. */
static bool reap(struct supervised *program)
{
	for (;;) {
		siginfo_t peek = {0};
		int status;
		pid_t pid;

		/* The embedded daemon's end is not for us to reap. */
		if (waitid(P_ALL, 0, &peek, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) < 0 ||
		    !peek.si_pid)
			return false;
		if (peek.si_pid == program->daemon_pid && program->daemon_pid)
			return false;
		pid = waitpid(peek.si_pid, &status, WUNTRACED | WNOHANG | __WALL);
		if (pid != program->pid || pid <= 0)
			continue;
		if (!WIFSTOPPED(status)) {
			program->status = status;
			return true;
		}
		stop_like(program, WSTOPSIG(status));
	}
}

static void lose_daemon(struct supervised *program)
{
	program->lost_daemon = true;
	waitpid(program->daemon_pid, NULL, 0);
	children_kill_all(program->pid, &program->status, KILL_TIMEOUT);
}

static void read_signals(const struct supervised *program)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == sizeof(info))
		forward(program, &info);
}

/* A connection that closes while the program runs; anything else that is readable is not ours. */
static bool closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

int supervise_run(struct supervised *program)
{
	struct pollfd polled[] = {{.fd = signals, .events = POLLIN},
				  {.fd = program->daemon, .events = POLLIN},
				  {.fd = program->control, .events = POLLIN}};
	int error;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	error = start(program);
	if (error)
		return error;
	while (!reap(program)) {
		if (poll(polled, 3, -1) < 0 && errno != EINTR)
			return errno;
		if (polled[0].revents)
			read_signals(program);
		if (polled[1].revents) {
			lose_daemon(program);
			break;
		}
		if (polled[2].revents) {
			program->lost_control |= closed(program->control);
			polled[2].fd = -1;
		}
	}
	return 0;
}

void supervise_exit_like(int status)
{
	int number = WTERMSIG(status);
	sigset_t set;

	if (WIFEXITED(status))
		exit(WEXITSTATUS(status));
	fflush(NULL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	prctl(PR_SET_DUMPABLE, 0);
	signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(number);
	exit(128 + number);
}
