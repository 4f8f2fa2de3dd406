#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "look.h"
#include "proto/session.h"
#include "sys/pidfd.h"

#define HANG_MS	    10000
#define LIMIT_START (4ull << 20) /* few frames: pages soon rest in slots */
#define LIMIT_ROOM  (8ull << 20)

static const char *failed(struct rig *rig, const char *what)
{
	snprintf(rig->text, sizeof(rig->text), "%s: %s", what, strerror(errno));
	return rig->text;
}

/* ---- sessions: what the daemon would do ---- */

static int receive_hello(int socket, pid_t *ret_pid, struct session_hello *hello,
			 struct pager_attach *what)
{
	int got[SESSION_FDS], fds[SESSION_FDS], sender, r;
	unsigned n = 0, next = 0;

	r = session_receive(socket, SESSION_HELLO, hello, sizeof(*hello), got, SESSION_FDS, &n,
			    &sender);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < SESSION_FDS; i++)
		fds[i] = hello->fd_mask & 1u << i && next < n ? got[next++] : -1;
	close(fds[SESSION_FD_LIFELINE]);
	*what = (struct pager_attach){
	    .pid = sender,
	    .uffd = fds[SESSION_FD_UFFD],
	    .maps = fds[SESSION_FD_MAPS],
	    .pagemap = fds[SESSION_FD_PAGEMAP],
	    .statm = fds[SESSION_FD_STATM],
	    .smaps_rollup = fds[SESSION_FD_SMAPS_ROLLUP],
	    .mem = fds[SESSION_FD_MEM],
	    .pidfd = pidfd_open_pid(sender),
	    .sentinel = hello->sentinel,
	    .token = hello->token,
	};
	*ret_pid = sender;
	return 0;
}

static int welcome(int socket, const struct pager_welcome *with)
{
	struct session_welcome message = {.twins = 2, .exchange_size = with->exchange_size};
	int fds[3] = {with->exchange, with->doorbell, with->uffd};

	session_header_init(&message.header, SESSION_WELCOME);
	return session_send(socket, &message, sizeof(message), fds, with->uffd >= 0 ? 3 : 2);
}

static int receive_agents(int socket, struct pager_agents *agents)
{
	struct session_ready ready;

	for (unsigned i = 0; i < 2; i++) {
		int sender, r = session_receive(socket, SESSION_READY, &ready, sizeof(ready), NULL,
						0, NULL, &sender);

		if (r < 0)
			return r;
		agents->pidfd[ready.index % 2] = pidfd_open_pid(sender);
		agents->ns_pid[ready.index % 2] = ready.ns_pid;
		if (ready.index)
			continue;
		agents->staging = ready.staging;
		agents->staging_rwx = ready.staging_rwx;
		memcpy(agents->exclude, ready.exclude, sizeof(ready.exclude));
	}
	return 0;
}

/* The whole handshake of one client; its socket stays open, or its agents would leave. */
static int serve_session(struct rig *rig)
{
	const struct timeval limit = {.tv_sec = HANG_MS / 1000};
	struct session_offer offer = {.give_up_s = 60};
	struct pager_agents agents = {.pidfd = {-1, -1}};
	struct pager_welcome with;
	struct session_hello hello;
	struct pager_attach what;
	pager_task_id id;
	pid_t pid;
	unsigned which;
	int r, socket = accept4(rig->listening, NULL, NULL, SOCK_CLOEXEC);

	if (socket < 0)
		return -errno;
	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	session_header_init(&offer.header, SESSION_OFFER);
	r = session_send(socket, &offer, sizeof(offer), NULL, 0);
	if (r >= 0)
		r = receive_hello(socket, &pid, &hello, &what);
	if (r >= 0)
		r = pager_attach(rig->pager, rig->group, &what, &with, &id);
	if (r >= 0)
		r = welcome(socket, &with);
	if (r >= 0)
		r = receive_agents(socket, &agents);
	if (r >= 0)
		r = pager_agent_ready(rig->pager, id, &agents);
	if (r < 0) {
		close(socket);
		return r;
	}
	which = hello.token != 0;
	rig->session[which] = socket;
	rig->pid[which] = pid;
	rig->id[which] = id;
	return 0;
}

static void drop_session(struct rig *rig, unsigned which)
{
	if (rig->pid[which])
		pager_detach(rig->pager, rig->id[which]);
	if (rig->session[which] >= 0)
		close(rig->session[which]);
	rig->session[which] = -1;
	rig->pid[which] = 0;
}

