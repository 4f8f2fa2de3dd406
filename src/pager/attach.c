/* Tasks come and go. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/snapshot.h"
#include "pager/trace.h"
#include "policy/pressure.h"
#include "sys/nowait.h"
#include "sys/pidfd.h"

#define FINISH_TRIES 2000
#define FINISH_US    50

struct task *task_create(struct group *g)
{
	struct worker *w = g->worker;
	struct task *t = task_new();

	if (!t)
		return NULL;
	t->group = g;
	t->worker = w;
	t->id = atomic_fetch_add(&w->pager->next_id, 1);
	snprintf(t->state_name, sizeof(t->state_name), "task-%llu", (unsigned long long)t->id);
	t->streams = calloc(1, sizeof(*t->streams));
	t->touches = calloc(1, sizeof(*t->touches));
	t->victims = calloc(1, sizeof(*t->victims));
	/* The low byte finds the worker again; a token is never 0. */
	if (getrandom(&t->token, sizeof(t->token), 0) < 0)
		t->token = t->id * 0x9e3779b97f4a7c15ull;
	t->token = (t->token & ~0xffull) | 0x80 | w->index;
	if (!t->streams || !t->touches || !t->victims ||
	    state_new(w->pager->state_dir, t->state_name, &t->state) < 0) {
		task_free(t);
		return NULL;
	}
	if (table_init(&t->table, t->state) < 0) {
		state_free(w->pager->state_dir, t->state_name, t->state);
		task_free(t);
		return NULL;
	}
	t->state->header.id = t->id;
	frames_init(&t->frames, t->state->frames, 0);
	pthread_mutex_lock(&w->pager->registry);
	t->published.id = t->id;
	TAILQ_INSERT_TAIL(&g->tasks, t, link);
	pthread_mutex_unlock(&w->pager->registry);
	return t;
}

