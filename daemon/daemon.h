/* The process: everything the daemon is made of, from start to orderly end. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <uv.h>

#include "clients.h"
#include "conf.h"
#include "control.h"
#include "monitor.h"
#include "notices.h"
#include "notify.h"
#include "registry.h"
#include "runtime.h"
#include "server.h"
#include "sessions.h"
#include "snapshots.h"
#include "traces.h"

struct failure;

struct daemon {
	struct conf conf;   /* loaded by main */
	const char *socket; /* --socket, or NULL */
	struct notify notify;
	bool embedded;

	uv_loop_t loop;
	struct runtime runtime;
	struct pager *pager;
	struct registry registry;
	struct monitors monitors;
	struct notices notices;
	struct clients clients;
	struct sessions sessions;
	struct control control;
	struct snapshots snapshots;
	struct traces traces;
	struct server server;
	struct watch *notice_watch, *embedder, *deadline, *end;
	uv_signal_t signals[3];
	bool stopping, closed;
	char private_swap[PATH_MAX]; /* an embedded daemon's own */
	bool swap_missing[CONF_SWAPS];
};

/* => conf, socket, notify and embedded are set, the rest is zero. Runs until the daemon ends.
 * 0 = an orderly end; -errno and *failure: it could not start. */
int daemon_run(struct daemon *daemon, struct failure *failure);
