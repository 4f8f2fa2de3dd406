#include "sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients.h"
#include "failure.h"
#include "handshake.h"
#include "log.h"
#include "monitor.h"
#include "notices.h"
#include "pager/pager.h"
#include "proto/session.h"
#include "sys/pidfd.h"
#include "watch.h"

struct session {
	LIST_ENTRY(session) entry;
	struct sessions *sessions;
	struct watch *socket, *timer;
	struct ucred peer;
	struct client *client; /* NULL before hello */
	bool child;	       /* came with a token */
	unsigned ready;	       /* mask of agents */
	struct pager_agents agents;
	pid_t agent_pids[SESSION_TWINS];
};

static void session_free(struct session *session)
{
	LIST_REMOVE(session, entry);
	session->sessions->n--;
	if (session->client)
		session->client->on_detached = NULL;
	watch_free(session->socket);
	watch_free(session->timer);
	for (unsigned i = 0; i < SESSION_TWINS; i++)
		if (session->agents.pidfd[i] >= 0) {
			/* A twin of a client that stays unpaged would take us for dead one day. */
			pidfd_kill(session->agents.pidfd[i], SIGKILL);
			close(session->agents.pidfd[i]);
		}
	free(session);
}

/* The client has exited, executed another program, or attached anew. */
static void on_detached(void *context)
{
	struct session *session = context;

	session->client = NULL;
	session_free(session);
}

/* Ends a handshake that went wrong. Nothing has been evicted from a new program, so its task can
 * go; a forked child's pages may be evicted already: it stays served. */
static void session_fail(struct session *session, const char *why)
{
	struct client *client = session->client;

	log_limited(LOG_WARNING, "pid %d, uid %u: session refused: %s", (int)session->peer.pid,
		    session->peer.uid, why);
	if (client && !session->child)
		client_detach(client); /* frees the session */
	else
		session_free(session);
}

static int send_welcome(struct session *session, int status, const struct pager_welcome *with)
{
	struct session_welcome welcome = {
	    .status = status,
	    .twins = SESSION_TWINS,
	    .exchange_size = with ? with->exchange_size : 0,
	};
	int fds[3] = {-1, -1, -1};
	unsigned n = 0;

	if (with) {
		fds[n++] = with->exchange;
		fds[n++] = with->doorbell;
		if (with->uffd >= 0)
			fds[n++] = with->uffd;
	}

	session_header_init(&welcome.header, SESSION_WELCOME);
	return session_send(watch_get_fd(session->socket), &welcome, sizeof(welcome), fds, n);
}

/* Attaches; the registry learns of task and member. */
static int attach(struct session *session, const struct session_hello *hello, int *fds, int pidfd,
		  struct group *group, struct pager_welcome *ret_welcome)
{
	struct clients *clients = session->sessions->clients;
	struct pager_attach what = {
	    .pid = session->peer.pid,
	    .uffd = fds[SESSION_FD_UFFD],
	    .maps = fds[SESSION_FD_MAPS],
	    .pagemap = fds[SESSION_FD_PAGEMAP],
	    .statm = fds[SESSION_FD_STATM],
	    .smaps_rollup = fds[SESSION_FD_SMAPS_ROLLUP],
	    .mem = fds[SESSION_FD_MEM],
	    .pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0),
	    .sentinel = hello->sentinel,
	    .token = hello->token,
	};
	struct task *task;
	pager_task_id id;
	int lifeline = fds[SESSION_FD_LIFELINE];
	int maps = fcntl(what.maps, F_DUPFD_CLOEXEC, 0);
	int r = pager_attach(clients->pager, group ? group->pager : NULL, &what, ret_welcome, &id);

	if (r < 0) {
		close(pidfd);
		close(lifeline);
		close(maps);
		return r;
	}
	/* The notice of a fork was queued before its child could read the token. */
	notices_drain(clients->notices);
	if (hello->token && (task = registry_task(clients->registry, id)))
		group = task->group;
	if (group && registry_task_add(clients->registry, group, id, 0, what.pid)) {
		session->client = client_new(clients, group, what.pid, pidfd, lifeline, maps, id);
	} else {
		close(pidfd);
		close(lifeline);
		close(maps);
	}
	if (!session->client) {
		/* A forked child that is let go while it lives would read zeros. */
		if (hello->token)
			kill(what.pid, SIGKILL);
		pager_detach(clients->pager, id);
		return -ENOMEM;
	}
	session->child = hello->token != 0;
	session->client->on_detached = on_detached;
	session->client->detached_context = session;
	return 0;
}

/* A program that executed another and attaches again: the old task goes first. */
static void detach_predecessor(struct session *session)
{
	struct client *client = client_find(session->sessions->clients, session->peer.pid);

	if (client)
		client_free(client);
}

