#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "failure.h"
#include "family.h"
#include "listen.h"
#include "log.h"
#include "preflight.h"
#include "swapfile.h"
#include "watch.h"

#define STOP_MS 5000 /* for killed tasks to go */

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP};

static void daemon_close(struct daemon *daemon)
{
	if (daemon->closed)
		return;
	daemon->closed = true;
	daemon->deadline = watch_free(daemon->deadline);
	daemon->end = watch_free(daemon->end);
	daemon->embedder = watch_free(daemon->embedder);
	daemon->notice_watch = watch_free(daemon->notice_watch);
	sessions_close(&daemon->sessions);
	server_close(&daemon->server);
	for (unsigned i = 0; i < 3; i++)
		uv_close((uv_handle_t *)&daemon->signals[i], NULL);
}

/* The tasks that are still there could not be killed in time. */
static void on_deadline(void *context)
{
	struct daemon *daemon = context;

	daemon->deadline = watch_free(daemon->deadline);
	log_warning("%u group%s did not end within %d s", daemon->registry.n_groups,
		    daemon->registry.n_groups == 1 ? "" : "s", STOP_MS / 1000);
	uv_stop(&daemon->loop);
}

static void on_end(void *context)
{
	daemon_close(context);
}

static void end_soon(struct daemon *daemon)
{
	if (!daemon->end && !daemon->closed)
		daemon->end = watch_timer(&daemon->loop, 0, on_end, daemon);
}

/* Evicted pages end with the daemon, so what it serves ends before it. */
static void daemon_stop(struct daemon *daemon, const char *why)
{
	struct group *next;

	if (daemon->stopping)
		return;
	daemon->stopping = true;
	notify_stopping();
	if (daemon->registry.n_groups)
		log_message(daemon->embedded ? LOG_INFO : LOG_WARNING,
			    "%s: ending; the tasks of %u group%s are killed", why,
			    daemon->registry.n_groups, daemon->registry.n_groups == 1 ? "" : "s");
	else
		log_info("%s: ending", why);
	for (struct group *group = TAILQ_FIRST(&daemon->registry.groups); group; group = next) {
		next = TAILQ_NEXT(group, entry);
		registry_doom(&daemon->registry, group);
	}
	if (daemon->registry.n_groups == 0)
		end_soon(daemon);
	else
		daemon->deadline = watch_timer(&daemon->loop, STOP_MS, on_deadline, daemon);
}

static void on_signal(uv_signal_t *handle, int signal)
{
	daemon_stop(handle->data, strsignal(signal));
}

/* A trace that somebody waits for ends soon after its group, and not without an answer. */
static void end_if_over(struct daemon *daemon)
{
	if (daemon->registry.n_groups == 0 && traces_are_over(&daemon->traces) &&
	    (daemon->stopping || daemon->embedded) && daemon->registry.had_group)
		end_soon(daemon);
}

static void on_group_ended(struct group *group, void *context)
{
	struct daemon *daemon = context;

	log_info("group %s: ended", group->name);
	monitors_event(&daemon->monitors, &(struct event){.kind = "group_ended", .group = group});
	monitors_group_ended(&daemon->monitors, group);
	traces_group_ended(&daemon->traces, group);
	end_if_over(daemon);
}

static void on_notices(void *context)
{
	struct daemon *daemon = context;

	notices_drain(&daemon->notices);
	end_if_over(daemon);
}

/* `upager run` has gone: without a group nobody will come any more; with one, its control
 * connection decides. */
static void on_embedder(void *context)
{
	struct daemon *daemon = context;
	char ignored[64];

	if (read(daemon->notify.fd, ignored, sizeof(ignored)) > 0)
		return;
	daemon->embedder = watch_free(daemon->embedder);
	daemon->notify.fd = -1;
	if (!daemon->registry.had_group)
		daemon_stop(daemon, "whoever started this daemon has gone");
}

