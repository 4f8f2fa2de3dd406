/*
 * Clients: the processes that attached, each watched by its pidfd, by its lifeline (the read end of
 * a pipe whose other end closes at exec) and holding its session's socket open.
 *
 * A client that executes another program loses its task but stays a member of its group until it
 * exits or attaches anew.
 */
#pragma once

#include <uv.h>

#include "registry.h"

struct monitors;
struct notices;
struct watch;

struct clients {
	uv_loop_t *loop;
	struct pager *pager;
	struct registry *registry;
	struct notices *notices;
	struct monitors *monitors;
};

struct client {
	struct member member;
	struct clients *clients;
	struct watch *pidfd, *lifeline, *recheck;
	struct watch *socket; /* the session's, once the agents run */
	pid_t agents[2];      /* 0 = not known yet */
	int maps; /* the client's /proc/self/maps: reads nothing once that memory is gone */
	/* Called once when the task ends, unless reset: for a handshake that is under way. */
	void (*on_detached)(void *context);
	void *detached_context;
};

/* => all descriptors are taken over, also on failure: NULL. The member is in the group. */
struct client *client_new(struct clients *clients, struct group *group, pid_t pid, int pidfd,
			  int lifeline, int maps, pager_task_id task);
struct client *client_find(struct clients *clients, pid_t pid);
/* Keeps the session's socket open until the task ends or the other side has left. */
void client_keep_socket(struct client *client, int socket);
/* Looks whether the client has executed another program; then its task ends. True: it did. */
bool client_check_exec(struct client *client);
/* Ends its task, if it has one; the process stays a member. */
void client_detach(struct client *client);
/* client_detach, and the process is a member no more. */
void client_free(struct client *client);
