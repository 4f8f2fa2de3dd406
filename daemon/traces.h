/* Trace calls that are under way. */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "pager/pager.h"

struct group;
struct varlink_call;

struct traces {
	struct pager *pager;
	LIST_HEAD(trace_list, trace_call) list;
};

void traces_init(struct traces *traces, struct pager *pager);
/* Takes fd, an empty regular file, and the call: it is answered when the trace has ended, or with an error;
 * if more answers are wanted, also when it has begun. If the caller goes, the trace ends. */
void traces_start(struct traces *traces, struct group *group, int fd, struct varlink_call *call);
/* Ends the group's trace; false: it has none. */
bool traces_end(struct traces *traces, const struct group *group);
/* The group is about to be freed: its trace ends by itself. */
void traces_group_ended(struct traces *traces, const struct group *group);
/* The pager has told of the end of one. */
void traces_ended(struct traces *traces, const struct pager_notice *notice);
/* Nobody waits for one. */
bool traces_are_over(const struct traces *traces);