/* ---- the client ---- */

/* Until the process has answered, and has its agents. */
static const char *await(struct rig *rig, unsigned which)
{
	bool answered = false;
	uint64_t n;

	while (!answered || !rig->pid[which]) {
		struct pollfd fds[] = {{rig->listening, POLLIN, 0}, {rig->done[which], POLLIN, 0}};
		int status, r = poll(fds, answered ? 1 : 2, HANG_MS);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return "the program does not go on";
		if (waitpid(rig->child, &status, WNOHANG) == rig->child) {
			rig->child = 0;
			snprintf(rig->text, sizeof(rig->text), "the program ended with status %#x",
				 (unsigned)status);
			return rig->text;
		}
		if (fds[1].revents & POLLIN)
			answered = read(rig->done[which], &n, sizeof(n)) == sizeof(n);
		if (fds[0].revents & POLLIN && (r = serve_session(rig)) < 0) {
			errno = -r;
			return failed(rig, "a session");
		}
	}
	return NULL;
}

static void start_client(struct rig *rig, const struct rig_options *o)
{
	const int from[] = {rig->boards_fd, rig->file_fd, rig->go[0],
			    rig->go[1],	    rig->done[0], rig->done[1]};
	int high[ARRAY_SIZE(from)];

	for (unsigned i = 0; i < ARRAY_SIZE(from); i++)
		high[i] = fcntl(from[i], F_DUPFD, 100);
	for (unsigned i = 0; i < ARRAY_SIZE(from); i++)
		dup2(high[i], FD_BOARDS + (int)i);
	close_range(FD_DONE + PROCESSES, ~0u, 0);
	setenv("LD_PRELOAD", o->preload, 1);
	setenv(SESSION_ENV_SOCKET, rig->socket_path, 1);
	setenv(SESSION_ENV_GROUP, "1", 1);
	execl(o->client, o->client, NULL);
	_exit(127);
}

static const char *run_client(struct rig *rig, const struct rig_options *o)
{
	for (unsigned i = 0; i < PROCESSES; i++) {
		rig->go[i] = eventfd(0, EFD_CLOEXEC);
		rig->done[i] = eventfd(0, EFD_CLOEXEC);
	}
	rig->boards_fd = memfd_create("boards", MFD_CLOEXEC);
	if (rig->boards_fd < 0 || ftruncate(rig->boards_fd, PROCESSES * sizeof(struct board)))
		return failed(rig, "memfd");
	rig->boards = mmap(NULL, PROCESSES * sizeof(struct board), PROT_READ | PROT_WRITE,
			   MAP_SHARED, rig->boards_fd, 0);
	rig->child = fork();
	if (rig->child == 0)
		start_client(rig, o);
	return rig->child < 0 ? failed(rig, "fork") : await(rig, 0);
}

static void go(struct rig *rig, unsigned which, const struct op *op)
{
	uint64_t one = 1;

	rig->boards[which].op = *op;
	if (write(rig->go[which], &one, sizeof(one)) < 0)
		abort();
}

const char *rig_do(struct rig *rig, const struct op *op, struct outcome *ret)
{
	const struct op leave = {.kind = OP_KINDS};
	const char *why;

	if (op->kind == OP_EXIT)
		go(rig, 1, &leave);
	go(rig, op->process, op);
	why = await(rig, op->process);
	if (!why && op->kind == OP_FORK)
		why = await(rig, 1);
	if (!why && op->kind == OP_EXIT)
		drop_session(rig, 1);
	*ret = rig->boards[op->process].outcome;
	return why;
}

const void *rig_file_page(const struct rig *rig, uint32_t page)
{
	return rig->file + (size_t)page * PAGE;
}

/* ---- start, end ---- */

static const char *make_folder(struct rig *rig)
{
	const char *base = getenv("TMPDIR");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int on = 1;

	snprintf(rig->folder, sizeof(rig->folder), "%.60s/upm-XXXXXX", base ? base : "/var/tmp");
	snprintf(rig->state, sizeof(rig->state), "/dev/shm/upm-XXXXXX");
	if (!mkdtemp(rig->folder) || !mkdtemp(rig->state))
		return failed(rig, "mkdtemp");
	snprintf(rig->socket_path, sizeof(rig->socket_path), "%s/s", rig->folder);
	snprintf(rig->swap_path, sizeof(rig->swap_path), "%s/swap", rig->folder);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", rig->socket_path,
		 SESSION_SUFFIX);
	rig->listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	setsockopt(rig->listening, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	if (bind(rig->listening, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(rig->listening, 4))
		return failed(rig, "socket");
	return NULL;
}

/* What OP_DIRECT reads. */
static const char *make_file(struct rig *rig)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/file", rig->folder);
	for (uint32_t i = 0; i < FILE_PAGES; i++)
		content_fill(rig->file + i * PAGE, 77777 + i);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, rig->file, sizeof(rig->file)) != sizeof(rig->file) || close(fd))
		return failed(rig, path);
	rig->file_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (rig->file_fd < 0) /* a file system without it: then copied */
		rig->file_fd = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	return rig->file_fd < 0 ? failed(rig, path) : NULL;
}

