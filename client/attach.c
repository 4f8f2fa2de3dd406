/* See attach.h. In a forked child only async-signal-safe calls are made. */
#include "attach.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "connect.h"
#include "proto/session.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define PAGE      4096ul
#define WINDOW    (EXCHANGE_BATCH * PAGE)
#define HIGH_FD   1000 /* where the lifeline goes: out of the program's way */

static struct {
	struct sockaddr_un address;
	uint64_t group_key;
	volatile struct session_sentinel *sentinel;
	int lifeline; /* write end of a pipe that only exec, exit and close end */
	ino_t lifeline_inode;
	bool debug;
} shim = {.lifeline = -1};

/* What one attachment needs until the agents have it. */
struct attachment {
	int socket, device, uffd, doorbell, exchange_fd;
	int fds[SESSION_FDS];
	struct agent *agents[2];
	struct exchange *exchange;
	uint64_t exchange_size;
	char *staging;
	uint32_t twins, give_up_s;
};

/* Memory of ours: shared (never adopted, never paged) and not in forked children. */
static void *map_ours(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	madvise(at, size, MADV_DONTFORK);
	return at;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int connect_daemon(struct attachment *a)
{
	int r = daemon_connect(&shim.address, &a->device, &a->give_up_s);

	if (r < 0)
		return r;
	a->socket = r;
	return 0;
}

static int open_uffd(struct attachment *a)
{
	if (a->device >= 0)
		a->uffd = ioctl(a->device, 0xAA00 /* USERFAULTFD_IOC_NEW */, O_CLOEXEC | O_NONBLOCK);
	if (a->uffd < 0)
		a->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return a->uffd < 0 ? -errno : 0;
}

/* The write end stays open, high and CLOEXEC, until exec, exit or close; the daemon reads. */
static int make_lifeline(struct attachment *a)
{
	struct stat st;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	a->fds[SESSION_FD_LIFELINE] = ends[0];
	for (int low = HIGH_FD; low > 0 && shim.lifeline < 0; low /= 2)
		shim.lifeline = fcntl(ends[1], F_DUPFD_CLOEXEC, low);
	if (shim.lifeline >= 0)
		close(ends[1]);
	else
		shim.lifeline = ends[1];
	shim.lifeline_inode = fstat(shim.lifeline, &st) == 0 ? st.st_ino : 0;
	return 0;
}

/* A forked child has its parent's lifeline, unless the program has closed it, and perhaps opened
 * something else under its number. */
static void drop_lifeline(void)
{
	struct stat st;

	if (shim.lifeline >= 0 && fstat(shim.lifeline, &st) == 0 && S_ISFIFO(st.st_mode) &&
	    st.st_ino == shim.lifeline_inode)
		close(shim.lifeline);
	shim.lifeline = -1;
}

static int say_hello(struct attachment *a, uint64_t token)
{
	static const char *const paths[] = {
		[SESSION_FD_MAPS] = "/proc/self/maps",
		[SESSION_FD_PAGEMAP] = "/proc/self/pagemap",
		[SESSION_FD_STATM] = "/proc/self/statm",
		[SESSION_FD_SMAPS_ROLLUP] = "/proc/self/smaps_rollup",
		[SESSION_FD_MEM] = "/proc/self/mem",
	};
	struct session_hello hello = {
		.group_key = shim.group_key,
		.token = token,
		.sentinel = (uintptr_t)shim.sentinel,
	};
	int fds[SESSION_FDS];
	unsigned n = 0;

	session_header_init(&hello.header, SESSION_HELLO);
	for (unsigned i = 0; i <= SESSION_FD_MEM; i++) {
		a->fds[i] = open(paths[i], (i == SESSION_FD_MEM ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (a->fds[i] < 0)
			return -errno;
	}
	if (make_lifeline(a) < 0)
		return -errno;
	a->fds[SESSION_FD_UFFD] = a->uffd;
	for (unsigned i = 0; i < SESSION_FDS; i++) {
		if (a->fds[i] < 0)
			continue;
		hello.fd_mask |= 1u << i;
		fds[n++] = a->fds[i];
	}
	return session_send(a->socket, &hello, sizeof(hello), fds, n);
}

static int hear_welcome(struct attachment *a)
{
	struct session_welcome welcome;
	int fds[3] = {-1, -1, -1};
	unsigned n = 0;
	int r = session_receive(a->socket, SESSION_WELCOME, &welcome, sizeof(welcome), fds, 3, &n,
				NULL);

	if (r < 0)
		return r;
	a->exchange_fd = fds[0];
	a->doorbell = fds[1];
	/* A forked child has no uffd of its own to give: the daemon gives it a duplicate. */
	if (n == 3)
		a->uffd = fds[2];
	if (welcome.status < 0)
		return welcome.status;
	if (n < 2 || a->uffd < 0 || welcome.twins < 1 || welcome.twins > 2 ||
	    welcome.exchange_size < EXCHANGE_FRAMES)
		return -EPROTO;
	a->exchange_size = welcome.exchange_size;
	a->twins = welcome.twins;
	a->exchange = mmap(NULL, a->exchange_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			   a->exchange_fd, 0);
	if (a->exchange == MAP_FAILED) {
		a->exchange = NULL;
		return -errno;
	}
	madvise(a->exchange, a->exchange_size, MADV_DONTFORK);
	return 0;
}

/* guard | rw window | guard | rwx window | guard: the guards keep the windows from merging with
 * neighbours while they are out of the uffd. The windows are aligned, so that a huge page moves into
 * one as it is: one that begins elsewhere would be split, page by page. */
static int make_staging(struct attachment *a, struct session_ready *ready)
{
	size_t size = 4 * WINDOW + PAGE;
	char *window;

	a->staging = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->staging == MAP_FAILED) {
		a->staging = NULL;
		return -errno;
	}
	madvise(a->staging, size, MADV_DONTFORK);
	ready->exclude[0][0] = (uintptr_t)a->staging;
	ready->exclude[0][1] = (uintptr_t)a->staging + size;
	window = (char *)(((uintptr_t)a->staging + WINDOW) & ~(WINDOW - 1));
	if (mprotect(window, WINDOW, PROT_READ | PROT_WRITE))
		return -errno;
	madvise(window, WINDOW, MADV_NOHUGEPAGE);
	ready->staging = (uintptr_t)window;
	window += 2 * WINDOW;
	/* May be forbidden (SELinux and the like): such regions then stay. */
	if (mprotect(window, WINDOW, PROT_READ | PROT_WRITE | PROT_EXEC) == 0) {
		madvise(window, WINDOW, MADV_NOHUGEPAGE);
		ready->staging_rwx = (uintptr_t)window;
	}
	return 0;
}

static int start_twin(struct attachment *a, uint32_t index, const struct session_ready *ready)
{
	size_t size = sizeof(struct agent) + AGENT_STACK;
	struct agent *agent = map_ours(size);
	uintptr_t top;

	if (!agent)
		return -ENOMEM;
	*agent = (struct agent){
		.exchange = a->exchange,
		.exchange_size = a->exchange_size,
		.staging = ready->staging,
		.staging_rwx = ready->staging_rwx,
		.uffd = a->uffd,
		.socket = a->socket,
		.doorbell = a->doorbell,
		.index = index,
		.client = getpid(),
		.give_up_s = a->give_up_s,
		.ready = *ready,
	};
	agent->ready.index = index;
	a->agents[index] = agent;
	top = ((uintptr_t)agent + size) & ~15ul;
	return clone(agent_main, (void *)top, CLONE_VM, agent) < 0 ? -errno : 0;
}

static int start_agents(struct attachment *a)
{
	struct session_ready ready = {0};
	sigset_t all, before;
	int r;

	session_header_init(&ready.header, SESSION_READY);
	r = make_staging(a, &ready);
	if (r < 0)
		return r;
	/* The twins are born with every signal blocked. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (uint32_t i = 0; i < a->twins && r == 0; i++)
		r = start_twin(a, i, &ready);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static int attach(uint64_t token)
{
	struct attachment a = {
		.socket = -1, .device = -1, .uffd = -1, .doorbell = -1, .exchange_fd = -1};
	int saved_errno = errno;
	int r;

	for (unsigned i = 0; i < SESSION_FDS; i++)
		a.fds[i] = -1;
	r = connect_daemon(&a);
	if (r == 0 && !token)
		r = open_uffd(&a);
	if (r == 0)
		r = say_hello(&a, token);
	if (r == 0)
		r = hear_welcome(&a);
	if (r == 0)
		r = start_agents(&a);
	if (r < 0 && a.exchange)
		atomic_store(&a.exchange->goodbye, 1); /* twins that did start leave */
	/* The agents have what they need in descriptor tables of their own. */
	for (unsigned i = 0; i < SESSION_FD_UFFD; i++)
		close_fd(&a.fds[i]);
	close_fd(&a.uffd);
	close_fd(&a.device);
	close_fd(&a.doorbell);
	close_fd(&a.exchange_fd);
	close_fd(&a.socket);
	if (r < 0 && shim.debug)
		dprintf(2, "upager: process %d runs unpaged: %s\n", getpid(), strerror(-r));
	errno = saved_errno;
	return r;
}

/* Reading the sentinel is the handshake: in the child it is missing, and the daemon puts the
 * child's token there. Where it finds the parent's page (no daemon any more) it says nothing. */
static void after_fork_in_child(void)
{
	uint64_t magic = shim.sentinel->magic, token = shim.sentinel->token;

	if (magic != SESSION_SENTINEL_MAGIC || shim.sentinel->silent)
		return;
	drop_lifeline();
	if (token)
		attach(token);
}

int attach_program(const struct sockaddr_un *address, uint64_t group_key, bool debug)
{
	void *page;
	int r;

	if (shim.sentinel)
		return -EALREADY;
	shim.debug = debug;
	shim.address = *address;
	shim.group_key = group_key;
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -errno;
	if (madvise(page, PAGE, MADV_WIPEONFORK)) {
		r = -errno;
		munmap(page, PAGE);
		return r;
	}
	shim.sentinel = page;
	r = attach(0);
	if (r == 0)
		pthread_atfork(NULL, NULL, after_fork_in_child);
	return r;
}
