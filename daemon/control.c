#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "log.h"
#include "monitor.h"
#include "pager/pager.h"
#include "registry.h"
#include "snapshots.h"
#include "sys/files.h"
#include "sys/pidfd.h"
#include "traces.h"
#include "varlink.h"
#include "view.h"

#define INTERFACE "io.upager.Pager"
#define LIMIT_MAX (INT64_C(1) << 47) /* all the address space a process has */

#define PARAMETERS(call, ...)                                                                      \
	varlink_parameters(call, (const struct varlink_parameter[]){__VA_ARGS__},                  \
			   sizeof((const struct varlink_parameter[]){__VA_ARGS__}) /               \
			       sizeof(struct varlink_parameter))

static const char description[] =
#include "io.upager.Pager.inc"
    ;

static struct caller *caller_of(struct varlink_call *call)
{
	return call->link->context;
}

static void fail_group(struct varlink_call *call, const char *error, const char *name)
{
	char whole[64];

	snprintf(whole, sizeof(whole), INTERFACE ".%s", error);
	varlink_error(call, whole, json_pack("{s:o}", "group", varlink_text(name)));
}

static void fail_errno(struct varlink_call *call, const char *what, int r)
{
	varlink_error(call, INTERFACE ".Failed", json_pack("{s:s,s:i}", "what", what, "errno", -r));
}

static void fail_limit(struct varlink_call *call, int64_t limit)
{
	varlink_error(call, INTERFACE ".LimitOutOfRange",
		      json_pack("{s:I,s:I,s:I}", "limit", (json_int_t)limit, "minimum",
				(json_int_t)pager_minimum_limit(), "maximum",
				(json_int_t)LIMIT_MAX));
}

static bool limit_is_good(int64_t limit)
{
	return limit > 0 && (uint64_t)limit >= pager_minimum_limit() && limit <= LIMIT_MAX;
}

/* The group of that name if the caller may steer it; else NULL, and the call is answered. */
static struct group *find_group(struct varlink_call *call, const char *name)
{
	struct caller *caller = caller_of(call);
	struct group *group = registry_group(caller->control->registry, name);

	if (!group)
		fail_group(call, "NoSuchGroup", name);
	else if (!view_permits(group, caller->uid))
		fail_group(call, "NotOwner", name);
	else
		return group;
	return NULL;
}

static void run_list(struct varlink_call *call)
{
	struct caller *caller = caller_of(call);

	if (!varlink_parameters(call, NULL, 0))
		return;
	varlink_reply(
	    call,
	    json_pack("{s:o}", "groups", view_groups(caller->control->registry, caller->uid, NULL)),
	    false);
}

static struct group *find_group_of_pid(struct varlink_call *call, int64_t pid)
{
	struct caller *caller = caller_of(call);
	struct registry *registry = caller->control->registry;
	const struct task *task = NULL;
	const struct member *member = NULL;
	struct group *group = NULL;

	if (pid > 0 && pid <= INT32_MAX) {
		task = registry_task_by_pid(registry, (pid_t)pid);
		member = registry_member(registry, (pid_t)pid);
	}
	group = task ? task->group : member ? member->group : NULL;
	if (group && view_permits(group, caller->uid))
		return group;
	varlink_error(call, INTERFACE ".NoSuchTask", json_pack("{s:I}", "pid", (json_int_t)pid));
	return NULL;
}

static void run_describe(struct varlink_call *call)
{
	const char *name = NULL;
	struct group *group;
	int64_t pid = 0;

	if (!PARAMETERS(call, {"group", VARLINK_STRING, true, &name},
			{"pid", VARLINK_INT, true, &pid}))
		return;
	if (!name == !pid) {
		varlink_invalid(call, name ? "pid" : "group");
		return;
	}
	group = name ? find_group(call, name) : find_group_of_pid(call, pid);
	if (!group)
		return;
	pager_group_refresh(group->pager); /* `upager run` asks once, at the end */
	varlink_reply(call,
		      json_pack("{s:o,s:o}", "group", view_group(group), "tasks",
				view_tasks(caller_of(call)->control->registry, group)),
		      false);
}

static void run_create(struct varlink_call *call)
{
	struct caller *caller = caller_of(call);
	struct group *group;
	const char *name = NULL;
	int64_t limit = 0;
	char key[17], size[24];
	int r;

	if (!PARAMETERS(call, {"name", VARLINK_STRING, false, &name},
			{"limit", VARLINK_INT, false, &limit}))
		return;
	if (!limit_is_good(limit)) {
		fail_limit(call, limit);
		return;
	}
	r = registry_create(caller->control->registry, name, caller->uid, caller, (uint64_t)limit,
			    &group);
	if (r == -EINVAL)
		varlink_invalid(call, "name");
	else if (r == -EEXIST)
		fail_group(call, "GroupExists", name);
	else if (r == -ERANGE)
		fail_limit(call, limit);
	else if (r < 0)
		fail_errno(call, "making the group", r);
	if (r < 0)
		return;
	log_info("group %s: made by pid %d, uid %u, limit %s", group->name, (int)caller->pid,
		 caller->uid, size_format((uint64_t)limit, size));
	monitors_event(caller->control->monitors,
		       &(struct event){.kind = "group_created", .group = group});
	snprintf(key, sizeof(key), "%016" PRIx64, group->key);
	varlink_reply(call, json_pack("{s:s}", "key", key), false);
}

