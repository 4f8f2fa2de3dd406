/* `upager ps`, `stat`, `limit` and `tiers`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ask.h"
#include "base/size.h"
#include "commands.h"
#include "figures.h"
#include "terminal.h"

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "-";
}

static void print_json(const json_t *value, size_t flags)
{
	json_dumpf(value, stdout, flags);
	putchar('\n');
	fflush(stdout);
}

static bool same_group(const json_t *group, const json_t *task)
{
	return !strcmp(text_of(group, "name"), text_of(task, "group")) &&
	       !strcmp(text_of(group, "socket"), text_of(task, "socket"));
}

static void group_row(struct table *table, const json_t *group)
{
	char age[32], faults[32];

	table_cell(table, "%s", text_of(group, "name"));
	table_size(table, figure(group, "limit"));
	table_size(table, figure(group, "resident"));
	table_size(table, figure(group, "evicted"));
	table_cell(table, "%s", count_format(figure_faults(group), faults));
	table_cell(table, "%lld task%s, %s", (long long)figure(group, "tasks"),
		   figure(group, "tasks") == 1 ? "" : "s",
		   seconds_format((double)figure(group, "age_ms") / 1000, age));
}

static void task_row(struct table *table, const json_t *task)
{
	long long pid = figure(task, "pid");
	char faults[32];

	if (pid)
		table_cell(table, "  %lld", pid);
	else
		table_cell(table, "  ?");
	table_cell(table, "%s", "");
	table_size(table, figure(task, "resident"));
	table_size(table, figure(task, "evicted"));
	table_cell(table, "%s", count_format(figure_faults(task), faults));
	table_cell(table, "%s%s", text_of(task, "command"),
		   json_is_false(json_object_get(task, "evictable")) ? " (not evictable)" : "");
}

static void print_ps(json_t *all)
{
	static const char *const titles[] = {"GROUP/PID", "LIMIT",  "RESIDENT",
					     "EVICTED",	  "FAULTS", "COMMAND"};
	json_t *group, *task;
	struct table table;
	size_t i, j;

	table_init(&table, 6, 0x1e);
	for (i = 0; i < 6; i++)
		table_cell(&table, "%s", titles[i]);
	json_array_foreach(json_object_get(all, "groups"), i, group) {
		group_row(&table, group);
		json_array_foreach(json_object_get(all, "tasks"), j, task)
			if (same_group(group, task))
				task_row(&table, task);
	}
	table_print(&table, stdout, true);
	table_done(&table);
}

int command_ps(int argc, char **argv)
{
	json_t *all = NULL;
	struct ask ask;
	int status = ask_parse(&ask, argc, argv, 0, 0);

	if (status == 0)
		status = ask_all(&ask, &all);
	if (status == 0 && ask.json)
		print_json(all, JSON_INDENT(2));
	else if (status == 0)
		print_ps(all);
	json_decref(all);
	return status;
}

static void print_stat(json_t *all, bool one_task)
{
	json_t *group, *task;
	char age[32];
	size_t i, j;

	json_array_foreach(json_object_get(all, "groups"), i, group) {
		printf("%sgroup %s: %lld task%s, uid %lld, %s old%s\n", i ? "\n" : "",
		       text_of(group, "name"), (long long)figure(group, "tasks"),
		       figure(group, "tasks") == 1 ? "" : "s", (long long)figure(group, "uid"),
		       seconds_format((double)figure(group, "age_ms") / 1000, age),
		       json_is_true(json_object_get(group, "armed"))
			       ? ""
			       : ", has not come near its limit");
		if (!one_task)
			figures_print_all(group, stdout);
		json_array_foreach(json_object_get(all, "tasks"), j, task) {
			if (!same_group(group, task))
				continue;
			printf("task %lld: %s%s\n", (long long)figure(task, "pid"),
			       text_of(task, "command"),
			       json_is_false(json_object_get(task, "evictable"))
				       ? ", not evictable"
				       : "");
			if (one_task)
				figures_print_all(task, stdout);
		}
	}
	if (!json_array_size(json_object_get(all, "groups")))
		printf("no groups\n");
}

static int ask_stat(const struct ask *ask, json_t **ret)
{
	return ask->n_words ? ask_target(ask, ask->words[0], ret) : ask_all(ask, ret);
}

/* The counters of an object since the last line; `before` is keyed by what the object is. */
static int64_t since(const json_t *before, const json_t *object, const char *counter)
{
	return figure_counter(object, counter) - figure_counter(before, counter);
}

static void print_watch_line(const json_t *object, const char *who, const json_t *before,
			     double seconds)
{
	int64_t faults = figure_faults(object) - (before ? figure_faults(before) : 0);
	char resident[24], evicted[24], in[24], out[24];
	double out_rate = FIGURES_PAGE * (double)since(before, object, "pages_out") / seconds;
	double in_rate = FIGURES_PAGE * (double)since(before, object, "pages_in") / seconds;

	printf("%-24.24s %10s %10s %9.0f %9.0f %10s %10s\n", who,
	       size_format((uint64_t)figure(object, "resident"), resident),
	       size_format((uint64_t)figure(object, "evicted"), evicted), (double)faults / seconds,
	       (double)since(before, object, "major") / seconds,
	       size_format(in_rate < 0 ? 0 : (uint64_t)in_rate, in),
	       size_format(out_rate < 0 ? 0 : (uint64_t)out_rate, out));
}