static const char *start_pager(struct rig *rig, const struct rig_options *o)
{
	const struct pager_swap swap = {
	    .path = rig->swap_path,
	    .size = (uint64_t)o->slots * PAGE,
	    .create = true,
	    .error_every = o->error_every,
	    .delay_us = o->delay_us,
	};
	const struct pager_config config = {
	    .state_dir = rig->state,
	    .workers = 1,
	    .features = PAGER_FEATURE_ALL,
	    .reg = PAGER_REGISTER_EAGER,
	    .clean = o->clean_wp ? PAGER_CLEAN_WP : PAGER_CLEAN_HASH,
	    .give_up_s = 60,
	    .readahead_pages = o->readahead,
	    .stuck_ms = HANG_MS,
	    .swaps = &swap,
	    .n_swaps = 1,
	};
	const char *on = "";
	int r = pager_new(&config, &rig->pager, &on);

	if (r == 0)
		r = pager_group_new(rig->pager, "model", pager_minimum_limit(), &rig->group);
	rig->swap_fd = open(rig->swap_path, O_RDWR | O_CLOEXEC);
	errno = -r;
	return r < 0 || rig->swap_fd < 0 ? failed(rig, on ? on : "pager") : NULL;
}

const char *rig_start(const struct rig_options *o, struct rig **ret)
{
	struct rig *rig = NULL;
	const char *why;

	if (posix_memalign((void **)&rig, PAGE, sizeof(*rig)))
		return "no memory";
	memset(rig, 0, sizeof(*rig));
	*ret = rig;
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* agents outlive their clients for a moment */
	rig->session[0] = rig->session[1] = rig->listening = rig->swap_fd = rig->file_fd = -1;
	rig->errors = o->error_every;
	why = make_folder(rig);
	if (!why)
		why = make_file(rig);
	if (!why)
		why = start_pager(rig, o);
	if (why)
		return why;
	look_limit(rig, LIMIT_START);
	why = run_client(rig, o);
	rig_room(rig);
	return why;
}

void rig_end(struct rig *rig)
{
	struct pager_task_stat stat;
	pid_t ended;
	int status;

	if (!rig)
		return;
	if (rig->child > 0) {
		/* The model's child is its child: it would be left behind. */
		if (rig->pid[1])
			kill(rig->pid[1], SIGKILL);
		kill(rig->child, SIGKILL);
		waitpid(rig->child, &status, 0);
	}
	drop_session(rig, 1);
	drop_session(rig, 0);
	if (rig->group)
		for (unsigned i = 0; i < 1000 && pager_group_tasks(rig->group, &stat, 1); i++)
			usleep(1000);
	/* Agents, and a child that lost its parent. */
	for (unsigned i = 0; i < 1000 && (ended = waitpid(-1, &status, WNOHANG)) >= 0; i++)
		if (!ended)
			usleep(1000);
	if (rig->group)
		pager_group_free(rig->group);
	pager_free(rig->pager);
	for (unsigned i = 0; i < PROCESSES; i++) {
		close(rig->go[i]);
		close(rig->done[i]);
	}
	if (rig->boards)
		munmap(rig->boards, PROCESSES * sizeof(struct board));
	close(rig->boards_fd);
	close(rig->listening);
	close(rig->swap_fd);
	close(rig->file_fd);
	snprintf(rig->text, sizeof(rig->text), "%s" SESSION_SUFFIX, rig->socket_path);
	unlink(rig->text);
	rmdir(rig->folder);
	rmdir(rig->state);
	free(rig);
}

/* ---- the limit ---- */

void rig_room(struct rig *rig)
{
	look_limit(rig, LIMIT_ROOM);
}

void rig_no_room(struct rig *rig)
{
	look_limit(rig, PAGE);
}

void rig_less_room(struct rig *rig, uint32_t pages)
{
	look_limit_near(rig, pages);
}
