/*
 * Groups, their tasks and their members, as the daemon knows them. No I/O but signals.
 *
 * A task is what the pager serves. A member is a process the daemon watches by its pidfd: usually
 * the two go together, but a program that executed a static binary is a member without a task, and
 * a forked child that never said hello a task without a member.
 *
 * A group ends when it has no owner, no task and no member: the pager's group is freed then. Its
 * owner is the control connection that made it, until Release. If the owner goes without that, the
 * group is doomed: its members are killed, whoever else was started with its key, and whoever joins
 * later.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "pager/pager.h"

#define GROUP_NAME_MAX 64
#define GROUPS_MAX     4096

struct group;

struct task {
	LIST_ENTRY(task) entry;
	struct group *group;
	pager_task_id id;
	pager_task_id parent; /* 0 = a program's first task */
	pid_t pid;	      /* 0 = not identified */
};

struct member {
	LIST_ENTRY(member) entry;
	struct group *group;
	pid_t pid;
	int pidfd;	    /* the watcher's */
	pager_task_id task; /* 0 = none now */
	void *watcher;
};

struct group {
	TAILQ_ENTRY(group) entry;
	struct pager_group *pager;
	char name[GROUP_NAME_MAX + 1];
	uid_t uid;
	uint64_t key; /* never 0 */
	const void *owner;
	bool doomed;
	unsigned holds;
	uint64_t created_ms; /* CLOCK_MONOTONIC */
	LIST_HEAD(task_list, task) tasks;
	LIST_HEAD(member_list, member) members;
};

struct registry {
	struct pager *pager;
	TAILQ_HEAD(group_list, group) groups;
	unsigned n_groups;
	bool had_group; /* since the start */
	/* Called when a group has ended, just before it is freed; may be NULL. */
	void (*group_ended)(struct group *group, void *context);
	void *context;
	/* Kills the processes that have the key, but are no members; NULL = nobody. */
	unsigned (*kill_family)(uint64_t key, uid_t uid);
};

void registry_init(struct registry *registry, struct pager *pager);
/* => no group is left. */
void registry_done(struct registry *registry);

/* -EINVAL: not a name; -EEXIST; -ERANGE: the limit; -EUSERS: there are GROUPS_MAX. */
int registry_create(struct registry *registry, const char *name, uid_t uid, const void *owner,
		    uint64_t limit, struct group **ret);
struct group *registry_group(struct registry *registry, const char *name);
struct group *registry_group_by_key(struct registry *registry, uint64_t key);
struct group *registry_group_of_pager(struct registry *registry, const struct pager_group *group);
bool registry_uid_has_group(const struct registry *registry, uid_t uid);

/* The owner lets go. */
void registry_release(struct registry *registry, struct group *group);
/* A connection closed: what it still owns is doomed. Returns how many groups that were. */
unsigned registry_owner_gone(struct registry *registry, const void *owner);
void registry_doom(struct registry *registry, struct group *group);
/* While held, a group does not end. */
void registry_hold(struct group *group);
void registry_unhold(struct registry *registry, struct group *group);

/* NULL = out of memory. A task that is there already is updated. */
struct task *registry_task_add(struct registry *registry, struct group *group, pager_task_id id,
			       pager_task_id parent, pid_t pid);
struct task *registry_task(struct registry *registry, pager_task_id id);
struct task *registry_task_by_pid(struct registry *registry, pid_t pid);
/* May end the group. */
void registry_task_gone(struct registry *registry, struct task *task);

/* => member->pid, pidfd and watcher are set; the member is the caller's. */
void registry_member_add(struct registry *registry, struct group *group, struct member *member);
struct member *registry_member(struct registry *registry, pid_t pid);
/* Unlinks it; may end the group. */
void registry_member_gone(struct registry *registry, struct member *member);

uint64_t registry_group_age_ms(const struct group *group);
