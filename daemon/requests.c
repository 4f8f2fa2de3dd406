#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "clients.h"
#include "log.h"
#include "monitor.h"
#include "notices.h"
#include "pager/pager.h"
#include "proto/session.h"
#include "snapshots.h"
#include "sys/files.h"
#include "view.h"
#include "watch.h"

#define LIMIT_NONE (UINT64_C(1) << 47) /* all the address space a process has */

struct request {
	LIST_ENTRY(request) entry;
	struct requests *requests;
	struct watch *socket, *timer;
	struct ucred peer;
	struct group *joined; /* held while the connection lives */
	struct image *image;  /* offered, not mapped yet */
	uint64_t unit;	      /* of its mapping */
	struct snapshot_caller snapshot;
	bool begun; /* it has had its moment */
};

static struct snapshots *snapshots_of(const struct request *request)
{
	return request->requests->clients->notices->snapshots;
}

static void request_free(struct request *request)
{
	LIST_REMOVE(request, entry);
	request->requests->n--;
	if (request->snapshot.id)
		snapshots_drop(snapshots_of(request), &request->snapshot);
	pager_image_close(request->image);
	if (request->joined)
		registry_unhold(request->requests->clients->registry, request->joined);
	watch_free(request->socket);
	watch_free(request->timer);
	free(request);
}

static struct pager *pager_of(const struct request *request)
{
	return request->requests->clients->pager;
}

/* The task of who asks; 0: it has none. */
static pager_task_id task_of(const struct request *request)
{
	const struct client *client = client_find(request->requests->clients, request->peer.pid);

	return client ? client->member.task : 0;
}

static void reply(struct request *request, int status, int memory, bool writable)
{
	struct session_reply message = {.status = status, .writable = writable};

	session_header_init(&message.header, SESSION_REPLY);
	session_send(watch_get_fd(request->socket), &message, sizeof(message), &memory,
		     memory >= 0 ? 1 : 0);
}

static int receive(struct request *request, enum session_type type, void *message, unsigned size,
		   int *fds, unsigned max_fds, unsigned *ret_n_fds)
{
	int sender = 0;
	int r = session_receive(watch_get_fd(request->socket), type, message, size, fds, max_fds,
				ret_n_fds, &sender);

	/* A forked child has its parent's connection, but not its memory. */
	return r < 0 ? r : sender == request->peer.pid ? 0 : -EPERM;
}

/* ---- calls that a worker answers ---- */

/* On a worker's thread. Who asked may have gone. */
static void answer(void *context, int result)
{
	struct session_reply message = {.status = result};
	int socket = (int)(intptr_t)context;

	session_header_init(&message.header, SESSION_REPLY);
	session_send(socket, &message, sizeof(message), NULL, 0);
	close(socket);
}

static int start(const struct request *request, enum session_type type,
		 const struct session_range *range, void *socket)
{
	const struct pager_range where = {.address = range->address, .length = range->length};
	struct pager *pager = pager_of(request);
	pager_task_id task = task_of(request);

	switch (type) {
	case SESSION_MAPPED:
		if (!request->image)
			return -EPROTO;
		return pager_map(pager, task, &where, request->image, request->unit, answer,
				 socket);
	case SESSION_SYNC:
		return pager_sync(pager, task, &where, answer, socket);
	default:
		if (range->advice >= SESSION_ADVICES)
			return -EINVAL;
		return pager_advise(pager, task, &where, (enum pager_advice)range->advice, answer,
				    socket);
	}
}

static int take_range(struct request *request, enum session_type type)
{
	struct session_range range;
	int socket, r = receive(request, type, &range, sizeof(range), NULL, 0, NULL);

	if (r < 0)
		return r;
	socket = fcntl(watch_get_fd(request->socket), F_DUPFD_CLOEXEC, 0);
	if (socket < 0)
		return -errno;
	r = start(request, type, &range, (void *)(intptr_t)socket);
	if (r < 0) {
		close(socket);
		return r;
	}
	request_free(request);
	return 0;
}

/* ---- requests that are answered here ---- */

