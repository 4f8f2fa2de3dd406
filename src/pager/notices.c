/* What workers tell the daemon: a queue, and an eventfd that says when there is something in it. */
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/worker.h"

/* The loss of a repeated complaint is bearable; somebody waits for these. */
static bool must_come(enum pager_notice_kind kind)
{
	return kind == PAGER_NOTICE_TASK_GONE || kind == PAGER_NOTICE_TASK_FORKED ||
	       kind == PAGER_NOTICE_SNAPSHOT_BEGUN || kind == PAGER_NOTICE_SNAPSHOT ||
	       kind == PAGER_NOTICE_TRACE;
}

static void notify(struct pager *p, const struct pager_notice *notice)
{
	uint64_t one = 1;

	pthread_mutex_lock(&p->notices_lock);
	if (p->n_notices == ARRAY_SIZE(p->notices)) {
		if (!must_come(notice->kind)) {
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

static struct pager_notice notice_of(const struct task *t, enum pager_notice_kind kind)
{
	return (struct pager_notice){
		.kind = kind,
		.group = container_of(t->group, struct pager_group, group),
		.task = t->id,
		.pid = t->pid,
	};
}

void pager_notify(struct task *t, enum pager_notice_kind kind, uint64_t address, uint64_t value)
{
	struct pager_notice notice = notice_of(t, kind);

	notice.address = address;
	notice.value = value;
	notify(t->worker->pager, &notice);
}

void pager_notify_snapshot(struct task *t, enum pager_notice_kind kind,
			   const struct pager_snapshot_stat *stat, int error)
{
	struct pager_notice notice = notice_of(t, kind);

	notice.value = (uint64_t)-error;
	notice.snapshot = *stat;
	notify(t->worker->pager, &notice);
}

void pager_notify_trace(struct pager *p, const struct pager_trace_stat *stat, int error)
{
	notify(p, &(struct pager_notice){
			  .kind = PAGER_NOTICE_TRACE, .value = (uint64_t)-error, .trace = *stat});
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
