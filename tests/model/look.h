/* Internal to the rig: what is done on the worker's thread. */
#pragma once

#include <semaphore.h>
#include <sys/types.h>

#include "base/util.h"
#include "pager/worker.h"
#include "rig.h"

struct rig {
	struct pager *pager;
	struct pager_group *group;
	char folder[80], state[32], socket_path[96], swap_path[96], text[256];
	unsigned char file[FILE_PAGES * PAGE] __attribute__((aligned(4096)));
	int listening, swap_fd, file_fd, boards_fd, session[PROCESSES], go[PROCESSES],
	    done[PROCESSES];
	struct board *boards;
	pid_t child;	      /* the program; 0: it has ended */
	pid_t pid[PROCESSES]; /* 0: none, or no session yet */
	pager_task_id id[PROCESSES];
	bool errors;
	struct slot spoiled[256]; /* the latest */
	unsigned n_spoiled;
};

void look_limit(struct rig *rig, uint64_t bytes);
void look_limit_near(struct rig *rig, uint32_t pages);