static int take_map(struct request *request)
{
	struct session_map map;
	int file = -1, memory = -1, writable, r;
	unsigned n = 0;

	r = receive(request, SESSION_MAP, &map, sizeof(map), &file, 1, &n);
	if (r == 0 && (n != 1 || request->image))
		r = -EPROTO;
	if (r == 0 && !task_of(request))
		r = -ESRCH;
	if (r == 0)
		r = pager_image_open(pager_of(request), file, map.shared == 1, &request->image,
				     &memory);
	if (n)
		close(file);
	if (r < 0)
		return r;
	request->unit = map.unit;
	writable = fcntl(memory, F_GETFL);
	reply(request, 0, memory, writable >= 0 && (writable & O_ACCMODE) == O_RDWR);
	close(memory);
	return 0;
}

static int take_stat(struct request *request)
{
	const struct client *client = client_find(request->requests->clients, request->peer.pid);
	struct session_figures figures = {.status = client ? 0 : -ESRCH};
	struct pager_snapshot_stat snapshot = {0};
	struct pager_group_stat group;
	struct pager_image_stat image;
	struct session_stat stat;
	int r = receive(request, SESSION_STAT, &stat, sizeof(stat), NULL, 0, NULL);

	if (r < 0)
		return r;
	if (client) {
		pager_group_refresh(client->member.group->pager);
		pager_group_stat(client->member.group->pager, &group);
		pager_image_stat(pager_of(request), &image);
		pager_snapshot_stat(pager_of(request), client->member.task, &snapshot);
		figures.limit = group.limit == LIMIT_NONE ? 0 : group.limit;
		figures.resident = group.resident;
		figures.peak = group.peak;
		figures.evicted = group.evicted;
		figures.minor = group.counters.minor;
		figures.major = group.counters.major;
		figures.image_limit = image.limit;
		figures.image_resident = image.resident;
		figures.image_dirty = image.dirty;
		figures.snapshot = snapshot.resident + snapshot.evicted;
		figures.snapshot_copied = snapshot.copied;
	}
	session_header_init(&figures.header, SESSION_FIGURES);
	session_send(watch_get_fd(request->socket), &figures, sizeof(figures), NULL, 0);
	request_free(request);
	return 0;
}

/* The group that is named, made if it isn't there; held. */
static int join(struct request *request, const struct session_join *what)
{
	struct clients *clients = request->requests->clients;
	uint64_t limit = what->limit ? what->limit : LIMIT_NONE;
	char name[sizeof(what->name)], size[24];
	struct group *group;
	int r;

	if (task_of(request))
		return -EALREADY;
	if (what->name[0])
		snprintf(name, sizeof(name), "%.*s", (int)sizeof(what->name) - 1, what->name);
	else
		snprintf(name, sizeof(name), "pid-%d", (int)request->peer.pid);
	group = registry_group(clients->registry, name);
	if (group && (!view_permits(group, request->peer.uid) || group->doomed))
		return -EACCES;
	if (!group) {
		r = limit > LIMIT_NONE ? -ERANGE
				       : registry_create(clients->registry, name,
							 request->peer.uid, request, limit, &group);
		if (r < 0)
			return r;
		log_info("group %s: made by pid %d, uid %u, limit %s", name,
			 (int)request->peer.pid, request->peer.uid, size_format(limit, size));
		monitors_event(clients->monitors,
			       &(struct event){.kind = "group_created", .group = group});
		registry_hold(group);
		registry_release(clients->registry, group);
	} else {
		registry_hold(group);
	}
	request->joined = group;
	return 0;
}

/* The connection stays, and the group with it, until the client has said hello on another. */
static int take_join(struct request *request)
{
	struct session_joined joined = {0};
	struct session_join what;
	int r = receive(request, SESSION_JOIN, &what, sizeof(what), NULL, 0, NULL);

	if (r == 0 && request->joined)
		r = -EPROTO;
	if (r < 0)
		return r;
	joined.status = join(request, &what);
	if (request->joined)
		joined.group_key = request->joined->key;
	session_header_init(&joined.header, SESSION_JOINED);
	session_send(watch_get_fd(request->socket), &joined, sizeof(joined), NULL, 0);
	return 0;
}

/* ---- snapshots: a connection for each, which goes when it has ended; if the client's end goes, so does
 * the snapshot ---- */

static void tell_end(struct request *request, const struct pager_notice *notice)
{
	const struct pager_snapshot_stat *stat = &notice->snapshot;
	struct session_ended ended = {
		.status = -(int)notice->value,
		.size = stat->resident + stat->evicted,
		.lost = stat->lost,
		.stall_ns = stat->stall_ns,
	};

	session_header_init(&ended.header, SESSION_ENDED);
	session_send(watch_get_fd(request->socket), &ended, sizeof(ended), NULL, 0);
}

