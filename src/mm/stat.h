/*
 * What can be said of a task or a group at a moment; published by its worker, read by anyone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "mm/counters.h"

typedef uint64_t pager_task_id; /* never 0, never reused */

struct pager_group_stat {
	uint64_t limit;    /* bytes */
	uint64_t resident; /* bytes; what the limit holds: Pss_Anon + frames + staging */
	uint64_t peak;     /* bytes; highest resident seen */
	uint64_t evicted;  /* bytes resting in tiers (words SWAP and STANDBY) */
	uint64_t overhead; /* bytes of frames and staging, part of resident */
	uint64_t metadata; /* bytes of page words and tables in the daemon */
	unsigned tasks;
	bool armed;        /* the limit was neared once: memory is registered */
	struct counters counters;
};

struct pager_task_stat {
	pager_task_id id;
	pid_t pid;          /* 0 = a forked child that has not said hello */
	pager_task_id parent;
	uint64_t resident;  /* bytes of private anonymous memory */
	uint64_t evicted, overhead, metadata; /* bytes, as for the group */
	uint64_t registered; /* bytes of registered regions */
	unsigned regions;
	bool evictable;      /* an agent serves it */
	struct counters counters;
};
