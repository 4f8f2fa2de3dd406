/* What the daemon calls; each call that concerns a worker's property is mail to it. */
#include "pager/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/file.h"
#include "pager/mail.h"
#include "pager/trace.h"
#include "policy/pressure.h"
#include "sys/pidfd.h"

/* ---- groups ---- */

uint64_t pager_minimum_limit(void)
{
	return PRESSURE_LIMIT_MIN;
}

static void add_group(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);

	TAILQ_INSERT_TAIL(&w->groups, call->group, link);
	group_publish(call->group);
	sem_post(&call->done);
}

static void remove_group(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);

	trace_end(call->group);
	TAILQ_REMOVE(&w->groups, call->group, link);
	sem_post(&call->done);
}

static void look_again(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);

	(void)w;
	call->group->next_sample = 0;
	trace_limit(call->group);
	group_publish(call->group);
	sem_post(&call->done);
}

int pager_group_new(struct pager *p, const char *name, uint64_t limit, struct pager_group **ret)
{
	struct pager_group *pg;
	struct call call = {0};

	if (limit < PRESSURE_LIMIT_MIN)
		return -ERANGE;
	pg = calloc(1, sizeof(*pg));
	if (!pg)
		return -ENOMEM;
	pg->pager = p;
	snprintf(pg->group.name, sizeof(pg->group.name), "%s", name);
	TAILQ_INIT(&pg->group.tasks);
	TAILQ_INIT(&pg->group.waiters);
	atomic_store(&pg->group.limit, limit);
	pg->group.worker = &p->workers[atomic_fetch_add(&p->next_id, 1) % p->n_workers];
	call.group = &pg->group;
	call_worker(pg->group.worker, &call, add_group);
	*ret = pg;
	return 0;
}

void pager_group_free(struct pager_group *pg)
{
	struct call call = {.group = pg ? &pg->group : NULL};

	if (!pg)
		return;
	call_worker(pg->group.worker, &call, remove_group);
	free(pg);
}

int pager_group_set_limit(struct pager_group *pg, uint64_t limit)
{
	struct call call = {.group = &pg->group};

	if (limit < PRESSURE_LIMIT_MIN)
		return -ERANGE;
	atomic_store(&pg->group.limit, limit);
	call_worker(pg->group.worker, &call, look_again);
	return 0;
}

void pager_group_stat(const struct pager_group *pg, struct pager_group_stat *ret)
{
	pthread_mutex_lock(&pg->pager->registry);
	*ret = pg->group.published;
	pthread_mutex_unlock(&pg->pager->registry);
	ret->limit = atomic_load(&pg->group.limit);
}

static void sample_now(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);

	w->now = now_ns();
	adopt_sample(call->group);
	group_publish(call->group);
	sem_post(&call->done);
}

void pager_group_refresh(struct pager_group *pg)
{
	struct call call = {.group = &pg->group};

	call_worker(pg->group.worker, &call, sample_now);
}

size_t pager_group_tasks(const struct pager_group *pg, struct pager_task_stat *ret, size_t max)
{
	const struct task *t;
	size_t n = 0;

	pthread_mutex_lock(&pg->pager->registry);
	TAILQ_FOREACH(t, &pg->group.tasks, link) {
		if (n < max)
			ret[n] = t->published;
		n++;
	}
	pthread_mutex_unlock(&pg->pager->registry);
	return n;
}

/* ---- tasks ---- */

static void take_descriptors(struct task *t, const struct pager_attach *a)
{
	t->pid = a->pid;
	t->maps = a->maps;
	t->pagemap = a->pagemap;
	t->statm = a->statm;
	t->smaps_rollup = a->smaps_rollup;
	t->mem = a->mem;
	t->pidfd = a->pidfd;
	t->state->header.pid = a->pid;
}

static void close_descriptors(const struct pager_attach *a)
{
	const int fds[] = {a->uffd, a->maps, a->pagemap, a->statm, a->smaps_rollup, a->mem, a->pidfd};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int begin_program(struct task *t, const struct pager_attach *a)
{
	struct worker *w = t->worker;
	int r;

	t->uffd = a->uffd;
	t->token = 0;
	t->sentinel = t->state->header.sentinel = a->sentinel;
	t->features = (struct uffd_features){
		.evict = pager_may(w, PAGER_FEATURE_MOVE) &&
			 pager_may(w, PAGER_FEATURE_WP_UNPOPULATED),
		.poison = pager_may(w, PAGER_FEATURE_POISON),
		.files = true,
	};
	r = uffd_handshake(t->uffd, &t->features);
	return r < 0 ? r : adopt_sentinel(t);
}

static void do_attach(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);
	const struct pager_attach *a = call->attach;
	struct task *t = a->token ? find_task(w, 0, a->token) : task_create(call->group);
	int r = 0;

	if (!t) {
		close_descriptors(a);
		call->result = a->token ? -ESRCH : -ENOMEM;
		sem_post(&call->done);
		return;
	}
	take_descriptors(t, a);
	if (a->token) {
		t->token = 0;
		images_check(t);
		if (a->uffd >= 0)
			close(a->uffd);
	} else {
		r = begin_program(t, a);
	}
	if (r == 0)
		r = task_make_exchange(t);
	if (r < 0) {
		/* A child that is served already must not lose its uffd while it lives. */
		if (a->token)
			task_broken(t, -r);
		else
			task_end(t);
	} else {
		task_watch(t);
		trace_task(t);
		*call->welcome = (struct pager_welcome){
			.exchange = t->exchange_fd,
			.doorbell = t->doorbell,
			.uffd = a->token ? t->uffd : -1,
			.exchange_size = t->exchange_size,
		};
		call->id = t->id;
		t->group->next_sample = 0;
	}
	call->result = r;
	sem_post(&call->done);
}

