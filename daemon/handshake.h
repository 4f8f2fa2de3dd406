/* What a client sends is checked here, before anything is done with it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "proto/session.h"

#define SESSION_TWINS 2

/* Puts received descriptors in their places, -1 = not sent; false if they are not what a hello must
 * bring. They stay the caller's. */
bool handshake_sort_fds(const struct session_hello *hello, const int *got, unsigned n_got,
			int fds[SESSION_FDS]);

/* `seen` is the mask of agents that are ready, `sender` the pid that SCM_CREDENTIALS gave. An agent
 * must share the client's memory: else a client could have anyone killed in its place. 0;
 * -ESTALE: it does not, now; -EPROTO, -EINVAL: the message is no good. */
int handshake_check_agent(const struct session_ready *ready, unsigned seen, pid_t client,
			  pid_t sender);