static int welcome_client(struct session *session, const struct pager_welcome *welcome)
{
	const struct member *member = &session->client->member;

	log_info("group %s: pid %d attached as task %llu", member->group->name, (int)member->pid,
		 (unsigned long long)member->task);
	monitors_event(session->sessions->clients->monitors,
		       &(struct event){.kind = "task_attached",
				       .group = member->group,
				       .task = member->task,
				       .pid = member->pid});
	/* A child may be stopped for any time, and must not lose its agents by that. */
	if (session->child)
		session->timer = watch_free(session->timer);
	return send_welcome(session, 0, welcome);
}

static int take_hello(struct session *session, const struct session_hello *hello, int *fds)
{
	struct clients *clients = session->sessions->clients;
	struct group *group = registry_group_by_key(clients->registry, hello->group_key);
	struct pager_welcome welcome = {.exchange = -1, .doorbell = -1, .uffd = -1};
	int r, pidfd = pidfd_open_pid(session->peer.pid);

	if (pidfd < 0 || (!hello->token && (!group || group->doomed))) {
		for (unsigned i = 0; i < SESSION_FDS; i++)
			if (fds[i] >= 0)
				close(fds[i]);
		if (pidfd < 0)
			return pidfd;
		close(pidfd);
		return -EPERM;
	}
	/* The group must outlive the moment between the old task and the new one. */
	if (group)
		registry_hold(group);
	detach_predecessor(session);
	r = attach(session, hello, fds, pidfd, group, &welcome);
	if (r >= 0)
		r = welcome_client(session, &welcome);
	if (group)
		registry_unhold(clients->registry, group);
	return r;
}

static void receive_hello(struct session *session)
{
	int got[SESSION_FDS], fds[SESSION_FDS], sender = 0, r;
	struct session_hello hello;
	unsigned n = 0;

	r = session_receive(watch_get_fd(session->socket), SESSION_HELLO, &hello, sizeof(hello),
			    got, SESSION_FDS, &n, &sender);
	if (r == -EAGAIN)
		return;
	if (r == -ECONNRESET) {
		session_free(session); /* it only looked whether anyone is here */
		return;
	}
	if (r < 0) {
		session_fail(session, "its hello is malformed");
		return;
	}
	if (sender != session->peer.pid || !handshake_sort_fds(&hello, got, n, fds)) {
		for (unsigned i = 0; i < n; i++)
			close(got[i]);
		send_welcome(session, -EINVAL, NULL);
		session_fail(session, sender != session->peer.pid
					  ? "another process said its hello"
					  : "its hello lacks descriptors, or has wrong ones");
		return;
	}
	r = take_hello(session, &hello, fds);
	if (r < 0) {
		send_welcome(session, r, NULL);
		session_fail(session, r == -EPERM ? "its group key names no group" : strerror(-r));
	}
}

static int take_ready(struct session *session, const struct session_ready *ready, pid_t pid)
{
	int pidfd, r = handshake_check_agent(ready, session->ready, session->peer.pid, pid);

	if (r < 0)
		return r;
	pidfd = pidfd_open_pid(pid);
	if (pidfd < 0)
		return pidfd;
	session->agents.pidfd[ready->index] = pidfd;
	session->agents.ns_pid[ready->index] = ready->ns_pid;
	session->agent_pids[ready->index] = pid;
	session->ready |= 1u << ready->index;
	if (session->agents.staging == 0 || ready->index == 0) {
		session->agents.staging = ready->staging;
		session->agents.staging_rwx = ready->staging_rwx;
		memcpy(session->agents.exclude, ready->exclude, sizeof(ready->exclude));
	}
	return 0;
}

/* Everybody is there: the client keeps the socket, whose end would tell the agents that we died. */
static void finish(struct session *session)
{
	struct client *client = session->client;
	int socket = fcntl(watch_get_fd(session->socket), F_DUPFD_CLOEXEC, 0);
	int r;

	if (socket < 0) {
		session_fail(session, strerror(errno));
		return;
	}
	r = pager_agent_ready(session->sessions->clients->pager, client->member.task,
			      &session->agents);
	for (unsigned i = 0; i < SESSION_TWINS; i++)
		session->agents.pidfd[i] = -1; /* the pager's now */
	if (r < 0) {
		close(socket);
		session_fail(session, strerror(-r));
		return;
	}
	memcpy(client->agents, session->agent_pids, sizeof(client->agents));
	client_keep_socket(client, socket);
	session_free(session);
}