static void on_snapshot(void *context, const struct pager_notice *notice)
{
	struct request *request = context;

	if (notice->kind == PAGER_NOTICE_SNAPSHOT_BEGUN) {
		request->begun = true;
		reply(request, 0, -1, false);
		return;
	}
	if (request->begun)
		tell_end(request, notice);
	else
		reply(request, -(int)notice->value, -1, false);
	request_free(request);
}

static int take_snapshot(struct request *request)
{
	struct session_range what;
	struct pager_range range;
	int file = -1, r;
	unsigned n = 0;

	r = receive(request, SESSION_SNAPSHOT, &what, sizeof(what), &file, 1, &n);
	if (r == 0 && (n != 1 || request->snapshot.id))
		r = -EPROTO;
	if (r == 0 && !file_is_fresh(file))
		r = -EINVAL;
	if (r < 0) {
		if (n)
			close(file);
		return r;
	}
	range = (struct pager_range){.address = what.address, .length = what.length};
	request->snapshot.told = on_snapshot;
	request->snapshot.context = request;
	r = snapshots_begin(snapshots_of(request), &request->snapshot, task_of(request),
			    what.length ? &range : NULL, file);
	if (r == 0)
		request->timer = watch_free(request->timer);
	return r;
}

/* Whoever has the connection may do it. */
static int take_cancel(struct request *request)
{
	struct session_cancel cancel;
	int r = session_receive(watch_get_fd(request->socket), SESSION_CANCEL, &cancel,
				sizeof(cancel), NULL, 0, NULL, NULL);

	if (r == 0 && !request->snapshot.id)
		r = -EPROTO;
	if (r == 0)
		pager_snapshot_cancel(pager_of(request), request->snapshot.task,
				      request->snapshot.id);
	return r;
}

/* ---- connections ---- */

static void on_message(void *context)
{
	struct request *request = context;
	int type = session_peek(watch_get_fd(request->socket)), r;
	char ignored;

	switch (type) {
	case -EAGAIN:
		return;
	case SESSION_JOIN:
		r = take_join(request);
		break;
	case SESSION_MAP:
		r = take_map(request);
		break;
	case SESSION_MAPPED:
	case SESSION_SYNC:
	case SESSION_ADVISE:
		r = take_range(request, (enum session_type)type);
		break;
	case SESSION_STAT:
		r = take_stat(request);
		break;
	case SESSION_SNAPSHOT:
		r = take_snapshot(request);
		break;
	case SESSION_CANCEL:
		r = take_cancel(request);
		break;
	default:
		/* What is left unread would reset the connection before the reply is heard. */
		recv(watch_get_fd(request->socket), &ignored, 1, MSG_DONTWAIT);
		r = type == -ECONNRESET ? type : -EPROTO;
		break;
	}
	if (r == 0 || r == -EAGAIN)
		return;
	if (r == -EPROTO || r == -EPERM)
		log_limited(LOG_WARNING, "pid %d, uid %u: a request is malformed or not its own",
			    (int)request->peer.pid, request->peer.uid);
	if (r != -ECONNRESET)
		reply(request, r, -1, false);
	request_free(request);
}

static void on_timeout(void *context)
{
	request_free(context);
}

void requests_init(struct requests *requests, uv_loop_t *loop, struct clients *clients)
{
	*requests = (struct requests){.loop = loop, .clients = clients};
	LIST_INIT(&requests->list);
}

void requests_close(struct requests *requests)
{
	while (!LIST_EMPTY(&requests->list))
		request_free(LIST_FIRST(&requests->list));
}

void requests_take(struct requests *requests, int fd, const struct ucred *peer)
{
	struct request *request =
	    requests->n < REQUESTS_MAX ? calloc(1, sizeof(*request)) : NULL;

	if (!request) {
		close(fd);
		return;
	}
	request->requests = requests;
	request->peer = *peer;
	LIST_INSERT_HEAD(&requests->list, request, entry);
	requests->n++;
	request->socket = watch_fd(requests->loop, fd, on_message, request);
	request->timer = watch_timer(requests->loop, REQUEST_MS, on_timeout, request);
	if (!request->socket || !request->timer)
		request_free(request);
}
