/* The handshake and the watching of clients, with real processes and the fake pager. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "fake_pager.h"
#include "proto/session.h"
#include "session_rig.h"
#include "sys/pidfd.h"

static struct group *group;
static const char owner = 'o';
static unsigned n_ended;

static void on_ended(struct group *ended, void *context)
{
	(void)ended;
	(void)context;
	n_ended++;
}

static void setup(void)
{
	session_setup();
	registry.group_ended = on_ended;
	cr_assert_eq(registry_create(&registry, "g", getuid(), &owner, 1 << 24, &group), 0);
}

static void pump(void)
{
	uv_run(&loop, UV_RUN_NOWAIT);
	notices_drain(&notices);
	usleep(1000);
}

#define pump_until(condition)                                                                      \
	do {                                                                                       \
		for (unsigned pumped_ = 0; !(condition) && pumped_ < 3000; pumped_++)              \
			pump();                                                                    \
		cr_assert(condition, "%s", #condition);                                            \
	} while (0)

static void teardown(void)
{
	registry_owner_gone(&registry, &owner);
	pump_until(TAILQ_EMPTY(&registry.groups));
	cr_expect_eq(fake_pager_n_tasks(), 0);
	session_teardown();
}

TestSuite(sessions, .init = setup, .fini = teardown, .timeout = 30);

/* What the client does otherwise than it should. */
enum wrong {
	NOTHING,
	NO_UFFD,
	MASK,
	PLAIN_FILE,
	NO_PIPE,
	SHORT_HELLO,
	SILENT,
	FAKE_AGENT,
	SAME_AGENT,
	LEAVE,
	EXEC_EARLY,
	STOP,
};

struct options {
	uint64_t key, token;
	enum wrong wrong;
	char after; /* x exit, e exec, c close the lifeline, a attach anew, w wait */
};

static struct {
	int socket;
	int lifeline;
	unsigned index;
} shared;

static _Noreturn int twin(void *context)
{
	struct session_ready ready = {.index = (unsigned)(uintptr_t)context, .staging = 0x10000};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	session_header_init(&ready.header, SESSION_READY);
	ready.ns_pid = getpid();
	session_send(shared.socket, &ready, sizeof(ready), NULL, 0);
	close(shared.lifeline); /* the twin's table is its own */
	for (;;)
		pause();
}

static void start_twin(unsigned index, int flags)
{
	char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (clone(twin, stack + 65536, flags, (void *)(uintptr_t)index) < 0)
		_exit(40);
}

static int connect_session(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct session_offer offer;
	int device = -1, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	unsigned n;

	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		_exit(41);
	if (session_receive(fd, SESSION_OFFER, &offer, sizeof(offer), &device, 1, &n, NULL) < 0 ||
	    offer.give_up_s != 10)
		_exit(42);
	return fd;
}

static int send_hello(const struct options *options)
{
	static const char *const files[] = {"/proc/self/maps", "/proc/self/pagemap",
					    "/proc/self/statm", "/proc/self/smaps_rollup",
					    "/proc/self/mem"};
	struct session_hello hello = {.group_key = options->key, .token = options->token};
	int fds[SESSION_FDS], ends[2];
	bool uffd = !options->token && options->wrong != NO_UFFD;

	session_header_init(&hello.header, SESSION_HELLO);
	if (pipe2(ends, O_CLOEXEC) < 0)
		_exit(43);
	shared.lifeline = ends[1];
	for (unsigned i = 0; i < 5; i++)
		fds[i] = open(options->wrong == PLAIN_FILE ? "/etc/passwd" : files[i],
			      O_RDONLY | O_CLOEXEC);
	fds[SESSION_FD_LIFELINE] = options->wrong == NO_PIPE ? dup(fds[0]) : ends[0];
	fds[SESSION_FD_UFFD] = uffd ? eventfd(0, EFD_CLOEXEC) : -1;
	hello.fd_mask = uffd ? 127 : 63;
	if (options->wrong == MASK)
		hello.fd_mask = 0xff;
	if (session_send(shared.socket, &hello,
			 sizeof(hello) - (options->wrong == SHORT_HELLO ? 8 : 0), fds,
			 uffd ? 7 : 6) < 0)
		_exit(44);
	for (unsigned i = 0; i < 7; i++)
		if (i != SESSION_FD_LIFELINE && fds[i] >= 0)
			close(fds[i]);
	close(ends[0]);
	return 0;
}

