/*
 * Snapshots (snapshot.c), as the rest of pager/ sees them. On the worker's thread. pager.h tells how one is
 * begun and given up.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct task;

/* Goes on with it; called in every pass over the task. */
void snapshot_serve(struct task *task);
/* The task has ended: so does its snapshot, with -ESRCH, when nothing is under way. */
void snapshot_end(struct task *task);

/* Must the page stay until it has been copied? */
bool snapshot_needs(const struct task *task, uint64_t address);
/* Before a page is written to. false: not now, soon again; not so for the agent, which writes nothing when
 * it makes pages exclusive, and would be taken for stuck. */
bool snapshot_keep(struct task *task, uint64_t address, bool by_agent);
/* Before words of the range are dropped. there: what is in it is perhaps not gone yet. */
void snapshot_discard(struct task *task, uint64_t start, uint64_t end, bool there);
/* Before words are moved. */
void snapshot_moved(struct task *task, uint64_t from, uint64_t to, uint64_t length);
