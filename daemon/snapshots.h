/* Snapshot calls that are under way. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "pager/pager.h"

struct varlink_call;

struct snapshots {
	struct pager *pager;
	LIST_HEAD(snapshot_list, snapshot_call) list;
};

void snapshots_init(struct snapshots *snapshots, struct pager *pager);
/* Takes fd, an empty regular file, and the call: it is answered when the file is whole, or with an error. If the caller goes, the
 * snapshot ends. */
void snapshots_start(struct snapshots *snapshots, pager_task_id task, int fd, struct varlink_call *call);
/* The pager has told of the end of one. */
void snapshots_ended(struct snapshots *snapshots, const struct pager_notice *notice);
