#include "monitor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "registry.h"
#include "varlink.h"
#include "view.h"

#define GATHER_MS  5
#define EVENTS_MAX 256 /* waiting for one monitor; what is beyond is dropped, the state is not */

struct monitor {
	LIST_ENTRY(monitor) entry;
	struct monitors *monitors;
	struct varlink_call *call;
	const struct group *group;
	uid_t uid;
	uint64_t interval_ms;
	json_t *events;
	uv_timer_t timer, gather;
	unsigned handles;
};

void monitors_init(struct monitors *monitors, uv_loop_t *loop, struct registry *registry)
{
	*monitors = (struct monitors){.loop = loop, .registry = registry};
	LIST_INIT(&monitors->list);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct monitor *monitor = handle->data;

	if (--monitor->handles)
		return;
	json_decref(monitor->events);
	free(monitor);
}

static void monitor_free(struct monitor *monitor)
{
	LIST_REMOVE(monitor, entry);
	uv_close((uv_handle_t *)&monitor->timer, on_handle_closed);
	uv_close((uv_handle_t *)&monitor->gather, on_handle_closed);
}

static void on_cancelled(struct varlink_call *call)
{
	monitor_free(call->state);
}

static json_t *take_reply(struct monitor *monitor, json_t *groups)
{
	json_t *events = monitor->events;

	monitor->events = json_array();
	return json_pack("{s:o,s:o}", "groups", groups, "events", events);
}

static void send_state(struct monitor *monitor)
{
	json_t *groups = view_groups(monitor->monitors->registry, monitor->uid, monitor->group);

	uv_timer_stop(&monitor->gather);
	varlink_reply(monitor->call, take_reply(monitor, groups), true);
}

static void on_timer(uv_timer_t *timer)
{
	send_state(timer->data);
}

void monitor_start(struct monitors *monitors, struct varlink_call *call, uid_t uid,
		   const struct group *group, int64_t interval_ms)
{
	struct monitor *monitor = calloc(1, sizeof(*monitor));

	if (!monitor) {
		varlink_error(call, "io.upager.Pager.Failed",
			      json_pack("{s:s,s:i}", "what", "monitor", "errno", 12));
		return;
	}
	monitor->monitors = monitors;
	monitor->call = call;
	monitor->group = group;
	monitor->uid = uid;
	monitor->interval_ms = (uint64_t)interval_ms;
	monitor->events = json_array();
	monitor->handles = 2;
	monitor->timer.data = monitor->gather.data = monitor;
	uv_timer_init(monitors->loop, &monitor->timer);
	uv_timer_init(monitors->loop, &monitor->gather);
	LIST_INSERT_HEAD(&monitors->list, monitor, entry);
	call->state = monitor;
	call->cancelled = on_cancelled;
	uv_timer_start(&monitor->timer, on_timer, monitor->interval_ms, monitor->interval_ms);
	send_state(monitor);
}

static json_t *event_json(const struct event *event)
{
	json_t *object = json_pack("{s:s}", "kind", event->kind);
	char address[24];

	snprintf(address, sizeof(address), "0x%" PRIx64, event->address);
	json_object_set_new(object, "group",
			    event->group ? json_string(event->group->name) : json_null());
	json_object_set_new(object, "task",
			    event->task ? json_integer((json_int_t)event->task) : json_null());
	json_object_set_new(object, "pid", event->pid ? json_integer(event->pid) : json_null());
	json_object_set_new(object, "address", event->address ? json_string(address) : json_null());
	json_object_set_new(object, "value",
			    event->has_value ? json_integer((json_int_t)event->value)
					     : json_null());
	return object;
}

void monitors_event(struct monitors *monitors, const struct event *event)
{
	json_t *object = event_json(event);
	struct monitor *monitor;

	LIST_FOREACH (monitor, &monitors->list, entry) {
		if (event->group ? !view_permits(event->group, monitor->uid) : monitor->uid != 0)
			continue;
		if (monitor->group && monitor->group != event->group)
			continue;
		if (json_array_size(monitor->events) < EVENTS_MAX)
			json_array_append(monitor->events, object);
		if (!uv_is_active((uv_handle_t *)&monitor->gather))
			uv_timer_start(&monitor->gather, on_timer, GATHER_MS, 0);
	}
	json_decref(object);
}

void monitors_group_ended(struct monitors *monitors, const struct group *group)
{
	struct monitor *next;

	for (struct monitor *monitor = LIST_FIRST(&monitors->list); monitor; monitor = next) {
		struct varlink_call *call = monitor->call;

		next = LIST_NEXT(monitor, entry);
		if (monitor->group != group)
			continue;
		json_t *reply = take_reply(monitor, json_array());

		monitor_free(monitor);
		varlink_reply(call, reply, false);
	}
}
