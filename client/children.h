/* The processes below this one, as /proc shows them. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define AGENT_COMM "upager-agent"

/* Reaps those of our children that have ended, except `spared` (0 = none). True while an agent is
 * left that has become our child. */
bool children_reap(pid_t spared);

/* Kills every descendant and reaps those that are our children; the status of `watched` is kept
 * in *ret_status. Gives up after patience_ms. */
void children_kill_all(pid_t watched, int *ret_status, int patience_ms);