int pager_attach(struct pager *p, struct pager_group *pg, const struct pager_attach *what,
		 struct pager_welcome *ret_welcome, pager_task_id *ret_id)
{
	struct call call = {.attach = what, .welcome = ret_welcome,
			    .group = pg ? &pg->group : NULL};
	unsigned index = what->token & 0x7f;
	struct worker *w = what->token ? &p->workers[index % p->n_workers] : pg->group.worker;
	int r = call_worker(w, &call, do_attach);

	if (r == 0)
		*ret_id = call.id;
	return r;
}

static void do_agents(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);
	const struct pager_agents *a = call->agents;
	struct task *t = worker_task(w, call->id);

	call->result = t ? 0 : -ESRCH;
	for (unsigned i = 0; i < 2; i++) {
		if (t) {
			t->agent_pidfd[i] = a->pidfd[i];
			t->agent_ns_pid[i] = a->ns_pid[i];
		} else if (a->pidfd[i] >= 0) {
			close(a->pidfd[i]);
		}
	}
	if (t) {
		t->staging = a->staging;
		t->staging_rwx = a->staging_rwx;
		memcpy(t->exclude, a->exclude, sizeof(a->exclude));
		t->buffer_index = worker_take_buffer(w, t->frame_memory,
						     pages_to_bytes(t->frames.n));
		t->adopt.wanted = true;
		t->group->next_sample = 0;
		t->evictable = t->features.evict;
		trace_task(t);
		if (!t->evictable)
			pager_notify(t, PAGER_NOTICE_UNEVICTABLE, 0, EOPNOTSUPP);
	}
	sem_post(&call->done);
}

static int index_of(struct task *t, void *context)
{
	(void)context;
	return (int)t->worker->index;
}

int pager_find_worker(struct pager *p, pager_task_id id)
{
	return pager_ask(p, id, index_of, NULL);
}

int pager_agent_ready(struct pager *p, pager_task_id id, const struct pager_agents *agents)
{
	struct call call = {.id = id, .agents = agents};
	int index = pager_find_worker(p, id);

	return call_worker(&p->workers[index < 0 ? 0 : index], &call, do_agents);
}

static int detach(struct task *t, void *context)
{
	(void)context;
	task_end(t);
	return 0;
}

void pager_detach(struct pager *p, pager_task_id id)
{
	pager_ask(p, id, detach, NULL);
}

/* ---- life ---- */

static int try_uring(void)
{
	struct uring uring;
	int r = uring_init(&uring, 8, 1);

	if (r == 0)
		uring_done(&uring);
	return r;
}

int pager_new(const struct pager_config *config, struct pager **ret, const char **ret_error_on)
{
	struct pager *p = NULL;
	const char *on = config->state_dir;
	int r = -ENOMEM;

	if (posix_memalign((void **)&p, 4096, sizeof(*p)))
		return -ENOMEM;
	memset(p, 0, sizeof(*p));
	p->config = *config;
	p->state_dir = p->notice_fd = -1;
	if (config->pretend_nodes)
		numa_pretend(&p->numa, config->pretend_nodes);
	else
		numa_init(&p->numa, NUMA_DIR);
	p->next_id = 1;
	pthread_mutex_init(&p->registry, NULL);
	pthread_mutex_init(&p->images_lock, NULL);
	pthread_mutex_init(&p->notices_lock, NULL);
	p->state_dir = open(config->state_dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (p->state_dir < 0) {
		r = -errno;
		goto fail;
	}
	p->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	on = "io_uring";
	r = try_uring();
	if (r < 0)
		goto fail;
	p->huge_zero = mmap(NULL, LEAF_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->huge_zero == MAP_FAILED) {
		p->huge_zero = NULL;
		r = -errno;
		goto fail;
	}
	r = tiers_open(p, &on);
	if (r < 0)
		goto fail;
	on = NULL;
	if (posix_memalign((void **)&p->workers, 4096, config->workers * sizeof(*p->workers))) {
		r = -ENOMEM;
		goto fail;
	}
	memset(p->workers, 0, config->workers * sizeof(*p->workers));
	for (unsigned i = 0; i < config->workers; i++) {
		p->n_workers++;
		r = worker_start(&p->workers[i], p, i);
		if (r < 0)
			goto fail;
	}
	*ret = p;
	return 0;
fail:
	if (ret_error_on)
		*ret_error_on = on;
	pager_free(p);
	return r;
}

void pager_stop(struct pager *p)
{
	for (unsigned i = 0; i < p->n_workers; i++)
		worker_stop(&p->workers[i]);
	images_close(p);
	free(p->workers);
	p->workers = NULL;
	p->n_workers = 0;
	tiers_remove(p);
}

void pager_free(struct pager *p)
{
	if (!p)
		return;
	pager_stop(p);
	tiers_close(p);
	if (p->huge_zero)
		munmap((void *)(uintptr_t)p->huge_zero, LEAF_SIZE);
	fd_close(&p->state_dir);
	fd_close(&p->notice_fd);
	pthread_mutex_destroy(&p->registry);
	pthread_mutex_destroy(&p->images_lock);
	pthread_mutex_destroy(&p->notices_lock);
	free(p);
}
