#include "notices.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/size.h"
#include "log.h"
#include "monitor.h"
#include "pager/pager.h"
#include "registry.h"
#include "snapshots.h"
#include "traces.h"

static const char *const kinds[] = {
    [PAGER_NOTICE_TASK_FORKED] = "task_forked", [PAGER_NOTICE_TASK_GONE] = "task_gone",
    [PAGER_NOTICE_GROUP_ARMED] = "group_armed", [PAGER_NOTICE_OVERRUN] = "overrun",
    [PAGER_NOTICE_SWAP_FULL] = "swap_full",	[PAGER_NOTICE_IO_ERROR] = "io_error",
    [PAGER_NOTICE_POISONED] = "poisoned",	[PAGER_NOTICE_AGENT_REPLACED] = "agent_replaced",
    [PAGER_NOTICE_UNEVICTABLE] = "unevictable", [PAGER_NOTICE_BROKEN] = "broken",
    [PAGER_NOTICE_IMAGE_LOST] = "image_lost",
    [PAGER_NOTICE_SNAPSHOT_BEGUN] = "snapshot_begun",
    [PAGER_NOTICE_SNAPSHOT] = "snapshot",
    [PAGER_NOTICE_TRACE] = "trace",
};

static const char *error_text(uint64_t error)
{
	return strerror(error < 4096 ? (int)error : 5);
}

static void log_notice(const struct pager_notice *notice, const char *group, pid_t pid)
{
	char size[24];

	switch (notice->kind) {
	case PAGER_NOTICE_TASK_FORKED:
	case PAGER_NOTICE_TASK_GONE:
		break;
	case PAGER_NOTICE_GROUP_ARMED:
		log_info("group %s: the limit is near, its memory is being registered", group);
		break;
	case PAGER_NOTICE_OVERRUN:
		log_limited(LOG_WARNING, "group %s: %s over the limit could not be evicted", group,
			    size_format(notice->value, size));
		break;
	case PAGER_NOTICE_SWAP_FULL:
		log_limited(LOG_WARNING, "group %s: swap is full, eviction stopped", group);
		break;
	case PAGER_NOTICE_IO_ERROR:
		log_limited(LOG_ERR, "group %s: pid %d: swap I/O for the page at 0x%" PRIx64 ": %s",
			    group, (int)pid, notice->address, error_text(notice->value));
		break;
	case PAGER_NOTICE_POISONED:
		log_limited(LOG_ERR,
			    "group %s: pid %d: the page at 0x%" PRIx64
			    " is lost, a touch gets SIGBUS",
			    group, (int)pid, notice->address);
		break;
	case PAGER_NOTICE_AGENT_REPLACED:
		log_limited(LOG_WARNING,
			    "group %s: pid %d: its agent was stuck, the spare took over", group,
			    (int)pid);
		break;
	case PAGER_NOTICE_UNEVICTABLE:
		log_limited(LOG_WARNING, "group %s: pid %d: its memory stays resident: %s", group,
			    (int)pid,
			    notice->value == EOPNOTSUPP ? "this kernel has no UFFDIO_MOVE (Linux 6.8)"
							: "it has lost its agents");
		break;
	case PAGER_NOTICE_IMAGE_LOST:
		log_message(LOG_ERR, "%" PRIu64 " pages of a file that nobody maps any more could "
			    "not be written to it, and are lost", notice->value);
		break;
	case PAGER_NOTICE_SNAPSHOT_BEGUN:
	case PAGER_NOTICE_SNAPSHOT: /* snapshots.c says */
	case PAGER_NOTICE_TRACE:    /* traces.c */
		break;
	case PAGER_NOTICE_BROKEN:
		log_limited(LOG_ERR, "group %s: pid %d: was killed, it can't be served: %s", group,
			    (int)pid, error_text(notice->value));
		break;
	}
}

static bool has_value(enum pager_notice_kind kind)
{
	return kind == PAGER_NOTICE_TASK_FORKED || kind == PAGER_NOTICE_OVERRUN ||
	       kind == PAGER_NOTICE_IO_ERROR || kind == PAGER_NOTICE_UNEVICTABLE ||
	       kind == PAGER_NOTICE_BROKEN || kind == PAGER_NOTICE_IMAGE_LOST ||
	       kind == PAGER_NOTICE_SNAPSHOT || kind == PAGER_NOTICE_TRACE;
}

/* A group that is being killed may still fork: the child has not said who it is. */
static void learn_child(struct notices *notices, struct group *group,
			const struct pager_notice *notice)
{
	registry_task_add(notices->registry, group, notice->task, notice->value, notice->pid);
	if (group->doomed)
		registry_doom(notices->registry, group);
}

static void handle(struct notices *notices, const struct pager_notice *notice)
{
	struct group *group = registry_group_of_pager(notices->registry, notice->group);
	struct task *task = notice->task ? registry_task(notices->registry, notice->task) : NULL;
	pid_t pid = notice->pid ? notice->pid : task ? task->pid : 0;

	if (!group && task)
		group = task->group;
	if (notice->kind == PAGER_NOTICE_TASK_FORKED && group)
		learn_child(notices, group, notice);
	log_notice(notice, group ? group->name : "?", pid);
	if ((unsigned)notice->kind < sizeof(kinds) / sizeof(*kinds))
		monitors_event(notices->monitors,
			       &(struct event){.kind = kinds[notice->kind],
					       .group = group,
					       .task = notice->task,
					       .pid = pid,
					       .address = notice->address,
					       .has_value = has_value(notice->kind),
					       .value = notice->value});
	if (notice->kind == PAGER_NOTICE_SNAPSHOT_BEGUN || notice->kind == PAGER_NOTICE_SNAPSHOT)
		snapshots_notice(notices->snapshots, notice);
	if (notice->kind == PAGER_NOTICE_TRACE)
		traces_ended(notices->traces, notice);
	if (notice->kind == PAGER_NOTICE_TASK_GONE && task)
		registry_task_gone(notices->registry, task);
}

void notices_drain(struct notices *notices)
{
	struct pager_notice notice;

	while (pager_next_notice(notices->pager, &notice) > 0)
		handle(notices, &notice);
}