/* Prints one line for each, and keeps it in `before` for the next. */
static void print_watch(json_t *objects, const char *key, json_t *before, double seconds)
{
	json_t *object;
	size_t i;

	json_array_foreach(objects, i, object) {
		char who[128], id[512];
		const json_t *old;

		if (!strcmp(key, "pid"))
			snprintf(who, sizeof(who), "%lld", (long long)figure(object, "pid"));
		else
			snprintf(who, sizeof(who), "%s", text_of(object, key));
		snprintf(id, sizeof(id), "%s %s", who, text_of(object, "socket"));
		old = json_object_get(before, id);
		print_watch_line(object, who, old,
				 old ? seconds : 1e9 /* nothing to compare with yet */);
		json_object_set(before, id, object);
	}
	fflush(stdout);
}

static void pause_for(double seconds)
{
	struct timespec time = {.tv_sec = (time_t)seconds};

	time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
	while (nanosleep(&time, &time) < 0 && errno == EINTR)
		;
}

static int watch(struct ask *ask)
{
	json_t *before = json_object(), *all = NULL;
	int status = ask_stat(ask, &all);
	bool task = ask->n_words && json_array_size(json_object_get(all, "tasks")) == 1 &&
		    atoi(ask->words[0]) > 0;

	if (status == 0 && !ask->json)
		printf("%-24s %10s %10s %9s %9s %10s %10s\n", task ? "TASK" : "GROUP", "RESIDENT",
		       "EVICTED", "FAULTS/S", "MAJOR/S", "IN/S", "OUT/S");
	while (status == 0 && all) {
		if (ask->json)
			print_json(all, JSON_COMPACT);
		else
			print_watch(json_object_get(all, task ? "tasks" : "groups"),
				    task ? "pid" : "name", before, ask->interval);
		json_decref(all);
		all = NULL;
		ask->seen = true;
		pause_for(ask->interval);
		status = ask_stat(ask, &all);
	}
	json_decref(all);
	json_decref(before);
	return status;
}

int command_stat(int argc, char **argv)
{
	json_t *all = NULL, *tiers = NULL;
	struct ask ask;
	int status = ask_parse(&ask, argc, argv, 0, 1);

	if (status != 0)
		return status;
	if (ask.watch)
		return watch(&ask);
	status = ask_stat(&ask, &all);
	if (status == 0)
		status = ask_tiers(&ask, &tiers);
	if (status == 0 && ask.json) {
		json_object_update(all, tiers);
		print_json(all, JSON_INDENT(2));
	} else if (status == 0) {
		print_stat(all, ask.n_words &&
					strcmp(ask.words[0],
					       text_of(json_array_get(json_object_get(all, "groups"),
								      0),
						       "name")));
		figures_print_compressed(json_object_get(tiers, "tiers"), stdout);
	}
	json_decref(tiers);
	json_decref(all);
	return status;
}

int command_limit(int argc, char **argv)
{
	json_t *answer = NULL, *group;
	struct ask ask;
	uint64_t size;
	int status = ask_parse(&ask, argc, argv, 2, 2);
	char limit[24], resident[24];

	if (status != 0)
		return status;
	if (size_parse(ask.words[1], &size) < 0)
		return say_failed("limit: \"%s\" is no size; write 256M or 1.5G, for instance",
				  ask.words[1]);
	status = ask_limit(&ask, ask.words[0], (json_int_t)size, &answer);
	group = json_object_get(answer, "group");
	if (status == 0 && ask.json)
		print_json(answer, JSON_INDENT(2));
	else if (status == 0)
		printf("%s: limit %s, resident %s\n", ask.words[0],
		       size_format((uint64_t)figure(group, "limit"), limit),
		       size_format((uint64_t)figure(group, "resident"), resident));
	json_decref(answer);
	return status;
}

static void print_tiers(json_t *tiers)
{
	static const char *const titles[] = {"TIER",   "SIZE", "USED",	 "PRIORITY", "IN",
					     "OUT",    "ERRORS", "HOW", "PATH"};
	json_t *tier;
	struct table table;
	size_t i;

	table_init(&table, 9, 0x7e);
	for (i = 0; i < 9; i++)
		table_cell(&table, "%s", titles[i]);
	json_array_foreach(tiers, i, tier) {
		table_cell(&table, "%s", text_of(tier, "name"));
		table_size(&table, figure(tier, "size"));
		table_size(&table, figure(tier, "used"));
		table_cell(&table, "%lld", (long long)figure(tier, "priority"));
		table_size(&table, FIGURES_PAGE * figure(tier, "pages_in"));
		table_size(&table, FIGURES_PAGE * figure(tier, "pages_out"));
		table_cell(&table, "%lld", (long long)figure(tier, "errors"));
		table_cell(&table, "%s%s",
			   json_is_true(json_object_get(tier, "direct")) ? "direct" : "cached",
			   json_is_true(json_object_get(tier, "preallocated")) ? ", preallocated"
									       : "");
		table_cell(&table, "%s", text_of(tier, "path"));
	}
	table_print(&table, stdout, true);
	table_done(&table);
}

int command_tiers(int argc, char **argv)
{
	json_t *answer = NULL;
	struct ask ask;
	int status = ask_parse(&ask, argc, argv, 0, 0);

	if (status == 0)
		status = ask_tiers(&ask, &answer);
	if (status == 0 && ask.json)
		print_json(answer, JSON_INDENT(2));
	else if (status == 0)
		print_tiers(json_object_get(answer, "tiers"));
	json_decref(answer);
	return status;
}