static void raise_limit(int resource)
{
	struct rlimit limit;

	if (getrlimit((__rlimit_resource_t)resource, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit((__rlimit_resource_t)resource, &limit);
	}
}

/* An embedded daemon that was given no swap makes its own, sparse, and removes it at its end. */
static void choose_private_swap(struct daemon *daemon)
{
	const char *dir = getenv("TMPDIR");
	struct pager_swap *swap = &daemon->conf.swap[0];
	struct timespec now;

	if (!daemon->embedded || daemon->conf.swap_given)
		return;
	if (!dir || *dir != '/')
		dir = "/var/tmp";
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(daemon->private_swap, sizeof(daemon->private_swap), "%s/upager-%d-%lx.swap", dir,
		 (int)getpid(), (unsigned long)now.tv_nsec ^ (unsigned long)now.tv_sec << 20);
	swap->path = daemon->private_swap;
	swap->direct = swapfile_direct_works(dir);
}

static int open_runtime(struct daemon *daemon, struct failure *failure)
{
	const struct conf *conf = &daemon->conf;
	const char *socket = daemon->socket ? daemon->socket : conf->socket;
	const char *dir = conf->runtime_dir;

	if (daemon->embedded && !daemon->socket && !conf->socket_given)
		socket = NULL;
	if ((daemon->socket || conf->socket_given) && !conf->runtime_dir_given)
		dir = NULL;
	return runtime_open(&daemon->runtime, socket, dir, RUNTIME_SHM, failure);
}

static int open_sockets(struct daemon *daemon, int *ret_control, int *ret_session,
			struct failure *failure)
{
	int control = listen_inherited(SOCK_STREAM), session = listen_inherited(SOCK_SEQPACKET);

	if ((control < 0) != (session < 0))
		return fail(failure, -EINVAL,
			    "socket activation passed only one of the two sockets");
	if (control < 0) {
		control = listen_bind(daemon->runtime.socket, SOCK_STREAM, failure);
		if (control < 0)
			return control;
		daemon->runtime.bound = true;
		session = listen_bind(daemon->runtime.session, SOCK_SEQPACKET, failure);
		if (session < 0) {
			close(control);
			return session;
		}
	}
	*ret_control = control;
	*ret_session = session;
	return 0;
}

static int open_pager(struct daemon *daemon, struct failure *failure)
{
	struct pager_config *config = &daemon->conf.pager;
	const char *error_on = NULL;
	int r;

	config->state_dir = daemon->runtime.state;
	r = pager_new(config, &daemon->pager, &error_on);
	if (r < 0)
		return preflight_explain(r, error_on, failure);
	for (size_t i = 0; i < config->n_swaps; i++)
		if (daemon->swap_missing[i] &&
		    runtime_add_leftover(&daemon->runtime, config->swaps[i].path) < 0)
			log_warning("%s: can't note it for removal after a crash",
				    config->swaps[i].path);
	return 0;
}

/* A private daemon's socket may be at a path of the user's choice, which no sweep would look at. */
static void note_sockets(const struct runtime *runtime)
{
	char lock[PATH_MAX + 8];

	snprintf(lock, sizeof(lock), "%s.lock", runtime->socket);
	runtime_add_leftover(runtime, runtime->socket);
	runtime_add_leftover(runtime, runtime->session);
	runtime_add_leftover(runtime, lock);
}

static int open_loop(struct daemon *daemon, int control, int session, struct failure *failure)
{
	int r;

	registry_init(&daemon->registry, daemon->pager);
	daemon->registry.group_ended = on_group_ended;
	daemon->registry.context = daemon;
	daemon->registry.kill_family = family_kill;
	monitors_init(&daemon->monitors, &daemon->loop, &daemon->registry);
	daemon->notices = (struct notices){daemon->pager, &daemon->registry, &daemon->monitors,
					     &daemon->snapshots, &daemon->traces};
	daemon->clients = (struct clients){&daemon->loop, daemon->pager, &daemon->registry,
					   &daemon->notices, &daemon->monitors};
	snapshots_init(&daemon->snapshots, daemon->pager);
	traces_init(&daemon->traces, daemon->pager);
	daemon->control = (struct control){daemon->pager, &daemon->registry, &daemon->monitors,
					   &daemon->snapshots, &daemon->traces};
	daemon->sessions.device = daemon->sessions.spare = -1;
	daemon->sessions.loop = &daemon->loop;
	daemon->sessions.clients = &daemon->clients;
	daemon->sessions.give_up_s = daemon->conf.pager.give_up_s;
	daemon->sessions.offer_all = daemon->embedded;
	for (unsigned i = 0; i < 3; i++) {
		uv_signal_init(&daemon->loop, &daemon->signals[i]);
		daemon->signals[i].data = daemon;
		uv_signal_start(&daemon->signals[i], on_signal, stop_signals[i]);
	}
	r = server_init(&daemon->server, &daemon->loop, &daemon->control, control, failure);
	if (r < 0) {
		close(session);
		return r;
	}
	r = sessions_init(&daemon->sessions, session, failure);
	if (r < 0)
		return r;
	daemon->notice_watch =
	    watch_fd(&daemon->loop, fcntl(pager_notice_fd(daemon->pager), F_DUPFD_CLOEXEC, 0),
		     on_notices, daemon);
	if (daemon->notify.fd >= 0)
		daemon->embedder = watch_fd(&daemon->loop, daemon->notify.fd, on_embedder, daemon);
	return 0;
}

static int open_files(struct daemon *daemon, int *ret_control, int *ret_session,
		      struct failure *failure)
{
	int r = preflight(failure);

	if (r < 0)
		return r;
	choose_private_swap(daemon);
	r = swapfile_check(daemon->conf.swap, daemon->conf.pager.n_swaps, daemon->swap_missing,
			   failure);
	if (r < 0)
		return r;
	r = open_runtime(daemon, failure);
	if (r < 0)
		return r;
	return open_sockets(daemon, ret_control, ret_session, failure);
}

int daemon_run(struct daemon *daemon, struct failure *failure)
{
	int control = -1, session = -1, r;

	signal(SIGPIPE, SIG_IGN);
	raise_limit(RLIMIT_NOFILE);
	raise_limit(RLIMIT_MEMLOCK);
	r = open_files(daemon, &control, &session, failure);
	if (r < 0) {
		runtime_close(&daemon->runtime);
		return r;
	}
	note_sockets(&daemon->runtime);
	r = open_pager(daemon, failure);
	if (r < 0) {
		close(control);
		close(session);
		runtime_close(&daemon->runtime);
		return r;
	}
	uv_loop_init(&daemon->loop);
	r = open_loop(daemon, control, session, failure);
	if (r >= 0) {
		notify_ready(&daemon->notify, daemon->runtime.socket);
		log_info("listening on %s", daemon->runtime.socket);
		uv_run(&daemon->loop, UV_RUN_DEFAULT);
	}
	daemon_close(daemon);
	uv_run(&daemon->loop, UV_RUN_NOWAIT);
	pager_stop(daemon->pager);
	runtime_close(&daemon->runtime);
	pager_free(daemon->pager);
	uv_loop_close(&daemon->loop);
	return r;
}
