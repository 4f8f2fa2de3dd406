/*
 * Asking every daemon that one may see: the system's, the user's, those of runs.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct ask {
	const char *command; /* for messages */
	const char *output;  /* -o FILE, or NULL */
	const char *socket;  /* only this daemon, or NULL = all */
	bool json, watch;
	bool seen;       /* there was an answer before: that there is none any more is no error */
	double interval; /* seconds */
	double seconds;      /* how long to trace; 0: till it is ended */
	const char *convert; /* a trace to this form, or NULL */
	char **words;    /* what is left of argv */
	int n_words;
};

/* Options of a subcommand. 0, or the exit status. */
int ask_parse(struct ask *ask, int argc, char **argv, int min_words, int max_words);

/* Everything there is: {"groups": […], "tasks": […]}. An object of a daemon that was not named
 * has a member "socket". 0, or the exit status after saying why; NULL if nobody is left who could
 * answer and ask->seen. */
int ask_all(const struct ask *ask, json_t **ret);

/* The same for one group, or one task (a process id) and its group. */
int ask_target(const struct ask *ask, const char *target, json_t **ret);

/* {"tiers": […]} */
int ask_tiers(const struct ask *ask, json_t **ret);

/* Has a snapshot of a process written to an empty file of ours; waits until it is whole. `progress` is
 * called now and then meanwhile, with the size that it may reach. */
int ask_snapshot(const struct ask *ask, json_int_t pid, int fd,
		 void (*progress)(int fd, int64_t size), json_t **ret);

/* Has a group traced to an empty file of ours, until it ends, or `enough` says so; both are called now and
 * then meanwhile. {"records": …, "dropped": …, "bytes": …}. *ret_begun: something may be in the file. */
int ask_trace(const struct ask *ask, const char *group, int fd, void (*progress)(int fd, int64_t size),
	      bool (*enough)(void), bool *ret_begun, json_t **ret);

/* Changes a limit: {"group": …}. */
int ask_limit(const struct ask *ask, const char *group, json_int_t limit, json_t **ret);
