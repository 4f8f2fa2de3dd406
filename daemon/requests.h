/*
 * Requests: what clients that are attached, or want to be, ask for on connections of their own (see
 * proto/session.h). One request each; who asks is known by the connection's credentials. Nothing
 * that a client sends is trusted. What takes time is answered by the worker that does it.
 */
#pragma once

#include <sys/queue.h>
#include <sys/socket.h>
#include <uv.h>

struct clients;

#define REQUEST_MS   5000 /* for each message that a client owes */
#define REQUESTS_MAX 1024

struct requests {
	uv_loop_t *loop;
	struct clients *clients;
	unsigned n;
	LIST_HEAD(request_list, request) list;
};

void requests_init(struct requests *requests, uv_loop_t *loop, struct clients *clients);
void requests_close(struct requests *requests);
/* => fd is a connection whose first message waits to be received; it is taken over. */
void requests_take(struct requests *requests, int fd, const struct ucred *peer);
