/* What workers tell the daemon: a queue, and an eventfd that says when there is something in it. */
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/worker.h"

static void notify(struct pager *p, const struct pager_notice *notice)
{
	enum pager_notice_kind kind = notice->kind;
	uint64_t one = 1;

	pthread_mutex_lock(&p->notices_lock);
	if (p->n_notices == ARRAY_SIZE(p->notices)) {
		/* The loss of a repeated complaint is bearable, that of a task's end is not. */
		if (kind != PAGER_NOTICE_TASK_GONE && kind != PAGER_NOTICE_TASK_FORKED) {
			pthread_mutex_unlock(&p->notices_lock);
			return;
		}
		p->notices_first = (p->notices_first + 1) % ARRAY_SIZE(p->notices);
		p->n_notices--;
	}
	p->notices[(p->notices_first + p->n_notices++) % ARRAY_SIZE(p->notices)] = *notice;
	pthread_mutex_unlock(&p->notices_lock);
	if (write(p->notice_fd, &one, sizeof(one)) < 0)
		abort();
}

void pager_notify(struct task *t, enum pager_notice_kind kind, uint64_t address, uint64_t value)
{
	notify(t->worker->pager,
	       &(struct pager_notice){
		       .kind = kind,
		       .group = container_of(t->group, struct pager_group, group),
		       .task = t->id,
		       .pid = t->pid,
		       .address = address,
		       .value = value,
	       });
}

void pager_notify_all(struct pager *p, enum pager_notice_kind kind, uint64_t value)
{
	notify(p, &(struct pager_notice){.kind = kind, .value = value});
}

int pager_notice_fd(const struct pager *p)
{
	return p->notice_fd;
}

int pager_next_notice(struct pager *p, struct pager_notice *ret)
{
	uint64_t n;
	int got = 0;

	pthread_mutex_lock(&p->notices_lock);
	if (p->n_notices) {
		*ret = p->notices[p->notices_first];
		p->notices_first = (p->notices_first + 1) % ARRAY_SIZE(p->notices);
		p->n_notices--;
		got = 1;
	} else if (read(p->notice_fd, &n, sizeof(n)) < 0) {
		n = 0; /* it was empty */
	}
	pthread_mutex_unlock(&p->notices_lock);
	return got;
}
