/*
 * The rows of the fault tree (rows.py), each provoked by a program that touches chosen pages, and
 * judged by what the daemon's counters say before and after.
 *
 * `rows NAME` runs under `upager run --memory 16M`, with everything registered at once and a
 * readahead of one page unless test_rows says otherwise. The program's own pages are locked, so that
 * what the counters show is the work of the test alone. It reads them over the control socket.
 */
#pragma once

#include "inject.h"
#include "interleave.h"

#include <signal.h>

/* ---- figures of the group and of its swap file ---- */

struct figures {
	/* outcomes */
	long zero, minor, major, parked, wp_reuse, race, spurious, poisoned, gone, handshake, fork,
	    remap, remove, unmap;
	/* work */
	long messages, waited, evicted, clean, same, pages_out, pages_in, readahead, standby_hits,
	    busy, stale, unmarked, put_back, retries, overruns, activate, migrated, reclaims;
	long resident; /* bytes */
	long used;     /* pages of the swap file */
};

/* When nothing moves any more. */
struct figures figures(void);
/* What has come since `before`, when nothing moves any more. */
struct figures since(const struct figures *before);
/* Fails unless it is so; says what it was. */
#define same_as(value, expected) same_as_(__LINE__, #value, value, expected, expected)
#define between(value, low, high) same_as_(__LINE__, #value, value, low, high)
#define at_least(value, low) same_as_(__LINE__, #value, value, low, __LONG_MAX__)
void same_as_(int line, const char *what, long value, long low, long high);
/* Until a figure, read with figures(), is at least so much. */
#define wait_for(before, name, least)                                                              \
	for (unsigned tries_ = 0; since(before).name < (least); tries_++)                          \
		if (tries_ > 100)                                                                  \
			wrong("%s:%d: " #name " does not come to " #least, __FILE__, __LINE__);

/* ---- memory ---- */

/* Memory of its own mapping, which the daemon has registered. */
char *region(size_t pages);
/* Touches other memory, which costs no slots, until all the pages are out. */
void expel(char *at, size_t pages);
/* The same, and until they rest in the swap file alone: no frame holds them any more. */
void expel_to_tier(char *at, size_t pages);
/* The same, but only just: they are still in frames. Rewrites them with `salt` before each try. */
void expel_to_standby(char *at, size_t pages, uint64_t salt);
/* Gives up the other memory. */
void ballast_discard(void);
bool is_out(const char *at, size_t pages); /* all of them */
bool is_in(const char *at, size_t pages);  /* all of them are resident */
/* The signal that a read or a write of the byte raises; 0: none. */
int signal_of_read(const char *at);
int signal_of_write(char *at);
static inline uint64_t peek(const char *at)
{
	return *(const volatile uint64_t *)at;
}
static inline void poke(char *at, uint64_t value)
{
	*(volatile uint64_t *)at = value;
}

/* Threads that all touch `at` while the daemon is held, so that each has sent its message. Returns
 * what has come of it. */
#define TOUCHERS 6
struct figures touch_together(char *at, bool write);
/* Threads that begin to touch it, one after the other, while the daemon runs. */
void touch_begin(char *at, unsigned threads, bool write);
void touch_end(void);

/* ---- the daemon, from outside ---- */

extern struct inject *inject;
/* The swap file, opened by name. */
int open_swap(int flags);
/* A memory cgroup of version 1 of its own, or skips. Removed with it. */
struct cgroup {
	char path[128];
	int limit, root; /* opened before: in a full one nothing can be */
};
void cgroup_enter(struct cgroup *group, pid_t pid);
bool cgroup_set(const struct cgroup *group, const char *name, long value);
void cgroup_leave(const struct cgroup *group, pid_t pid);
void set_limit(long bytes); /* of the group */

extern const struct interleaving entry_rows[], anonymous_rows[], swap_rows[], slot_rows[],
    present_rows[], other_rows[];