/* Exit status: 0, or 100 + the errno of the welcome. */
static void handshake(const struct options *options)
{
	struct session_welcome welcome;
	int fds[3];
	unsigned n = 0;

	shared.socket = connect_session();
	if (options->wrong == SILENT)
		for (;;)
			pause();
	send_hello(options);
	if (session_receive(shared.socket, SESSION_WELCOME, &welcome, sizeof(welcome), fds, 3, &n,
			    NULL) < 0)
		_exit(50);
	if (welcome.status < 0)
		_exit(100 - welcome.status);
	if (n != 2 || welcome.twins != 2 || !welcome.exchange_size)
		_exit(51);
	if (options->wrong == LEAVE)
		_exit(0);
	if (options->wrong == EXEC_EARLY)
		execl("/bin/sleep", "sleep", "1000", NULL);
	if (options->wrong == STOP)
		raise(SIGSTOP);
	if (options->wrong == FAKE_AGENT) {
		start_twin(0, 0); /* a fork: not our memory */
		for (;;)
			pause();
	}
	start_twin(0, CLONE_VM);
	start_twin(options->wrong == SAME_AGENT ? 0 : 1, CLONE_VM);
}

static void client(const struct options *options)
{
	struct options again = *options;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	handshake(options);
	usleep(20000);
	switch (options->after) {
	case 'x':
		_exit(0);
	case 'e':
		execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(60);
	case 'c':
		close(shared.lifeline);
		break;
	case 'a':
		again.wrong = NOTHING;
		handshake(&again);
		break;
	}
	for (;;)
		pause();
}

static pid_t start(struct options options)
{
	pid_t pid;

	if (!options.key)
		options.key = group->key;
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0)
		client(&options);
	return pid;
}

