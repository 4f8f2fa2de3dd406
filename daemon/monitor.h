/*
 * Monitor calls that are under way: a timer each for the state, and events as they happen, gathered
 * for a few milliseconds so that a burst makes one message.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

struct group;
struct registry;
struct varlink_call;

#define MONITOR_INTERVAL_MIN	 10
#define MONITOR_INTERVAL_MAX	 60000
#define MONITOR_INTERVAL_DEFAULT 1000

struct monitors {
	uv_loop_t *loop;
	struct registry *registry;
	LIST_HEAD(monitor_list, monitor) list;
};

void monitors_init(struct monitors *monitors, uv_loop_t *loop, struct registry *registry);
/* Answers `call` (which asked for more) until its connection closes or `group` (NULL = all that
 * uid may see) ends; the first reply at once. */
void monitor_start(struct monitors *monitors, struct varlink_call *call, uid_t uid,
		   const struct group *group, int64_t interval_ms);

struct event {
	const char *kind;
	const struct group *group; /* NULL = concerns no group: for root */
	uint64_t task;		   /* 0, 0, 0 = do not apply */
	pid_t pid;
	uint64_t address;
	bool has_value;
	uint64_t value;
};
void monitors_event(struct monitors *monitors, const struct event *event);
/* Sends the last reply of those that watch this group alone. */
void monitors_group_ended(struct monitors *monitors, const struct group *group);
