/* The control socket: connections that speak varlink. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

#define SERVER_CONNECTIONS_MAX	   1024
#define SERVER_CONNECTIONS_OF_USER 256	      /* but root */
#define SERVER_QUEUE_MAX	   (4u << 20) /* bytes waiting for a slow reader; beyond: dropped */

struct control;
struct failure;

struct server {
	uv_pipe_t pipe;
	struct control *control;
	LIST_HEAD(connection_list, connection) connections;
	unsigned n_connections;
};

/* => fd is a bound AF_UNIX stream socket; it is the server's from now on, also on failure. */
int server_init(struct server *server, uv_loop_t *loop, struct control *control, int fd,
		struct failure *failure);
/* Closes the socket and every connection; done when the loop has run. */
void server_close(struct server *server);
