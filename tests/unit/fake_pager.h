/*
 * A pager that keeps accounts and serves nobody: what the daemon's tests link in its place. One
 * pager at a time. It follows pager.h in what it answers and which descriptors it owns.
 */
#pragma once

#include "pager/pager.h"

#define FAKE_MINIMUM_LIMIT (1u << 20)

/* A forked child that has not said hello; its task id. */
pager_task_id fake_pager_fork(struct pager *pager, pager_task_id parent, uint64_t token);
void fake_pager_notice(struct pager *pager, const struct pager_notice *notice);

void fake_pager_snapshot_begins(struct pager *pager, pager_task_id id);
void fake_pager_snapshot_ends(struct pager *pager, pager_task_id id, int error);

/* The group's trace ends; nothing if it has none. */
void fake_pager_trace_ends(struct pager_group *group, int error);

struct fake_task {
	pager_task_id id, parent;
	struct pager_group *group;
	struct pager_attach attach;
	struct pager_agents agents;
	bool ready, detached;
	uint64_t token; /* of a child that has not said hello */
	uint64_t snapshot; /* that is being made; 0 = none */
	uint64_t snapshot_length; /* bytes; 0 = of all */
};
const struct fake_task *fake_pager_task(struct pager *pager, pager_task_id id);
unsigned fake_pager_n_groups(void); /* that exist now */
unsigned fake_pager_n_tasks(void);

/* What the next pager_new answers, once; error_on as from pager_new. */
void fake_pager_fail_new(int error, const char *error_on);
/* What the next pager_attach answers, once. */
void fake_pager_fail_attach(int error);
