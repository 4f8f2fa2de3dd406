/* Snapshot calls that are under way. */
#pragma once

#include <sys/queue.h>
#include <sys/types.h>

#include "pager/pager.h"

struct varlink_call;

struct snapshots {
	LIST_HEAD(snapshot_list, snapshot_call) list;
};

void snapshots_init(struct snapshots *snapshots);
/* Makes the file with the rights of uid and gid, and answers the call when it is whole. 0, or -errno:
 * the call is not answered. */
int snapshots_start(struct snapshots *snapshots, struct pager *pager, pager_task_id task,
		    const char *path, uid_t uid, gid_t gid, struct varlink_call *call);
/* The pager has told of the end: error is 0 or an errno, lost in bytes. */
void snapshots_ended(struct snapshots *snapshots, pager_task_id task, int error, uint64_t lost);
