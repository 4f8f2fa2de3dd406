/* Sessions over the fake pager: what their tests and those of requests share. */
#pragma once

#include <uv.h>

#include "clients.h"
#include "monitor.h"
#include "notices.h"
#include "registry.h"
#include "sessions.h"
#include "snapshots.h"
#include "traces.h"

extern struct pager *pager;
extern struct registry registry;
extern struct notices notices;
extern struct clients clients;
extern struct sessions sessions;
extern uv_loop_t loop;
extern char path[64]; /* of the socket */

void session_setup(void);
void session_teardown(void); /* => no group is left */
