/* Snapshots that are under way, and who is told of them. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "pager/pager.h"

struct varlink_call;

/* Who has asked for a snapshot; part of his own. */
struct snapshot_caller {
	LIST_ENTRY(snapshot_caller) entry;
	pager_task_id task;
	uint64_t id; /* 0: none is under way */
	/* PAGER_NOTICE_SNAPSHOT_BEGUN, then …_SNAPSHOT; or that alone. After that the caller is free. */
	void (*told)(void *context, const struct pager_notice *notice);
	void *context;
};

struct snapshots {
	struct pager *pager;
	LIST_HEAD(snapshot_list, snapshot_caller) list;
};

void snapshots_init(struct snapshots *snapshots, struct pager *pager);
/* Takes fd. Errors as of pager_snapshot(); then the caller stays free. */
int snapshots_begin(struct snapshots *snapshots, struct snapshot_caller *caller, pager_task_id task,
		    const struct pager_range *range, int fd);
/* The snapshot ends, and nobody is told. */
void snapshots_drop(struct snapshots *snapshots, struct snapshot_caller *caller);
/* Takes fd, and the call: it is answered when the file is whole, or with an error; if it asked for more, also
 * when the moment has been. If the caller goes, the snapshot ends. */
void snapshots_call(struct snapshots *snapshots, pager_task_id task, int fd, struct varlink_call *call);
/* The pager has told of one. */
void snapshots_notice(struct snapshots *snapshots, const struct pager_notice *notice);
