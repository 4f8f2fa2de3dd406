#include "view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"
#include "varlink.h"

bool view_permits(const struct group *group, uid_t uid)
{
	return uid == 0 || uid == group->uid;
}

static json_int_t number(uint64_t value)
{
	return value > INT64_MAX ? INT64_MAX : (json_int_t)value;
}

static void set_number(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, json_integer(number(value)));
}

static json_t *view_counters(const struct counters *counters)
{
	json_t *object = json_object();

#define X(name, text) set_number(object, #name, counters->name);
	COUNTERS(X)
#undef X
	return object;
}

json_t *view_group(const struct group *group)
{
	struct pager_group_stat stat;
	json_t *object = json_object();

	pager_group_stat(group->pager, &stat);
	json_object_set_new(object, "name", json_string(group->name));
	set_number(object, "uid", group->uid);
	set_number(object, "limit", stat.limit);
	set_number(object, "resident", stat.resident);
	set_number(object, "peak", stat.peak);
	set_number(object, "evicted", stat.evicted);
	set_number(object, "overhead", stat.overhead);
	set_number(object, "metadata", stat.metadata);
	set_number(object, "tasks", stat.tasks);
	json_object_set_new(object, "armed", json_boolean(stat.armed));
	set_number(object, "age_ms", registry_group_age_ms(group));
	json_object_set_new(object, "counters", view_counters(&stat.counters));
	return object;
}

/* The kernel's name of the process; empty if it has gone. */
static json_t *view_command(pid_t pid)
{
	char path[32], command[64] = "";
	FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (pid > 0)
		file = fopen(path, "re");
	if (file) {
		if (fgets(command, sizeof(command), file))
			command[strcspn(command, "\n")] = 0;
		fclose(file);
	}
	return varlink_text(command);
}

static json_t *view_task(struct registry *registry, const struct group *group,
			 const struct pager_task_stat *stat)
{
	const struct task *known = registry_task(registry, stat->id);
	pid_t pid = stat->pid ? stat->pid : known ? known->pid : 0;
	json_t *object = json_object();

	set_number(object, "id", stat->id);
	set_number(object, "pid", (uint64_t)pid);
	set_number(object, "parent", stat->parent);
	json_object_set_new(object, "group", json_string(group->name));
	json_object_set_new(object, "command", view_command(pid));
	set_number(object, "resident", stat->resident);
	set_number(object, "evicted", stat->evicted);
	set_number(object, "overhead", stat->overhead);
	set_number(object, "metadata", stat->metadata);
	set_number(object, "registered", stat->registered);
	set_number(object, "regions", stat->regions);
	json_object_set_new(object, "evictable", json_boolean(stat->evictable));
	json_object_set_new(object, "counters", view_counters(&stat->counters));
	return object;
}

json_t *view_tasks(struct registry *registry, const struct group *group)
{
	size_t n = pager_group_tasks(group->pager, NULL, 0), max = n + 16;
	struct pager_task_stat *stats = calloc(max, sizeof(*stats));
	json_t *list = json_array();

	if (!stats)
		return list;
	n = pager_group_tasks(group->pager, stats, max);
	for (size_t i = 0; i < n && i < max; i++)
		json_array_append_new(list, view_task(registry, group, &stats[i]));
	free(stats);
	return list;
}

static json_t *view_compressed(const struct pager_tier_stat *stat)
{
	json_t *object = stat->compressed ? json_object() : json_null();

	if (stat->compressed) {
		set_number(object, "pages", stat->pages);
		set_number(object, "peak", stat->peak);
		set_number(object, "bytes_out", stat->bytes_out);
		set_number(object, "written_back", stat->written_back);
		set_number(object, "rejected", stat->rejected);
	}
	return object;
}

json_t *view_tiers(const struct pager *pager)
{
	struct pager_tier_stat stats[64];
	size_t n = pager_tiers(pager, stats, 64);
	json_t *list = json_array();

	for (size_t i = 0; i < n && i < 64; i++) {
		const struct pager_tier_stat *stat = &stats[i];
		json_t *object = json_object();

		json_object_set_new(object, "name", varlink_text(stat->name));
		json_object_set_new(object, "path",
				    *stat->path ? varlink_text(stat->path) : json_null());
		json_object_set_new(object, "priority", json_integer(stat->priority));
		set_number(object, "size", stat->size);
		set_number(object, "used", stat->used);
		set_number(object, "pages_in", stat->pages_in);
		set_number(object, "pages_out", stat->pages_out);
		set_number(object, "errors", stat->errors);
		json_object_set_new(object, "direct", json_boolean(stat->direct));
		json_object_set_new(object, "preallocated", json_boolean(stat->preallocated));
		json_object_set_new(object, "registered_buffers",
				    json_boolean(stat->registered_buffers));
		json_object_set_new(object, "compressed", view_compressed(stat));
		json_array_append_new(list, object);
	}
	return list;
}

json_t *view_groups(const struct registry *registry, uid_t uid, const struct group *only)
{
	const struct group *group;
	json_t *list = json_array();

	TAILQ_FOREACH (group, &registry->groups, entry)
		if (view_permits(group, uid) && (!only || only == group))
			json_array_append_new(list, view_group(group));
	return list;
}
