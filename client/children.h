/* The processes below this one, as /proc shows them. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define AGENT_COMM "upager-agent"

/* Ends and reaps the agents that have become our children: an agent's parent is its client, so
 * theirs have ended. Waits up to patience_ms. Leaves `spared` alone (0 = none). */
void children_end_agents(pid_t spared, int patience_ms);

/* Reaps whoever has ended: a zombie still looks alive by its number. */
void children_reap(void);

/* Kills every descendant and reaps those that are our children; the status of `watched` is kept
 * in *ret_status. Gives up after patience_ms. */
void children_kill_all(pid_t watched, int *ret_status, int patience_ms);
