/* The control interface over the fake pager, and connections to it: what its tests share. */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "control.h"
#include "monitor.h"
#include "notices.h"
#include "registry.h"
#include "snapshots.h"
#include "traces.h"
#include "varlink.h"

/* One connection. */
struct peer {
	struct caller caller;
	struct varlink link;
	json_t *last; /* the last reply */
	unsigned n;   /* replies since this was set to 0 */
};

extern struct pager *pager;
extern struct registry registry;
extern struct monitors monitors;
extern struct snapshots snapshots;
extern struct traces traces;
extern struct notices notices;
extern uv_loop_t loop;
extern struct peer user, stranger, root; /* uids 1000, 1001, 0 */

void control_setup(void);
void control_teardown(void);
void peer_init(struct peer *peer, uid_t uid);
void peer_done(struct peer *peer);

/* The reply's parameters (borrowed); *ret_error is the error's last word, or "". */
json_t *call(struct peer *peer, const char *method, const char *parameters, char *ret_error);
void expect_error(struct peer *peer, const char *method, const char *parameters,
		  const char *expected);
#define expect_ok(peer, method, parameters) expect_error(peer, method, parameters, "")

/* A task of the group, and its end. */
void attach(const char *name, pid_t pid);
void detach(pid_t pid);
