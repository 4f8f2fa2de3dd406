/* fork, vfork, exec, exit, signals. */
#include "behave.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* A child reads all, writes half, reads all again; the parent does so at the same time. */
static void change_half(struct area *a, uint64_t salt)
{
	struct area low = area_part(a, 0, a->pages / 2), high = area_part(a, a->pages / 2, a->pages / 2);

	area_check(a);
	area_refill(&low, salt);
	area_check(&high);
	area_check(&low);
	area_refill(&high, salt + low.pages);
	a->salt = salt;
	area_check(a);
}

static void fork_once(void)
{
	struct area a = area_start();
	pid_t pid = fork();

	must(pid >= 0);
	change_half(&a, pid == 0 ? 100000 : 200000);
	if (pid == 0)
		_exit(0);
	await(pid);
	area_check(&a); /* what was shared can leave again */
	area_refill(&a, 5);
	area_check(&a);
}

static void nest(struct area a, unsigned deep)
{
	pid_t pid = deep > 0 ? fork() : 1;

	must(pid >= 0);
	if (pid == 0) {
		nest(a, deep - 1);
		_exit(0);
	}
	change_half(&a, 100000 * (deep + 1));
	if (deep > 0)
		await(pid);
	area_check(&a);
}

static void fork_nested(void)
{
	nest(area_start(), 3);
}

static void fork_many(void)
{
	struct area a = area_start();
	pid_t pids[4];

	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 4; i++) {
			pids[i] = fork();
			must(pids[i] >= 0);
			if (pids[i] == 0) {
				struct area part = area_part(&a, 1000 * (size_t)i, 3000);

				area_check(&part);
				area_refill(&part, 77);
				area_check(&part);
				_exit(0);
			}
		}
		area_refill(&a, a.salt + 10000);
		for (int i = 0; i < 4; i++)
			await(pids[i]);
		area_check(&a);
	}
}

/* Short-lived children, as a shell has them. */
static void fork_storm(void)
{
	struct area a = area_start();

	for (unsigned i = 0; i < 150; i++) {
		pid_t pid = fork();

		must(pid >= 0);
		if (pid == 0) {
			struct area part = area_part(&a, i * 97 % (a.pages - 4), 4);

			area_check(&part);
			_exit(0);
		}
		if (i % 3)
			await(pid);
	}
	while (wait(NULL) > 0)
		;
	area_check(&a);
}

/* The parent is gone first; the child's verdict goes through a pipe to a third. */
static void orphan(void)
{
	struct area a = area_start();
	int fds[2];
	char verdict = 0;
	pid_t pid;

	must(pipe(fds) == 0);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		pid_t middle = getpid();

		must(fork() >= 0);
		if (getpid() == middle)
			_exit(0); /* the grandchild goes on alone */
		close(fds[0]);
		while (getppid() == middle)
			usleep(1000);
		change_half(&a, 9000);
		must(write(fds[1], "y", 1) == 1);
		_exit(0);
	}
	close(fds[1]);
	await(pid);
	area_check(&a);
	must(read(fds[0], &verdict, 1) == 1 && verdict == 'y');
	area_check(&a);
}

/* fork by the bare system call: no handler of ours runs. */
static void raw_clone(void)
{
	struct area a = area_start();
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	must(pid >= 0);
	if (pid == 0) {
		change_half(&a, 60000);
		syscall(SYS_exit_group, 0);
	}
	change_half(&a, 70000);
	await(pid);
	area_check(&a);
}

static __attribute__((noinline)) pid_t vfork_child(char *page)
{
	static char *argv[] = {"true", NULL};
	pid_t pid = vfork();

	if (pid == 0) {
		page_fill(page, 4321); /* it is the parent's memory */
		execv("/bin/true", argv);
		_exit(127);
	}
	return pid;
}

static void vfork_exec(void)
{
	struct area a = area_start();

	for (size_t i = 0; i < 20; i++) {
		await(vfork_child(page_at(&a, i * 500)));
		page_check(page_at(&a, i * 500), 4321);
		page_fill(page_at(&a, i * 500), a.salt + i * 500);
	}
	area_check(&a);
}

static void spawn(void)
{
	struct area a = area_start();
	char *argv[] = {self, "plain", "40", NULL}; /* joins the group and its limit */
	pid_t pids[2];

	for (int i = 0; i < 2; i++) {
		posix_spawn_file_actions_t actions;

		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
		errno = posix_spawn(&pids[i], self, &actions, NULL, argv, environ);
		must(errno == 0);
		posix_spawn_file_actions_destroy(&actions);
	}
	area_refill(&a, 2);
	area_check(&a);
	for (int i = 0; i < 2; i++)
		await(pids[i]);
	area_check(&a);
}

static void shell(void)
{
	struct area a = area_start();
	char line[64];
	FILE *out;

	must(system("exit 0") == 0);
	out = popen("seq 1 1000 | sort -rn | head -1", "r");
	must(out && fgets(line, sizeof line, out) && strcmp(line, "1000\n") == 0);
	must(pclose(out) == 0);
	area_check(&a);
}

