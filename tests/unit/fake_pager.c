#include "fake_pager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/pidfd.h"

struct pager_group {
	LIST_ENTRY(pager_group) entry;
	struct pager *pager;
	uint64_t limit, trace; /* trace: its id; 0 = none */
};

struct fake_entry {
	LIST_ENTRY(fake_entry) entry;
	struct fake_task task;
};

struct fake_notice {
	STAILQ_ENTRY(fake_notice) entry;
	struct pager_notice notice;
};

struct pager {
	LIST_HEAD(, pager_group) groups;
	LIST_HEAD(, fake_entry) tasks;
	STAILQ_HEAD(, fake_notice) notices;
	int eventfd, exchange, doorbell;
	pager_task_id last_id;
	struct pager_swap swaps[32];
	bool made[32];
	size_t n_swaps;
};

static unsigned n_groups, n_tasks;
static int next_new, next_attach;
static const char *next_error_on;

void fake_pager_fail_new(int error, const char *error_on)
{
	next_new = error;
	next_error_on = error_on;
}

void fake_pager_fail_attach(int error)
{
	next_attach = error;
}

unsigned fake_pager_n_groups(void)
{
	return n_groups;
}

unsigned fake_pager_n_tasks(void)
{
	return n_tasks;
}

int pager_new(const struct pager_config *config, struct pager **ret, const char **ret_error_on)
{
	struct pager *pager;
	int error = next_new;

	next_new = 0;
	if (error) {
		if (ret_error_on)
			*ret_error_on = next_error_on;
		return error;
	}
	pager = calloc(1, sizeof(*pager));
	LIST_INIT(&pager->groups);
	LIST_INIT(&pager->tasks);
	STAILQ_INIT(&pager->notices);
	pager->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pager->exchange = memfd_create("exchange", MFD_CLOEXEC);
	pager->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (size_t i = 0; i < config->n_swaps; i++) {
		int fd = open(config->swaps[i].path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		pager->swaps[i] = config->swaps[i];
		pager->made[i] = fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	pager->n_swaps = config->n_swaps;
	*ret = pager;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void attach_close(struct pager_attach *attach)
{
	close_fd(attach->uffd);
	close_fd(attach->maps);
	close_fd(attach->pagemap);
	close_fd(attach->statm);
	close_fd(attach->smaps_rollup);
	close_fd(attach->mem);
	close_fd(attach->pidfd);
	*attach = (struct pager_attach){0, -1, -1, -1, -1, -1, -1, -1, 0, 0};
}

static void entry_free(struct fake_entry *entry)
{
	attach_close(&entry->task.attach);
	for (unsigned i = 0; i < 2; i++)
		close_fd(entry->task.agents.pidfd[i]);
	LIST_REMOVE(entry, entry);
	free(entry);
	n_tasks--;
}

void pager_stop(struct pager *pager)
{
	(void)pager;
}

void pager_free(struct pager *pager)
{
	struct pager_notice notice;

	if (!pager)
		return;
	while (!LIST_EMPTY(&pager->tasks))
		entry_free(LIST_FIRST(&pager->tasks));
	while (pager_next_notice(pager, &notice) > 0)
		;
	for (size_t i = 0; i < pager->n_swaps; i++)
		if (pager->made[i])
			unlink(pager->swaps[i].path);
	close(pager->eventfd);
	close(pager->exchange);
	close(pager->doorbell);
	free(pager);
}

uint64_t pager_minimum_limit(void)
{
	return FAKE_MINIMUM_LIMIT;
}

int pager_group_new(struct pager *pager, const char *name, uint64_t limit, struct pager_group **ret)
{
	struct pager_group *group;

	(void)name;
	if (limit < FAKE_MINIMUM_LIMIT)
		return -ERANGE;
	group = calloc(1, sizeof(*group));
	group->pager = pager;
	group->limit = limit;
	LIST_INSERT_HEAD(&pager->groups, group, entry);
	n_groups++;
	*ret = group;
	return 0;
}

void pager_group_free(struct pager_group *group)
{
	if (!group)
		return;
	if (pager_group_tasks(group, NULL, 0))
		abort(); /* the contract: the group has no tasks */
	fake_pager_trace_ends(group, 0);
	LIST_REMOVE(group, entry);
	free(group);
	n_groups--;
}

int pager_group_set_limit(struct pager_group *group, uint64_t limit)
{
	if (limit < FAKE_MINIMUM_LIMIT)
		return -ERANGE;
	group->limit = limit;
	return 0;
}

void pager_group_stat(const struct pager_group *group, struct pager_group_stat *ret)
{
	*ret = (struct pager_group_stat){
	    .limit = group->limit,
	    .resident = 4096,
	    .peak = 8192,
	    .tasks = (unsigned)pager_group_tasks(group, NULL, 0),
	    .counters.zero = 7,
	};
}

static struct fake_entry *find(const struct pager *pager, pager_task_id id)
{
	struct fake_entry *entry;

	LIST_FOREACH (entry, &pager->tasks, entry)
		if (entry->task.id == id)
			return entry;
	return NULL;
}

const struct fake_task *fake_pager_task(struct pager *pager, pager_task_id id)
{
	struct fake_entry *entry = find(pager, id);

	return entry ? &entry->task : NULL;
}

static struct fake_entry *entry_new(struct pager *pager, struct pager_group *group)
{
	struct fake_entry *entry = calloc(1, sizeof(*entry));

	entry->task.id = ++pager->last_id;
	entry->task.group = group;
	entry->task.attach = (struct pager_attach){0, -1, -1, -1, -1, -1, -1, -1, 0, 0};
	entry->task.agents.pidfd[0] = entry->task.agents.pidfd[1] = -1;
	LIST_INSERT_HEAD(&pager->tasks, entry, entry);
	n_tasks++;
	return entry;
}

void fake_pager_notice(struct pager *pager, const struct pager_notice *notice)
{
	struct fake_notice *entry = calloc(1, sizeof(*entry));

	entry->notice = *notice;
	STAILQ_INSERT_TAIL(&pager->notices, entry, entry);
	eventfd_write(pager->eventfd, 1);
}

pager_task_id fake_pager_fork(struct pager *pager, pager_task_id parent, uint64_t token)
{
	struct pager_group *group = find(pager, parent)->task.group;
	struct fake_entry *entry = entry_new(pager, group);

	entry->task.parent = parent;
	entry->task.token = token;
	fake_pager_notice(pager, &(struct pager_notice){.kind = PAGER_NOTICE_TASK_FORKED,
							.group = group,
							.task = entry->task.id,
							.value = parent});
	return entry->task.id;
}

static struct fake_entry *find_token(struct pager *pager, uint64_t token)
{
	struct fake_entry *entry;

	LIST_FOREACH (entry, &pager->tasks, entry)
		if (entry->task.token == token)
			return entry;
	return NULL;
}

int pager_attach(struct pager *pager, struct pager_group *group, const struct pager_attach *what,
		 struct pager_welcome *ret_welcome, pager_task_id *ret_id)
{
	struct pager_attach taken = *what;
	struct fake_entry *entry;
	int error = next_attach;

	next_attach = 0;
	entry = error	      ? NULL
		: what->token ? find_token(pager, what->token)
			      : entry_new(pager, group);
	if (!entry) {
		attach_close(&taken);
		return error ? error : -ESRCH;
	}
	entry->task.attach = taken;
	entry->task.token = 0;
	*ret_welcome = (struct pager_welcome){.exchange = pager->exchange,
					      .doorbell = pager->doorbell,
					      .uffd = -1,
					      .exchange_size = 1 << 20};
	*ret_id = entry->task.id;
	return 0;
}

int pager_agent_ready(struct pager *pager, pager_task_id id, const struct pager_agents *agents)
{
	struct fake_entry *entry = find(pager, id);

	if (!entry) {
		close_fd(agents->pidfd[0]);
		close_fd(agents->pidfd[1]);
		return -ESRCH;
	}
	entry->task.agents = *agents;
	entry->task.ready = true;
	return 0;
}

int pager_snapshot(struct pager *pager, pager_task_id id, const struct pager_range *range, int fd,
		   uint64_t *ret_id)
{
	struct fake_entry *entry = find(pager, id);

	close(fd);
	if (range && range->address % 4096)
		return -EINVAL;
	if (!entry)
		return -ESRCH;
	if (entry->task.snapshot)
		return -EBUSY;
	*ret_id = entry->task.snapshot = ++pager->last_id;
	entry->task.snapshot_length = range ? range->length : 0;
	return 0;
}

int pager_snapshot_stat(struct pager *pager, pager_task_id id, struct pager_snapshot_stat *ret)
{
	const struct fake_entry *entry = find(pager, id);

	if (!entry || !entry->task.snapshot)
		return -ESRCH;
	*ret = (struct pager_snapshot_stat){.resident = 8192, .evicted = 4096, .copied = 4096};
	return 0;
}

void pager_snapshot_cancel(struct pager *pager, pager_task_id id, uint64_t snapshot)
{
	const struct fake_entry *entry = find(pager, id);

	if (entry && entry->task.snapshot == snapshot)
		fake_pager_snapshot_ends(pager, id, ECANCELED);
}

static void snapshot_notice(struct pager *pager, const struct fake_entry *entry,
			    enum pager_notice_kind kind, int error)
{
	fake_pager_notice(pager, &(struct pager_notice){
					 .kind = kind,
					 .group = entry->task.group,
					 .task = entry->task.id,
					 .pid = entry->task.attach.pid,
					 .value = (uint64_t)error,
					 .snapshot = {.id = entry->task.snapshot,
						      .resident = 8192,
						      .evicted = 4096,
						      .lost = 4096,
						      .stall_ns = 5000},
				 });
}

void fake_pager_snapshot_begins(struct pager *pager, pager_task_id id)
{
	snapshot_notice(pager, find(pager, id), PAGER_NOTICE_SNAPSHOT_BEGUN, 0);
}

void fake_pager_snapshot_ends(struct pager *pager, pager_task_id id, int error)
{
	struct fake_entry *entry = find(pager, id);

	snapshot_notice(pager, entry, PAGER_NOTICE_SNAPSHOT, error);
	entry->task.snapshot = 0;
}

int pager_trace(struct pager_group *group, int fd, uint64_t *ret_id)
{
	close(fd);
	if (group->trace)
		return -EBUSY;
	*ret_id = group->trace = ++group->pager->last_id;
	return 0;
}

void pager_trace_end(struct pager *pager, uint64_t id)
{
	struct pager_group *group;

	LIST_FOREACH (group, &pager->groups, entry)
		if (group->trace == id)
			fake_pager_trace_ends(group, 0);
}

void fake_pager_trace_ends(struct pager_group *group, int error)
{
	if (!group->trace)
		return;
	fake_pager_notice(group->pager, &(struct pager_notice){
						.kind = PAGER_NOTICE_TRACE,
						.value = (uint64_t)error,
						.trace = {.id = group->trace,
							  .records = 7,
							  .dropped = 2,
							  .bytes = 99},
					});
	group->trace = 0;
}

void pager_detach(struct pager *pager, pager_task_id id)
{
	struct fake_entry *entry = find(pager, id);

	if (!entry)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (entry->task.agents.pidfd[i] >= 0)
			pidfd_kill(entry->task.agents.pidfd[i], SIGKILL);
	fake_pager_notice(pager, &(struct pager_notice){.kind = PAGER_NOTICE_TASK_GONE,
							.group = entry->task.group,
							.task = id,
							.pid = entry->task.attach.pid});
	entry_free(entry);
}

size_t pager_group_tasks(const struct pager_group *group, struct pager_task_stat *ret, size_t max)
{
	struct fake_entry *entry;
	size_t n = 0;

	LIST_FOREACH (entry, &group->pager->tasks, entry) {
		if (entry->task.group != group)
			continue;
		if (n < max)
			ret[n] = (struct pager_task_stat){.id = entry->task.id,
							  .pid = entry->task.attach.pid,
							  .parent = entry->task.parent,
							  .evictable = entry->task.ready};
		n++;
	}
	return n;
}

size_t pager_tiers(const struct pager *pager, struct pager_tier_stat *ret, size_t max)
{
	if (max > 0)
		ret[0] = (struct pager_tier_stat){.name = "same", .priority = 32767};
	for (size_t i = 0; i < pager->n_swaps && i + 1 < max; i++) {
		ret[i + 1] = (struct pager_tier_stat){.priority = pager->swaps[i].priority,
						      .size = pager->swaps[i].size};
		snprintf(ret[i + 1].name, sizeof(ret->name), "swap%u", (unsigned)i % 100);
		snprintf(ret[i + 1].path, sizeof(ret->path), "%s", pager->swaps[i].path);
	}
	return pager->n_swaps + 1;
}

int pager_notice_fd(const struct pager *pager)
{
	return pager->eventfd;
}

int pager_next_notice(struct pager *pager, struct pager_notice *ret)
{
	struct fake_notice *entry = STAILQ_FIRST(&pager->notices);
	eventfd_t ignored;

	if (!entry) {
		eventfd_read(pager->eventfd, &ignored);
		return 0;
	}
	STAILQ_REMOVE_HEAD(&pager->notices, entry);
	*ret = entry->notice;
	free(entry);
	return 1;
}

void pager_group_refresh(struct pager_group *group)
{
	(void)group;
}
