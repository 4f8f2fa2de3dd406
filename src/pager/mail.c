#include "pager/mail.h"

#include <errno.h>

#include "base/util.h"

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

static void ask_task(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);
	struct task *t = worker_task(w, call->id);

	call->result = t ? call->ask(t, call->context) : -ESRCH;
	sem_post(&call->done);
}

int pager_ask(struct pager *p, pager_task_id id, int (*ask)(struct task *, void *), void *context)
{
	struct call call = {.id = id, .ask = ask, .context = context};

	return ask_all(p, &call, ask_task);
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
