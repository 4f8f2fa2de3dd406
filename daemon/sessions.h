/*
 * The session socket: strangers come, say hello, and leave as clients. Nothing a client sends is
 * trusted. A handshake has five seconds.
 */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

#include "requests.h"

struct clients;
struct failure;

#define SESSION_HANDSHAKE_MS   5000
#define SESSION_HANDSHAKES_MAX 256

struct sessions {
	uv_loop_t *loop;
	struct clients *clients;
	struct watch *listener;
	int device; /* /dev/userfaultfd, or -1 */
	int spare;  /* given up for a moment when descriptors run out, to turn someone away */
	unsigned give_up_s;
	bool offer_all; /* the device, to whoever connects; else to uids that have a group */
	unsigned n;	/* handshakes under way */
	struct requests requests;
	LIST_HEAD(session_list, session) list;
};

/* => fd is a bound AF_UNIX seqpacket socket, taken over also on failure. The rest of *sessions
 * (loop, clients, give_up_s, offer_all) is set. */
int sessions_init(struct sessions *sessions, int fd, struct failure *failure);
void sessions_close(struct sessions *sessions);
