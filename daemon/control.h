/* The methods of io.upager.Pager. Every call is made by a `struct caller`. */
#pragma once

#include <sys/types.h>

struct monitors;
struct pager;
struct registry;
struct snapshots;
struct traces;
struct varlink_service;

struct control {
	struct pager *pager;
	struct registry *registry;
	struct monitors *monitors;
	struct snapshots *snapshots;
	struct traces *traces;
};

/* What is known of a connection: the `context` of its struct varlink. Its address is the owner of
 * the groups it makes. */
struct caller {
	struct control *control;
	uid_t uid;
	pid_t pid;
	int pidfd; /* or -1 */
};

extern const struct varlink_service control_service;

/* The connection is closing: its groups, unless released, end. */
void control_caller_gone(struct caller *caller);
