/*
 * The worker's thread: one wait, then what has come.
 *
 * A pass: completions (they only note what is to be done) → tasks with messages or finished
 * commands → groups whose look is due → eviction → who waits for room.
 */
#include "pager/file.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/snapshot.h"
#include "pager/trace.h"

#define RETRY_EVERY (50 * 1000ull) /* ns: how soon a fault that met an event is tried again */
#define WORKER_NICE (-10)
#define IDLE_MAX    (1000 * MS)

/* ---- mail ---- */

void worker_post(struct worker *w, struct mail *mail)
{
	uint64_t one = 1;

	pthread_mutex_lock(&w->mail_lock);
	STAILQ_INSERT_TAIL(&w->mail, mail, link);
	pthread_mutex_unlock(&w->mail_lock);
	if (write(w->mail_fd, &one, sizeof(one)) < 0)
		abort(); /* an eventfd takes it */
}

static void mail_comes(struct completion *completion, int result)
{
	struct worker *w = container_of(completion, struct worker, mail_poll);
	struct mail *mail;
	uint64_t n;

	(void)result;
	if (read(w->mail_fd, &n, sizeof(n)) < 0)
		n = 0;
	for (;;) {
		pthread_mutex_lock(&w->mail_lock);
		mail = STAILQ_FIRST(&w->mail);
		if (mail)
			STAILQ_REMOVE_HEAD(&w->mail, link);
		pthread_mutex_unlock(&w->mail_lock);
		if (!mail)
			break;
		mail->run(w, mail);
	}
	w->mail_armed = uring_poll(&w->uring, w->mail_fd, POLLIN, &w->mail_poll) == 0;
}

/* ---- buffers ---- */

int worker_take_buffer(struct worker *w, void *base, uint64_t length)
{
	for (unsigned i = 0; i < BUFFERS; i++) {
		if (w->buffers_used[i / 64] & 1ull << i % 64)
			continue;
		if (uring_set_buffer(&w->uring, i, base, length) < 0)
			return -1;
		w->buffers_used[i / 64] |= 1ull << i % 64;
		return (int)i;
	}
	return -1;
}

void worker_give_buffer(struct worker *w, int index)
{
	if (index < 0)
		return;
	uring_set_buffer(&w->uring, (unsigned)index, NULL, 0);
	w->buffers_used[index / 64] &= ~(1ull << index % 64);
}

static bool bounce_is_free(const struct worker *w, uint32_t i)
{
	return !(w->bounce_used[i / 64] & 1ull << i % 64);
}

uint32_t bounce_take(struct worker *w, uint32_t want, char **ret)
{
	uint32_t best = 0, best_at = 0, n = 0;

	for (uint32_t i = 0; i < BOUNCE_PAGES && best < want; i++) {
		n = bounce_is_free(w, i) ? n + 1 : 0;
		if (n > best) {
			best = n;
			best_at = i + 1 - n;
		}
	}
	for (uint32_t i = best_at; i < best_at + best; i++)
		w->bounce_used[i / 64] |= 1ull << i % 64;
	*ret = w->bounce + pages_to_bytes(best_at);
	return best;
}

void bounce_give(struct worker *w, char *at, uint32_t n)
{
	uint32_t first = (uint32_t)bytes_to_pages((uint64_t)(at - w->bounce));

	for (uint32_t i = first; i < first + n; i++)
		w->bounce_used[i / 64] &= ~(1ull << i % 64);
}

/* ---- the pass ---- */

void worker_queue(struct task *t)
{
	if (t->queued)
		return;
	t->queued = true;
	TAILQ_INSERT_TAIL(&t->worker->work, t, work_link);
}

static void serve_task(struct task *t)
{
	if (t->ended) {
		snapshot_end(t);
		task_reap(t);
		return;
	}
	if (t->messages || t->gate_wanted)
		task_messages(t);
	evict_complete(t);
	if (t->n_limbo || t->unmarked || t->mappings.n_old)
		limbo_purge(t);
	if (t->adopt.wanted && t->group->armed)
		adopt_scan(t);
	snapshot_serve(t);
	task_retry(t);
	task_watch(t);
}

static void serve_tasks(struct worker *w)
{
	struct work_list list = TAILQ_HEAD_INITIALIZER(list);
	struct task *t;

	TAILQ_CONCAT(&list, &w->work, work_link);
	if (!TAILQ_EMPTY(&list))
		poll_active(&w->poll, w->now);
	while ((t = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, t, work_link);
		t->queued = false;
		serve_task(t);
	}
}

