#include "clients.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "pager/pager.h"
#include "sys/pidfd.h"
#include "watch.h"

#define RECHECK_MS 1000

static void on_lifeline(void *context);

static void on_pidfd(void *context)
{
	client_free(context);
}

struct client *client_new(struct clients *clients, struct group *group, pid_t pid, int pidfd,
			  int lifeline, int maps, pager_task_id task)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client) {
		close(pidfd);
		close(lifeline);
		close(maps);
		return NULL;
	}
	client->clients = clients;
	client->pidfd = watch_fd(clients->loop, pidfd, on_pidfd, client);
	client->lifeline = watch_fd(clients->loop, lifeline, on_lifeline, client);
	if (!client->pidfd || !client->lifeline) {
		watch_free(client->pidfd);
		watch_free(client->lifeline);
		close(maps);
		free(client);
		return NULL;
	}
	client->maps = maps;
	client->member.pid = pid;
	client->member.pidfd = pidfd;
	client->member.task = task;
	client->member.watcher = client;
	registry_member_add(clients->registry, group, &client->member);
	return client;
}

struct client *client_find(struct clients *clients, pid_t pid)
{
	struct member *member = registry_member(clients->registry, pid);

	return member ? member->watcher : NULL;
}

/* Nothing is said on it any more; what is said nevertheless is not heard. */
static void on_socket(void *context)
{
	struct client *client = context;
	char ignored[64];

	if (recv(watch_get_fd(client->socket), ignored, sizeof(ignored), MSG_DONTWAIT) <= 0)
		client->socket = watch_free(client->socket);
}

void client_keep_socket(struct client *client, int socket)
{
	client->socket = watch_fd(client->clients->loop, socket, on_socket, client);
}

void client_detach(struct client *client)
{
	void (*on_detached)(void *) = client->on_detached;
	pager_task_id id = client->member.task;

	client->member.task = 0;
	client->lifeline = watch_free(client->lifeline);
	client->recheck = watch_free(client->recheck);
	client->socket = watch_free(client->socket);
	client->agents[0] = client->agents[1] = 0;
	if (id)
		pager_detach(client->clients->pager, id);
	if (on_detached) {
		client->on_detached = NULL;
		on_detached(client->detached_context);
	}
}

void client_free(struct client *client)
{
	client_detach(client);
	watch_free(client->pidfd);
	close(client->maps);
	registry_member_gone(client->clients->registry, &client->member);
	free(client);
}

/* The first thread may end before the others: then it has no memory, but the process does. */
static bool leader_has_ended(pid_t pid)
{
	char path[32], line[512], *state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return true;
	state = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	fclose(file);
	return !state || strlen(state) < 3 || strchr("ZXx", state[2]);
}

/* Has the client another address space than its agents? When in doubt it has not: what is detached
 * too early reads zeros. */
static bool has_executed(const struct client *client)
{
	char byte;

	for (unsigned i = 0; i < 2; i++) {
		int r = client->agents[i] ? pidfd_same_vm(client->member.pid, client->agents[i])
					  : -ESRCH;

		/* An agent that has ended has no memory either: it proves nothing. */
		if (r == 0 && !leader_has_ended(client->agents[i]))
			return !leader_has_ended(client->member.pid);
		if (r == 1)
			return false;
	}
	/* Without agents the memory that said hello lives only as long as someone runs on it. */
	return pread(client->maps, &byte, 1, 0) == 0 && !leader_has_ended(client->member.pid);
}

bool client_check_exec(struct client *client)
{
	if (!client->member.task || !has_executed(client))
		return false;
	log_info("group %s: pid %d executed another program, its task ends",
		 client->member.group->name, (int)client->member.pid);
	client_detach(client);
	return true;
}

static void recheck(void *context)
{
	struct client *client = context;

	client->recheck = watch_free(client->recheck);
	if (!client_check_exec(client))
		client->recheck = watch_timer(client->clients->loop, RECHECK_MS, recheck, client);
}

/* Closed: by exec, or by a program that closes all it has. From now on we have to look. */
static void on_lifeline(void *context)
{
	struct client *client = context;

	client->lifeline = watch_free(client->lifeline);
	if (pidfd_ended(watch_get_fd(client->pidfd), 0))
		client_free(client);
	else
		recheck(client);
}