static void exec_self(void)
{
	char size[24];
	struct area a = area_start();

	area_check(&a);
	snprintf(size, sizeof size, "%zu", mebibytes);
	execl(self, self, "plain", size, NULL);
	wrong("exec: %m");
}

static void *check_for_ever(void *data)
{
	for (;;)
		area_check(data);
	return NULL;
}

static void *exec_in_thread(void *unused)
{
	(void)unused;
	exec_self();
	return NULL;
}

/* A thread executes a program while others fault. */
static void exec_thread(void)
{
	struct area a = area_start();
	pthread_t threads[3], execer;

	for (int i = 0; i < 3; i++)
		must(pthread_create(&threads[i], NULL, check_for_ever, &a) == 0);
	usleep(50000);
	must(pthread_create(&execer, NULL, exec_in_thread, NULL) == 0);
	pthread_join(execer, NULL);
	wrong("exec came back");
}

/* exec again and again: every program attaches anew. */
static void exec_chain(void)
{
	char left[24];
	struct area a = area_start();

	area_check(&a);
	if (mebibytes <= 40)
		return;
	snprintf(left, sizeof left, "%zu", mebibytes - 4);
	execl(self, self, "exec-chain", left, NULL);
	wrong("exec: %m");
}

static void exit_busy(void)
{
	static struct area a;
	pthread_t thread;

	a = area_start();
	for (int i = 0; i < 6; i++)
		must(pthread_create(&thread, NULL, check_for_ever, &a) == 0);
	usleep(200000);
	printf("ok %s\n", subject);
	exit(0);
}

static void kill_self(void)
{
	struct area a = area_start();

	area_check(&a);
	raise(SIGKILL);
}

static void segv_self(void)
{
	struct area a = area_start();

	area_check(&a);
	must(munmap(a.at, PAGE) == 0);
	*(volatile char *)a.at = 1;
}

static void abort_child(void)
{
	struct area a = area_start();

	for (int i = 0; i < 3; i++) {
		int status;
		pid_t pid = fork();

		must(pid >= 0);
		if (pid == 0)
			for (;;)
				area_check(&a);
		usleep(20000 + 30000 * (useconds_t)i);
		kill(pid, SIGKILL);
		must(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
		area_check(&a);
	}
}

/* A stopped process is waited for, not given up. */
static void stop(void)
{
	struct area a = area_start(), b;
	pid_t pid = fork();

	must(pid >= 0);
	if (pid == 0) {
		area_refill(&a, 321);
		area_check(&a);
		raise(SIGSTOP);
		area_check(&a);
		_exit(0);
	}
	must(waitpid(pid, NULL, WUNTRACED) == pid);
	b = area_new(a.pages / 2, 888); /* the stopped one's memory has to make room */
	area_check(&a);
	area_check(&b);
	sleep(2);
	area_check(&a);
	kill(pid, SIGCONT);
	await(pid);
	area_check(&a);
	area_check(&b);
}

static struct area alarm_area;
static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
	size_t i = (size_t)alarms * 7919 % alarm_area.pages;

	(void)signal;
	alarms++;
	page_check(page_at(&alarm_area, i), alarm_area.salt + i);
}

static void signals(void)
{
	struct itimerval timer = {{0, 2000}, {0, 2000}};
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	struct area a;

	a = area_start();
	alarm_area = area_new(4096, 30303);
	must(sigaction(SIGALRM, &action, NULL) == 0);
	must(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	for (int i = 0; i < 6; i++)
		area_check(&a);
	memset(&timer, 0, sizeof timer);
	must(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	must(alarms > 5);
}

/* The group as other processes see it: this one's child is told of by its own pid. */
static void adopt_by_init(void)
{
	struct area a = area_start();
	const char *path = getenv("BEHAVE_RESULT");
	pid_t pid;

	if (!path)
		skip("BEHAVE_RESULT names no file");
	pid = fork();
	must(pid >= 0);
	if (pid > 0)
		_exit(0);
	must(setsid() > 0);
	pid = fork();
	must(pid >= 0);
	if (pid > 0)
		_exit(0);
	must(chdir("/") == 0);
	for (int fd = 0; fd < 1024; fd++)
		close(fd);
	must(open("/dev/null", O_RDWR) == 0 && dup(0) == 1 && dup(0) == 2);
	change_half(&a, 40000);
	{
		int fd = open(path, O_WRONLY | O_CREAT, 0600);

		must(fd >= 0 && write(fd, "ok daemonize\n", 13) == 13);
	}
	_exit(0);
}

const struct behaviour process_behaviours[] = {
	{"fork", fork_once},
	{"fork-nested", fork_nested},
	{"fork-many", fork_many},
	{"fork-storm", fork_storm},
	{"fork-orphan", orphan},
	{"raw-clone", raw_clone},
	{"vfork-exec", vfork_exec},
	{"posix-spawn", spawn},
	{"shell", shell},
	{"exec", exec_self},
	{"exec-thread", exec_thread},
	{"exec-chain", exec_chain},
	{"exit-busy", exit_busy},
	{"kill-self", kill_self},
	{"segv-self", segv_self},
	{"kill-child", abort_child},
	{"stop", stop},
	{"signals", signals},
	{"daemonize", adopt_by_init},
	{0},
};