static int status_of(pid_t pid)
{
	int status = 0;

	pid_t ended = 0;

	pump_until(ended || (ended = waitpid(pid, &status, WNOHANG)));
	cr_assert_eq(ended, pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static const struct fake_task *task_of(pid_t pid)
{
	struct task *task = registry_task_by_pid(&registry, pid);

	return task ? fake_pager_task(pager, task->id) : NULL;
}

static bool is_ready(pid_t pid)
{
	const struct fake_task *task = task_of(pid);

	return task && task->ready;
}

Test(sessions, attach_and_exit)
{
	pid_t pid = start((struct options){.after = 'x'});
	const struct fake_task *task;
	int agent;

	pump_until(is_ready(pid));
	task = task_of(pid);
	cr_expect_eq(task->attach.pid, pid);
	cr_expect_geq(task->attach.uffd, 0);
	cr_expect_geq(task->agents.pidfd[0], 0);
	cr_expect_geq(task->agents.pidfd[1], 0);
	cr_expect_eq(task->agents.staging, 0x10000);
	cr_expect_eq(sessions.n, 0);
	agent = dup(task->agents.pidfd[0]);
	cr_expect_eq(status_of(pid), 0);
	pump_until(!registry_member(&registry, pid));
	pump_until(fake_pager_n_tasks() == 0);
	cr_expect(pidfd_ended(agent, 1000));
	cr_expect_eq(n_ended, 0);
	registry_release(&registry, group);
	cr_expect_eq(n_ended, 1);
	close(agent);
}

Test(sessions, exec_ends_the_task_but_not_the_member)
{
	pid_t pid = start((struct options){.after = 'e'});

	pump_until(is_ready(pid));
	registry_release(&registry, group);
	pump_until(fake_pager_n_tasks() == 0);
	cr_expect(registry_member(&registry, pid));
	cr_expect_eq(n_ended, 0);
	kill(pid, SIGTERM);
	cr_expect_eq(status_of(pid), -SIGTERM);
	pump_until(n_ended == 1);
}

Test(sessions, a_closed_lifeline_is_no_exec)
{
	pid_t pid = start((struct options){.after = 'c'});

	pump_until(is_ready(pid));
	for (unsigned i = 0; i < 1200; i++)
		pump();
	cr_expect(is_ready(pid));
	kill(pid, SIGKILL);
	status_of(pid);
	pump_until(!registry_member(&registry, pid));
}

Test(sessions, attaching_anew_replaces_the_task)
{
	pid_t pid = start((struct options){.after = 'a'});
	pager_task_id first;

	pump_until(is_ready(pid));
	first = registry_task_by_pid(&registry, pid)->id;
	registry_release(&registry, group);
	pump_until(is_ready(pid) && registry_task_by_pid(&registry, pid)->id != first);
	cr_expect_eq(fake_pager_n_tasks(), 1);
	cr_expect_eq(n_ended, 0);
	kill(pid, SIGKILL);
	status_of(pid);
	pump_until(n_ended == 1);
}

Test(sessions, owner_gone_kills)
{
	pid_t pid = start((struct options){.after = 'w'});

	pump_until(is_ready(pid));
	registry_owner_gone(&registry, &owner);
	cr_expect_eq(status_of(pid), -SIGKILL);
	pump_until(n_ended == 1);
}

Test(sessions, unknown_key)
{
	cr_expect_eq(status_of(start((struct options){.key = group->key ^ 1})), 100 + EPERM);
	cr_expect_eq(fake_pager_n_tasks(), 0);
}

Test(sessions, the_pager_s_refusal_is_passed_on)
{
	fake_pager_fail_attach(-EOPNOTSUPP);
	cr_expect_eq(status_of(start((struct options){0})), 100 + EOPNOTSUPP);
	cr_expect_null(registry_member(&registry, 1));
}

Test(sessions, children_come_with_a_token)
{
	pid_t parent = start((struct options){.after = 'w'}), child;
	pager_task_id id;

	pump_until(is_ready(parent));
	id = fake_pager_fork(pager, registry_task_by_pid(&registry, parent)->id, 99);
	child = start((struct options){.key = 12345, .token = 99, .after = 'w'});
	pump_until(is_ready(child));
	cr_expect_eq(registry_task_by_pid(&registry, child)->id, id);
	cr_expect_eq(registry_task_by_pid(&registry, child)->group, group);
	cr_expect_eq(status_of(start((struct options){.token = 98})), 100 + ESRCH);
	kill(child, SIGKILL);
	kill(parent, SIGKILL);
	status_of(child);
	status_of(parent);
}

Test(sessions, malformed_hellos)
{
	static const struct {
		enum wrong wrong;
		int status;
	} cases[] = {{NO_UFFD, 100 + EINVAL},
		     {MASK, 100 + EINVAL},
		     {PLAIN_FILE, 100 + EINVAL},
		     {NO_PIPE, 100 + EINVAL},
		     {SHORT_HELLO, 50}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		cr_expect_eq(status_of(start((struct options){.wrong = cases[i].wrong})),
			     cases[i].status, "%zu", i);
	cr_expect_eq(fake_pager_n_tasks(), 0);
	cr_expect_eq(sessions.n, 0);
}

static void expect_dropped(enum wrong wrong)
{
	pid_t pid = start((struct options){.wrong = wrong});

	pump_until(registry_member(&registry, pid));
	pump_until(fake_pager_n_tasks() == 0);
	pump_until(sessions.n == 0);
	kill(pid, SIGKILL);
	status_of(pid);
	pump_until(!registry_member(&registry, pid));
}

Test(sessions, an_agent_must_share_the_memory)
{
	expect_dropped(FAKE_AGENT);
}

Test(sessions, two_agents_of_one_index)
{
	expect_dropped(SAME_AGENT);
}

Test(sessions, leaving_between_welcome_and_ready)
{
	expect_dropped(LEAVE);
}

Test(sessions, exec_before_the_agents_are_ready)
{
	expect_dropped(EXEC_EARLY);
}

/* A shell forks and executes at once: the child's task must not stay behind. */
Test(sessions, a_child_that_executes_before_its_agents_are_ready)
{
	pid_t parent = start((struct options){.after = 'w'}), child;
	pager_task_id id;

	pump_until(is_ready(parent));
	id = fake_pager_fork(pager, registry_task_by_pid(&registry, parent)->id, 99);
	child = start((struct options){.token = 99, .wrong = EXEC_EARLY});
	pump_until(registry_member(&registry, child));
	pump_until(!fake_pager_task(pager, id));
	cr_expect(registry_member(&registry, child));
	cr_expect_eq(sessions.n, 0);
	kill(child, SIGKILL);
	kill(parent, SIGKILL);
	status_of(child);
	status_of(parent);
}

/* Its pages may be evicted: as long as it lives it is served, and its agents may still come. */
Test(sessions, a_stopped_child_is_waited_for)
{
	pid_t parent = start((struct options){.after = 'w'}), child;

	pump_until(is_ready(parent));
	fake_pager_fork(pager, registry_task_by_pid(&registry, parent)->id, 99);
	child = start((struct options){.token = 99, .wrong = STOP, .after = 'w'});
	pump_until(registry_member(&registry, child));
	for (unsigned i = 0; i < 6000; i++)
		pump();
	cr_expect_eq(sessions.n, 1);
	cr_expect_eq(fake_pager_n_tasks(), 2);
	kill(child, SIGCONT);
	pump_until(is_ready(child));
	kill(child, SIGKILL);
	kill(parent, SIGKILL);
	status_of(child);
	status_of(parent);
}

Test(sessions, a_silent_client_is_dropped)
{
	pid_t pid = start((struct options){.wrong = SILENT});

	pump_until(sessions.n == 1);
	for (unsigned i = 0; sessions.n && i < 7000; i++)
		pump();
	cr_expect_eq(sessions.n, 0);
	kill(pid, SIGKILL);
	status_of(pid);
}
