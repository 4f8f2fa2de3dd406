#include "registry.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "sys/pidfd.h"

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void registry_init(struct registry *registry, struct pager *pager)
{
	*registry = (struct registry){.pager = pager};
	TAILQ_INIT(&registry->groups);
}

void registry_done(struct registry *registry)
{
	assert(TAILQ_EMPTY(&registry->groups));
}

static bool name_is_good(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > GROUP_NAME_MAX)
		return false;
	for (size_t i = 0; i < length; i++)
		if (name[i] <= ' ' || name[i] > '~' || name[i] == '/')
			return false;
	return true;
}

static int make_key(struct registry *registry, uint64_t *ret)
{
	uint64_t key = 0;

	while (key == 0 || registry_group_by_key(registry, key))
		if (getrandom(&key, sizeof(key), 0) != sizeof(key))
			return -EIO;
	*ret = key;
	return 0;
}

int registry_create(struct registry *registry, const char *name, uid_t uid, const void *owner,
		    uint64_t limit, struct group **ret)
{
	struct group *group;
	int r;

	assert(owner);
	if (!name_is_good(name))
		return -EINVAL;
	if (registry_group(registry, name))
		return -EEXIST;
	if (registry->n_groups >= GROUPS_MAX)
		return -EUSERS;
	group = calloc(1, sizeof(*group));
	if (!group)
		return -ENOMEM;
	r = make_key(registry, &group->key);
	if (r >= 0)
		r = pager_group_new(registry->pager, name, limit, &group->pager);
	if (r < 0) {
		free(group);
		return r;
	}
	strcpy(group->name, name);
	group->uid = uid;
	group->owner = owner;
	group->created_ms = now_ms();
	LIST_INIT(&group->tasks);
	LIST_INIT(&group->members);
	TAILQ_INSERT_TAIL(&registry->groups, group, entry);
	registry->n_groups++;
	registry->had_group = true;
	*ret = group;
	return 0;
}

struct group *registry_group(struct registry *registry, const char *name)
{
	struct group *group;

	TAILQ_FOREACH (group, &registry->groups, entry)
		if (!strcmp(group->name, name))
			return group;
	return NULL;
}

struct group *registry_group_by_key(struct registry *registry, uint64_t key)
{
	struct group *group;

	TAILQ_FOREACH (group, &registry->groups, entry)
		if (group->key == key)
			return group;
	return NULL;
}

struct group *registry_group_of_pager(struct registry *registry, const struct pager_group *wanted)
{
	struct group *group;

	TAILQ_FOREACH (group, &registry->groups, entry)
		if (group->pager == wanted)
			return group;
	return NULL;
}

bool registry_uid_has_group(const struct registry *registry, uid_t uid)
{
	const struct group *group;

	TAILQ_FOREACH (group, &registry->groups, entry)
		if (group->uid == uid)
			return true;
	return false;
}

static void end_if_over(struct registry *registry, struct group *group)
{
	if (group->owner || group->holds || !LIST_EMPTY(&group->tasks) ||
	    !LIST_EMPTY(&group->members))
		return;
	TAILQ_REMOVE(&registry->groups, group, entry);
	registry->n_groups--;
	if (registry->group_ended)
		registry->group_ended(group, registry->context);
	pager_group_free(group->pager);
	free(group);
}

void registry_release(struct registry *registry, struct group *group)
{
	group->owner = NULL;
	end_if_over(registry, group);
}

void registry_doom(struct registry *registry, struct group *group)
{
	struct member *member;

	group->owner = NULL;
	group->doomed = true;
	LIST_FOREACH (member, &group->members, entry)
		pidfd_kill(member->pidfd, SIGKILL);
	if (registry->kill_family)
		registry->kill_family(group->key, group->uid);
	end_if_over(registry, group);
}

unsigned registry_owner_gone(struct registry *registry, const void *owner)
{
	unsigned n = 0;

	for (struct group *next, *group = TAILQ_FIRST(&registry->groups); group; group = next) {
		next = TAILQ_NEXT(group, entry);
		if (group->owner == owner) {
			registry_doom(registry, group);
			n++;
		}
	}
	return n;
}

void registry_hold(struct group *group)
{
	group->holds++;
}

void registry_unhold(struct registry *registry, struct group *group)
{
	assert(group->holds);
	group->holds--;
	end_if_over(registry, group);
}

struct task *registry_task(struct registry *registry, pager_task_id id)
{
	struct group *group;
	struct task *task;

	TAILQ_FOREACH (group, &registry->groups, entry)
		LIST_FOREACH (task, &group->tasks, entry)
			if (task->id == id)
				return task;
	return NULL;
}

struct task *registry_task_by_pid(struct registry *registry, pid_t pid)
{
	struct group *group;
	struct task *task;

	TAILQ_FOREACH (group, &registry->groups, entry)
		LIST_FOREACH (task, &group->tasks, entry)
			if (task->pid == pid && pid > 0)
				return task;
	return NULL;
}

struct task *registry_task_add(struct registry *registry, struct group *group, pager_task_id id,
			       pager_task_id parent, pid_t pid)
{
	struct task *task = registry_task(registry, id);

	if (!task) {
		task = calloc(1, sizeof(*task));
		if (!task)
			return NULL;
		task->group = group;
		task->id = id;
		LIST_INSERT_HEAD(&group->tasks, task, entry);
	}
	if (parent)
		task->parent = parent;
	if (pid)
		task->pid = pid;
	return task;
}

void registry_task_gone(struct registry *registry, struct task *task)
{
	struct group *group = task->group;
	struct member *member;

	LIST_FOREACH (member, &group->members, entry)
		if (member->task == task->id)
			member->task = 0;
	LIST_REMOVE(task, entry);
	free(task);
	end_if_over(registry, group);
}

void registry_member_add(struct registry *registry, struct group *group, struct member *member)
{
	(void)registry;
	member->group = group;
	LIST_INSERT_HEAD(&group->members, member, entry);
	if (group->doomed)
		pidfd_kill(member->pidfd, SIGKILL);
}

struct member *registry_member(struct registry *registry, pid_t pid)
{
	struct group *group;
	struct member *member;

	TAILQ_FOREACH (group, &registry->groups, entry)
		LIST_FOREACH (member, &group->members, entry)
			if (member->pid == pid)
				return member;
	return NULL;
}

void registry_member_gone(struct registry *registry, struct member *member)
{
	LIST_REMOVE(member, entry);
	end_if_over(registry, member->group);
}

uint64_t registry_group_age_ms(const struct group *group)
{
	return now_ms() - group->created_ms;
}
