/*
 * Mail that its sender waits for: how the main thread asks a worker. Internal to pager/.
 */
#pragma once

#include <semaphore.h>

#include "pager/worker.h"

struct trace;

struct call {
	struct mail mail;
	sem_t done;
	int result;
	struct group *group;
	const struct pager_attach *attach;
	struct pager_welcome *welcome;
	pager_task_id id;
	const struct pager_agents *agents;
	struct trace *trace;
	int (*ask)(struct task *task, void *context);
	void *context;
};

/* Waits for the worker, which ends `run` with sem_post(&call->done); returns call->result. */
int call_worker(struct worker *worker, struct call *call,
		void (*run)(struct worker *worker, struct mail *mail));
/* Where it is not known whose it is: asks one after the other while they say -ESRCH. */
int ask_all(struct pager *pager, struct call *call,
	    void (*run)(struct worker *worker, struct mail *mail));
/* By its id, or, if that is 0, by its token. NULL: none, or it has ended. */
struct task *find_task(struct worker *worker, pager_task_id id, uint64_t token);