int task_make_exchange(struct task *t)
{
	struct group *g = t->group;
	unsigned n_tasks = 0;
	struct task *other;
	uint32_t frames;

	TAILQ_FOREACH(other, &g->tasks, link)
		n_tasks++;
	frames = pressure_frames(bytes_to_pages(atomic_load(&g->limit)), n_tasks);
	t->exchange_size = exchange_frame_offset(frames);
	t->exchange_fd = memfd_create("upager-exchange", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (t->exchange_fd < 0 || ftruncate(t->exchange_fd, (off_t)t->exchange_size) ||
	    fcntl(t->exchange_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	t->exchange = mmap(NULL, t->exchange_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			   t->exchange_fd, 0);
	if (t->exchange == MAP_FAILED) {
		t->exchange = NULL;
		return -errno;
	}
	t->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->doorbell < 0)
		return -errno;
	t->exchange->magic = EXCHANGE_MAGIC;
	t->exchange->version = EXCHANGE_VERSION;
	t->exchange->n_frames = frames;
	t->frame_memory = (char *)t->exchange + EXCHANGE_FRAMES;
	frames_init(&t->frames, t->state->frames, frames);
	return 0;
}

/* ---- polling ---- */

static void arm_poll(struct task_poll *poll, int fd)
{
	poll->armed = uring_poll(&poll->task->worker->uring, fd, POLLIN, &poll->completion) == 0;
}

static void uffd_ready(struct completion *completion, int result)
{
	struct task_poll *poll = container_of(completion, struct task_poll, completion);
	struct task *t = poll->task;

	poll->armed = false;
	(void)result;
	t->messages = true;
	worker_queue(t);
}

static void bell_rings(struct completion *completion, int result)
{
	struct task_poll *poll = container_of(completion, struct task_poll, completion);
	struct task *t = poll->task;
	uint64_t n;

	poll->armed = false;
	if (result > 0 && nowait_read(t->doorbell, &n, sizeof(n)) < 0)
		n = 0;
	worker_queue(t);
}

void task_watch(struct task *t)
{
	if (t->ended)
		return;
	t->uffd_poll.completion.done = uffd_ready;
	t->bell_poll.completion.done = bell_rings;
	t->uffd_poll.task = t->bell_poll.task = t;
	if (!t->uffd_poll.armed && t->uffd >= 0 && !t->gate_wanted)
		arm_poll(&t->uffd_poll, t->uffd);
	if (!t->bell_poll.armed && t->doorbell >= 0)
		arm_poll(&t->bell_poll, t->doorbell);
}

/* ---- the end ---- */

/* A forked child may count the slots of pages that are just on their way. The twin still has the
 * memory of a client that has died: it finishes what it has begun, and refuses the rest. */
static void finish_commands(struct task *t)
{
	if (!t->evictable || t->posted == t->reaped)
		return;
	atomic_fetch_add(&t->exchange->epoch, 1);
	for (unsigned i = 0; i < FINISH_TRIES && t->posted != t->reaped; i++) {
		evict_complete(t);
		if (t->posted != t->reaped)
			usleep(FINISH_US);
	}
}

void task_end(struct task *t)
{
	if (t->ended)
		return;
	if (t->forked)
		finish_commands(t);
	snapshot_end(t);
	t->ended = true;
	t->evictable = false;
	if (t->exchange)
		atomic_store(&t->exchange->goodbye, 1);
	for (unsigned i = 0; i < 2; i++)
		if (t->agent_pidfd[i] >= 0)
			pidfd_kill(t->agent_pidfd[i], SIGKILL);
	if (t->uffd_poll.armed)
		uring_poll_cancel(&t->worker->uring, &t->uffd_poll.completion);
	if (t->bell_poll.armed)
		uring_poll_cancel(&t->worker->uring, &t->bell_poll.completion);
	worker_queue(t);
}

void task_broken(struct task *t, int error)
{
	if (t->ended)
		return;
	pager_notify(t, PAGER_NOTICE_BROKEN, 0, (uint64_t)error);
	if (t->pidfd >= 0)
		pidfd_kill(t->pidfd, SIGKILL);
	task_end(t);
}

static void return_slots(struct task *t)
{
	struct worker *w = t->worker;

	for (uint32_t i = 0; i < t->frames.n; i++) {
		struct frame *f = &t->frames.records[i];

		/* A frame that a command may have filled holds a count of its own. */
		if (f->state == FRAME_OUT) {
			/* Whoever else counts it must not wait for a write that does not come. */
			slot_mark(&tier_of(w, f->slot.tier)->slots, f->slot.index, SLOT_WRITING, false);
			pager_slot_put(w, word_of_slot(WORD_SWAP, 0, f->slot));
			if (f->has_old)
				pager_slot_put(w, word_of_slot(WORD_SWAP, 0, f->old));
		}
	}
	for (struct leaf *leaf = table_next(&t->table, 0, UINT64_MAX); leaf;
	     leaf = table_next(&t->table, leaf->base + LEAF_SIZE, UINT64_MAX))
		for (unsigned i = 0; i < LEAF_WORDS; i++) {
			word_t word = leaf->words[i];

			if (word_tag(word) == WORD_STANDBY)
				pager_slot_put(w, word_of_slot(WORD_SWAP, 0,
						t->frames.records[word_frame(word)].slot));
			else if (word_tag(word) == WORD_SWAP || word_tag(word) == WORD_FILLING ||
				 (word_tag(word) == WORD_PRESENT && word & WORD_SLOT))
				pager_slot_put(w, word);
		}
	limbo_clear(t);
}

static void counters_add(struct counters *sum, const struct counters *c)
{
#define X(name, text) sum->name += c->name;
	COUNTERS(X)
#undef X
}

bool task_reap(struct task *t)
{
	struct worker *w = t->worker;
	struct group *g = t->group;
	struct waiter *waiter, *next;

	if (!t->ended || t->under_way || t->uffd_poll.armed || t->bell_poll.armed)
		return false;
	for (waiter = TAILQ_FIRST(&g->waiters); waiter; waiter = next) {
		next = TAILQ_NEXT(waiter, link);
		if (waiter->task != t)
			continue;
		TAILQ_REMOVE(&g->waiters, waiter, link);
		count(&t->counters, gone);
		free(waiter);
	}
	TAILQ_FOREACH(waiter, &t->retries, link) {
		w->n_retries--;
		count(&t->counters, gone);
	}
	trace(t, TRACE_GONE);
	ahead_forget(t);
	return_slots(t);
	worker_give_buffer(w, t->buffer_index);
	state_free(w->pager->state_dir, t->state_name, t->state);
	pthread_mutex_lock(&w->pager->registry);
	TAILQ_REMOVE(&g->tasks, t, link);
	counters_add(&g->ended, &t->counters);
	pthread_mutex_unlock(&w->pager->registry);
	pager_notify(t, PAGER_NOTICE_TASK_GONE, 0, 0);
	if (t->forked)
		g->shared_at = 0; /* what it shared is its relatives' alone now */
	task_free(t);
	group_overhead(g);
	group_publish(g);
	return true;
}