static void run_release(struct varlink_call *call)
{
	struct caller *caller = caller_of(call);
	const char *name = NULL;
	struct group *group;

	if (!PARAMETERS(call, {"name", VARLINK_STRING, false, &name}))
		return;
	group = registry_group(caller->control->registry, name);
	if (!group) {
		fail_group(call, "NoSuchGroup", name);
	} else if (group->owner != caller) {
		fail_group(call, "NotOwner", name);
	} else {
		registry_release(caller->control->registry, group);
		varlink_reply(call, NULL, false);
	}
}

static void run_set_limit(struct varlink_call *call)
{
	const char *name = NULL;
	struct group *group;
	int64_t limit = 0;
	int r;

	if (!PARAMETERS(call, {"group", VARLINK_STRING, false, &name},
			{"limit", VARLINK_INT, false, &limit}))
		return;
	group = find_group(call, name);
	if (!group)
		return;
	if (!limit_is_good(limit)) {
		fail_limit(call, limit);
		return;
	}
	r = pager_group_set_limit(group->pager, (uint64_t)limit);
	if (r == -ERANGE)
		fail_limit(call, limit);
	else if (r < 0)
		fail_errno(call, "setting the limit", r);
	else
		varlink_reply(call, json_pack("{s:o}", "group", view_group(group)), false);
}

static void run_tiers(struct varlink_call *call)
{
	if (varlink_parameters(call, NULL, 0))
		varlink_reply(
		    call, json_pack("{s:o}", "tiers", view_tiers(caller_of(call)->control->pager)),
		    false);
}

static void run_monitor(struct varlink_call *call)
{
	struct caller *caller = caller_of(call);
	int64_t interval_ms = MONITOR_INTERVAL_DEFAULT;
	struct group *group = NULL;
	const char *name = NULL;

	if (!PARAMETERS(call, {"group", VARLINK_STRING, true, &name},
			{"interval_ms", VARLINK_INT, true, &interval_ms}))
		return;
	if (interval_ms < MONITOR_INTERVAL_MIN || interval_ms > MONITOR_INTERVAL_MAX) {
		varlink_invalid(call, "interval_ms");
		return;
	}
	if (name && !(group = find_group(call, name)))
		return;
	if (call->more)
		monitor_start(caller->control->monitors, call, caller->uid, group, interval_ms);
	else
		varlink_reply(call,
			      json_pack("{s:o,s:[]}", "groups",
					view_groups(caller->control->registry, caller->uid, group),
					"events"),
			      false);
}

/* A duplicate of the caller's descriptor of that number; < 0: the call is answered. */
static int take_file(struct varlink_call *call, int64_t number)
{
	int fd = number >= 0 && number <= INT32_MAX
		     ? pidfd_take(caller_of(call)->pidfd, (int)number) : -EBADF;

	if (fd >= 0 && file_is_fresh(fd))
		return fd;
	if (fd >= 0)
		close(fd);
	varlink_invalid(call, "fd");
	return -EINVAL;
}

static void run_snapshot(struct varlink_call *call)
{
	struct caller *caller = caller_of(call);
	int64_t pid = 0, number = -1;
	const struct task *task;
	int fd;

	if (!PARAMETERS(call, {"pid", VARLINK_INT, false, &pid}, {"fd", VARLINK_INT, false, &number}))
		return;
	if (!find_group_of_pid(call, pid))
		return;
	fd = take_file(call, number);
	if (fd < 0)
		return;
	task = registry_task_by_pid(caller->control->registry, (pid_t)pid);
	snapshots_call(caller->control->snapshots, task ? task->id : 0, fd, call);
}

static void run_trace(struct varlink_call *call)
{
	const char *name = NULL;
	int64_t number = -1;
	struct group *group;
	int fd;

	if (!PARAMETERS(call, {"group", VARLINK_STRING, false, &name},
			{"fd", VARLINK_INT, false, &number}))
		return;
	group = find_group(call, name);
	if (!group)
		return;
	fd = take_file(call, number);
	if (fd >= 0)
		traces_start(caller_of(call)->control->traces, group, fd, call);
}

static void run_end_trace(struct varlink_call *call)
{
	const char *name = NULL;
	struct group *group;

	if (!PARAMETERS(call, {"group", VARLINK_STRING, false, &name}))
		return;
	group = find_group(call, name);
	if (!group)
		return;
	if (traces_end(caller_of(call)->control->traces, group))
		varlink_reply(call, NULL, false);
	else
		fail_errno(call, "the group is not being traced", -ESRCH);
}

void control_caller_gone(struct caller *caller)
{
	unsigned n = registry_owner_gone(caller->control->registry, caller);

	if (n)
		log_info("pid %d closed its connection: %u group%s end%s", (int)caller->pid, n,
			 n == 1 ? "" : "s", n == 1 ? "s" : "");
}

static const struct varlink_interface control_interface = {
    .name = INTERFACE,
    .description = description,
    .methods = (const struct varlink_method[]){{"List", run_list},
					       {"Describe", run_describe},
					       {"Create", run_create},
					       {"Release", run_release},
					       {"SetLimit", run_set_limit},
					       {"Tiers", run_tiers},
					       {"Monitor", run_monitor},
					       {"Snapshot", run_snapshot},
					       {"Trace", run_trace},
					       {"EndTrace", run_end_trace},
					       {NULL, NULL}},
};

const struct varlink_service control_service = {
    .vendor = "upager",
    .product = "upagerd",
    .version = UPAGER_VERSION,
    .url = "https://upager.io",
    .interfaces = (const struct varlink_interface *const[]){&control_interface, NULL},
};