static void receive_ready(struct session *session)
{
	struct session_ready ready;
	int sender = 0, r;

	r = session_receive(watch_get_fd(session->socket), SESSION_READY, &ready, sizeof(ready),
			    NULL, 0, NULL, &sender);
	if (r == -EAGAIN)
		return;
	if (r == -ECONNRESET) {
		if (!client_check_exec(session->client))
			session_fail(session, "it left before its agents were ready");
		return;
	}
	if (r >= 0)
		r = take_ready(session, &ready, sender);
	if (r == -ESTALE || r == -ESRCH) {
		/* Programs that fork and execute are quicker than their agents. */
		session->client->agents[ready.index] = sender;
		if (!client_check_exec(session->client))
			session->client->agents[ready.index] = 0;
	} else if (r < 0) {
		session_fail(session, "an agent's message is malformed or not its own");
	} else if (session->ready == (1u << SESSION_TWINS) - 1) {
		finish(session);
	}
}

/* It does not say hello, but asks for something: another's business. */
static void hand_over(struct session *session)
{
	int fd = fcntl(watch_get_fd(session->socket), F_DUPFD_CLOEXEC, 0);

	if (fd >= 0)
		requests_take(&session->sessions->requests, fd, &session->peer);
	session_free(session);
}

static void on_message(void *context)
{
	struct session *session = context;

	if (session->client)
		receive_ready(session);
	else if (session_peek(watch_get_fd(session->socket)) > SESSION_READY)
		hand_over(session);
	else
		receive_hello(session);
}

static void on_timeout(void *context)
{
	session_fail(context, "its handshake stalled");
}

static int send_offer(struct session *session)
{
	struct sessions *sessions = session->sessions;
	struct session_offer offer = {.give_up_s = sessions->give_up_s};
	bool device = sessions->device >= 0 &&
		      (sessions->offer_all || session->peer.uid == 0 ||
		       registry_uid_has_group(sessions->clients->registry, session->peer.uid));

	session_header_init(&offer.header, SESSION_OFFER);
	return session_send(watch_get_fd(session->socket), &offer, sizeof(offer), &sessions->device,
			    device ? 1 : 0);
}

static void session_new(struct sessions *sessions, int fd)
{
	struct session *session = calloc(1, sizeof(*session));
	socklen_t size = sizeof(session->peer);
	const int on = 1;

	if (!session || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &session->peer, &size) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
	    session->peer.pid <= 0 || sessions->n >= SESSION_HANDSHAKES_MAX) {
		free(session);
		close(fd);
		return;
	}
	session->sessions = sessions;
	for (unsigned i = 0; i < SESSION_TWINS; i++)
		session->agents.pidfd[i] = -1;
	LIST_INSERT_HEAD(&sessions->list, session, entry);
	sessions->n++;
	session->socket = watch_fd(sessions->loop, fd, on_message, session);
	session->timer = watch_timer(sessions->loop, SESSION_HANDSHAKE_MS, on_timeout, session);
	if (!session->socket || !session->timer || send_offer(session) < 0)
		session_free(session);
}

/* Out of descriptors: whoever waits must not keep the loop busy. */
static void turn_away(struct sessions *sessions)
{
	int fd;

	log_limited(LOG_ERR, "session socket: no descriptors left, a client runs unpaged");
	close(sessions->spare);
	fd = accept4(watch_get_fd(sessions->listener), NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	sessions->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_connection(void *context)
{
	struct sessions *sessions = context;

	for (unsigned i = 0; i < 16; i++) {
		int fd = accept4(watch_get_fd(sessions->listener), NULL, NULL,
				 SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE)
				turn_away(sessions);
			else if (errno != EAGAIN && errno != ECONNABORTED)
				log_limited(LOG_ERR, "session socket: %s", strerror(errno));
			return;
		}
		session_new(sessions, fd);
	}
}

int sessions_init(struct sessions *sessions, int fd, struct failure *failure)
{
	const int on = 1;

	LIST_INIT(&sessions->list);
	requests_init(&sessions->requests, sessions->loop, sessions->clients);
	sessions->device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	sessions->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 || listen(fd, 128) < 0) {
		int r = -errno;

		close(fd);
		return fail(failure, r, "listening on the session socket: %s", strerror(-r));
	}
	sessions->listener = watch_fd(sessions->loop, fd, on_connection, sessions);
	if (!sessions->listener)
		return fail(failure, -ENOMEM, "listening on the session socket: out of memory");
	return 0;
}

void sessions_close(struct sessions *sessions)
{
	sessions->listener = watch_free(sessions->listener);
	for (struct session *next, *session = LIST_FIRST(&sessions->list); session;
	     session = next) {
		next = LIST_NEXT(session, entry);
		session_free(session);
	}
	requests_close(&sessions->requests);
	if (sessions->device >= 0)
		close(sessions->device);
	if (sessions->spare >= 0)
		close(sessions->spare);
	sessions->device = sessions->spare = -1;
}
