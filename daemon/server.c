#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "failure.h"
#include "log.h"
#include "sys/pidfd.h"
#include "varlink.h"

struct connection {
	LIST_ENTRY(connection) entry;
	uv_pipe_t pipe;
	uv_shutdown_t shutdown;
	struct server *server;
	struct caller caller;
	struct varlink link;
	char input[16384];
};

struct reply {
	uv_write_t request;
	char text[];
};

static void on_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;

	LIST_REMOVE(connection, entry);
	connection->server->n_connections--;
	varlink_done(&connection->link);
	control_caller_gone(&connection->caller);
	if (connection->caller.pidfd >= 0)
		close(connection->caller.pidfd);
	free(connection);
}

/* The rest happens in on_closed: this may be called from deep inside a method. */
static void connection_close(struct connection *connection)
{
	connection->link.dead = true;
	if (!uv_is_closing((uv_handle_t *)&connection->pipe))
		uv_close((uv_handle_t *)&connection->pipe, on_closed);
}

static void on_written(uv_write_t *request, int status)
{
	struct connection *connection = request->handle->data;

	free((char *)request - offsetof(struct reply, request));
	if (status < 0)
		connection_close(connection);
}

static void on_send(struct varlink *link, const char *message, size_t size)
{
	struct connection *connection =
	    (struct connection *)((char *)link - offsetof(struct connection, link));
	uv_stream_t *stream = (uv_stream_t *)&connection->pipe;
	struct reply *reply;
	uv_buf_t buf;

	if (uv_stream_get_write_queue_size(stream) + size > SERVER_QUEUE_MAX) {
		log_warning("control connection of pid %d dropped: it does not read its replies",
			    (int)connection->caller.pid);
		connection_close(connection);
		return;
	}
	reply = malloc(sizeof(*reply) + size);
	if (!reply) {
		connection_close(connection);
		return;
	}
	memcpy(reply->text, message, size);
	buf = uv_buf_init(reply->text, (unsigned)size);
	if (uv_write(&reply->request, stream, &buf, 1, on_written) < 0) {
		free(reply);
		connection_close(connection);
	}
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct connection *connection = handle->data;

	(void)suggested;
	*buf = uv_buf_init(connection->input, sizeof(connection->input));
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
	(void)status;
	connection_close(request->handle->data);
}

/* Sends what is queued, then closes. */
static void connection_finish(struct connection *connection)
{
	connection->link.dead = true;
	uv_read_stop((uv_stream_t *)&connection->pipe);
	if (uv_is_closing((uv_handle_t *)&connection->pipe))
		return;
	if (uv_shutdown(&connection->shutdown, (uv_stream_t *)&connection->pipe, on_shutdown) < 0)
		connection_close(connection);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct connection *connection = stream->data;

	if (n < 0 || varlink_feed(&connection->link, buf->base, (size_t)n) < 0)
		connection_finish(connection);
}

static int read_peer(struct connection *connection)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&connection->pipe, &fd) < 0)
		return -EBADF;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	connection->caller.uid = peer.uid;
	connection->caller.pid = peer.pid;
	connection->caller.pidfd = pidfd_of_peer(fd);
	return 0;
}

static bool is_one_too_many(const struct server *server, const struct connection *connection)
{
	const struct connection *other;
	uid_t uid = connection->caller.uid;
	unsigned n = 0;

	LIST_FOREACH (other, &server->connections, entry)
		n += other->caller.uid == uid;
	return server->n_connections > SERVER_CONNECTIONS_MAX ||
	       (uid != 0 && n > SERVER_CONNECTIONS_OF_USER);
}

static void on_connection(uv_stream_t *stream, int status)
{
	struct server *server = stream->data;
	struct connection *connection;

	if (status < 0) {
		log_warning("control socket: %s", uv_strerror(status));
		return;
	}
	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return;
	connection->server = server;
	connection->caller.control = server->control;
	connection->caller.pidfd = -1;
	varlink_init(&connection->link, &control_service, on_send, &connection->caller);
	uv_pipe_init(stream->loop, &connection->pipe, 0);
	connection->pipe.data = connection;
	LIST_INSERT_HEAD(&server->connections, connection, entry);
	server->n_connections++;
	if (uv_accept(stream, (uv_stream_t *)&connection->pipe) < 0 || read_peer(connection) < 0) {
		connection_close(connection);
	} else if (is_one_too_many(server, connection)) {
		log_limited(LOG_WARNING,
			    "control connection of pid %d, uid %u refused: there are too many",
			    (int)connection->caller.pid, connection->caller.uid);
		connection_close(connection);
	} else {
		uv_read_start((uv_stream_t *)&connection->pipe, on_allocate, on_read);
	}
}

int server_init(struct server *server, uv_loop_t *loop, struct control *control, int fd,
		struct failure *failure)
{
	int r;

	*server = (struct server){.control = control};
	LIST_INIT(&server->connections);
	uv_pipe_init(loop, &server->pipe, 0);
	server->pipe.data = server;
	r = uv_pipe_open(&server->pipe, fd);
	if (r < 0)
		close(fd);
	else
		r = uv_listen((uv_stream_t *)&server->pipe, 128, on_connection);
	if (r < 0)
		return fail(failure, r, "listening on the control socket: %s", uv_strerror(r));
	return 0;
}

void server_close(struct server *server)
{
	struct connection *connection;

	LIST_FOREACH (connection, &server->connections, entry)
		connection_close(connection);
	if (!uv_is_closing((uv_handle_t *)&server->pipe))
		uv_close((uv_handle_t *)&server->pipe, NULL);
}
