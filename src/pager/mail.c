#include "pager/mail.h"

#include <errno.h>

int call_worker(struct worker *w, struct call *call,
		void (*run)(struct worker *worker, struct mail *mail))
{
	call->mail.run = run;
	sem_init(&call->done, 0, 0);
	worker_post(w, &call->mail);
	while (sem_wait(&call->done) && errno == EINTR)
		;
	sem_destroy(&call->done);
	return call->result;
}

int ask_all(struct pager *p, struct call *call,
	    void (*run)(struct worker *worker, struct mail *mail))
{
	int r = -ESRCH;

	for (unsigned i = 0; i < p->n_workers && r == -ESRCH; i++)
		r = call_worker(&p->workers[i], call, run);
	return r;
}

struct task *find_task(struct worker *w, pager_task_id id, uint64_t token)
{
	struct group *g;
	struct task *t;

	TAILQ_FOREACH(g, &w->groups, link)
		TAILQ_FOREACH(t, &g->tasks, link)
			if (!t->ended && (id ? t->id == id : t->token == token))
				return t;
	return NULL;
}

struct task *worker_task(struct worker *w, pager_task_id id)
{
	return id ? find_task(w, id, 0) : NULL;
}
