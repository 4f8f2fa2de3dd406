/*
 * Snapshots (snapshot.c), as the rest of pager/ sees them. On the worker's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "pager/pager.h"

struct task;

/* Takes fd. `started` is called once: when the memory is as it will be in the file, or with an error.
 * The end is told by PAGER_NOTICE_SNAPSHOT. -EBUSY: one is being made. */
int snapshot_start(struct task *task, int fd,
		   void (*started)(void *context, int result, const struct pager_snapshot_stat *stat),
		   void *context);
/* Goes on with it; called in every pass while there is one. */
void snapshot_serve(struct task *task);
/* The task ends: so does its snapshot, with -ESRCH. */
void snapshot_end(struct task *task);

/* Must the page stay until it has been copied? */
bool snapshot_needs(const struct task *task, uint64_t address);
/* Before a page is written to. false: not now, soon again. */
bool snapshot_keep(struct task *task, uint64_t address);
/* Before words of the range are dropped, and before they are moved. */
void snapshot_discard(struct task *task, uint64_t start, uint64_t end);
void snapshot_moved(struct task *task, uint64_t from, uint64_t to, uint64_t length);