static void serve_groups(struct worker *w)
{
	struct group *g;
	struct task *t;

	TAILQ_FOREACH(g, &w->groups, link) {
		if (w->now >= g->next_sample)
			adopt_sample(g);
		evict_group(g);
		if (!TAILQ_EMPTY(&g->waiters))
			group_wake(g);
		if (!w->n_retries && !w->n_snapshots)
			continue;
		TAILQ_FOREACH(t, &g->tasks, link)
			if (!TAILQ_EMPTY(&t->retries) || t->snapshot)
				worker_queue(t);
	}
}

static uint64_t time_to_wait(struct worker *w)
{
	uint64_t until = w->now + IDLE_MAX, now = now_ns();
	struct group *g;

	if (!TAILQ_EMPTY(&w->work) && !w->n_retries && !w->n_snapshots)
		return 0;
	if (w->n_retries || w->n_snapshots)
		until = MIN(until, w->now + RETRY_EVERY);
	until = MIN(until, w->images_due);
	until = MIN(until, ahead_due(w));
	until = MIN(until, traces_due(w));
	TAILQ_FOREACH(g, &w->groups, link)
		if (!TAILQ_EMPTY(&g->tasks))
			until = MIN(until, g->next_sample);
	return until > now ? until - now : 0;
}

static void *worker_main(void *argument)
{
	struct worker *w = argument;
	sigset_t all;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	/* Programs wait for us, and outgrow their limits while we wait for a processor. Where it is
	 * not allowed, it is only slower. */
	setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE);
	r = uring_init(&w->uring, 512, BUFFERS);
	if (r < 0)
		abort(); /* pager_new has tried one */
	w->bounce_index = worker_take_buffer(w, w->bounce, pages_to_bytes(BOUNCE_PAGES));
	while (!w->stop) {
		uint64_t wait;

		w->now = now_ns();
		if (!w->mail_armed) /* the ring was full */
			w->mail_armed = uring_poll(&w->uring, w->mail_fd, POLLIN, &w->mail_poll) == 0;
		wait = time_to_wait(w);
		if (wait && !w->n_retries && poll_pays(&w->poll, now_ns(), w->n_awaited))
			wait = 0;
		if (uring_run(&w->uring, wait) < 0)
			abort();
		w->now = now_ns();
		serve_tasks(w);
		uring_run_posted(&w->uring); /* pages from memory: they are waited for */
		serve_groups(w);
		ahead_serve(w);
		images_serve(w);
		traces_serve(w);
	}
	traces_close(w);
	uring_done(&w->uring);
	return NULL;
}

int worker_start(struct worker *w, struct pager *pager, unsigned index)
{
	w->pager = pager;
	w->index = index;
	w->bounce_index = -1;
	w->uring.owner = index;
	TAILQ_INIT(&w->groups);
	TAILQ_INIT(&w->work);
	w->poll.moment = pager->config.busy_poll_us * 1000ull;
	TAILQ_INIT(&w->ahead);
	LIST_INIT(&w->traces);
	images_init(w);
	STAILQ_INIT(&w->mail);
	pthread_mutex_init(&w->mail_lock, NULL);
	w->mail_poll.done = mail_comes;
	w->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->bounce = mmap(NULL, pages_to_bytes(BOUNCE_PAGES), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->mail_fd < 0 || w->bounce == MAP_FAILED) {
		w->bounce = w->bounce == MAP_FAILED ? NULL : w->bounce;
		return -errno;
	}
	if (pthread_create(&w->thread, NULL, worker_main, w))
		return -EAGAIN;
	w->started = true;
	return 0;
}

static void stop_run(struct worker *w, struct mail *mail)
{
	(void)mail;
	w->stop = true;
}

void worker_stop(struct worker *w)
{
	static struct mail stop = {.run = stop_run};
	struct mail mine = stop;

	if (w->started) {
		worker_post(w, &mine);
		pthread_join(w->thread, NULL);
	}
	if (w->bounce)
		munmap(w->bounce, pages_to_bytes(BOUNCE_PAGES));
	if (w->pager) {
		pthread_mutex_destroy(&w->mail_lock);
		fd_close(&w->mail_fd);
	}
}
