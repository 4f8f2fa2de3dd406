#include "mm/task.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/util.h"

struct task *task_new(void)
{
	struct task *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->uffd = t->maps = t->pagemap = t->statm = t->smaps_rollup = t->mem = t->pidfd = -1;
	t->agent_pidfd[0] = t->agent_pidfd[1] = t->exchange_fd = t->doorbell = -1;
	t->buffer_index = -1;
	TAILQ_INIT(&t->retries);
	return t;
}

void task_free(struct task *t)
{
	int *const fds[] = {&t->uffd,   &t->maps, &t->pagemap,     &t->statm,
			    &t->smaps_rollup, &t->mem,  &t->pidfd,       &t->agent_pidfd[0],
			    &t->agent_pidfd[1], &t->exchange_fd, &t->doorbell};
	struct waiter *w;

	if (!t)
		return;
	while ((w = TAILQ_FIRST(&t->retries))) {
		TAILQ_REMOVE(&t->retries, w, link);
		free(w);
	}
	if (t->exchange)
		munmap(t->exchange, t->exchange_size);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fd_close(fds[i]);
	table_done(&t->table);
	regions_done(&t->regions);
	mappings_done(&t->mappings);
	free(t->limbo);
	queue_done(&t->queue);
	free(t->victims);
	free(t->streams);
	free(t->touches);
	free(t);
}

int limbo_add(struct task *t, uint64_t address, word_t word)
{
	if (t->n_limbo == t->limbo_capacity) {
		size_t capacity = t->limbo_capacity ? t->limbo_capacity * 2 : 64;
		struct limbo_entry *limbo = reallocarray(t->limbo, capacity, sizeof(*limbo));

		if (!limbo)
			return -ENOMEM;
		t->limbo = limbo;
		t->limbo_capacity = capacity;
	}
	t->limbo[t->n_limbo++] = (struct limbo_entry){address, word};
	return 0;
}

static void add(uint64_t *to, int64_t pages)
{
	*to = pages < 0 && *to < (uint64_t)-pages ? 0 : *to + (uint64_t)pages;
}

void task_charge(struct task *t, int64_t pages)
{
	add(&t->group->resident, pages);
	add(&t->adopt.anonymous, pages);
	t->came_in += pages > 0 ? (uint64_t)pages : 0;
}

void group_unshare(struct group *g, uint64_t pages)
{
	add(&g->shared, -(int64_t)pages);
	add(&g->resident, (int64_t)pages);
}
