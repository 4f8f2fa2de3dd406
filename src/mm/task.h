/*
 * Tasks and groups: their state. What happens to it is decided in pager/.
 *
 * Everything belongs to the worker that owns the group, except what is marked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "mm/frames.h"
#include "mm/mapping.h"
#include "mm/queue.h"
#include "mm/region.h"
#include "mm/stat.h"
#include "mm/table.h"
#include "proto/exchange.h"
#include "sys/uffd.h"
#include "sys/uring.h"

struct worker;
struct task;

/* A fault that waits: for room, or for an event to pass. */
struct waiter {
	TAILQ_ENTRY(waiter) link;
	struct task *task;
	uint64_t address;
	uint64_t since; /* ns */
	uint32_t ptid;
	bool write, protect;
};
TAILQ_HEAD(waiters, waiter);

/* A word whose range an event took away, until no event can still claim it. */
struct limbo_entry {
	uint64_t address;
	word_t word; /* SWAP or POISON; slot counted */
};

/* The daemon's own copy of a command under way: the exchange is not trusted. */
struct command {
	bool used;
	uint32_t number;    /* of all that were ever posted */
	uint64_t posted_at; /* ns */
	uint32_t flags, n_runs, n_pages, first_frame;
	uint32_t n_harvested; /* pages whose results are known */
	uint32_t moved;       /* of these, pages that left */
	bool stale;           /* of these, some were refused because an event came between */
	uint32_t n_shared; /* pages that other tasks had too when it was posted */
	bool by_hand;      /* its pages come from the hand, not from the queue */
	struct exchange_run runs[EXCHANGE_RUNS];
	bool out[EXCHANGE_BATCH];     /* this page left */
};

/* A descriptor of a task that the worker polls. */
struct task_poll {
	struct completion completion;
	struct task *task;
	bool armed;
};

struct group {
	TAILQ_ENTRY(group) link;
	struct worker *worker;
	char name[64];
	TAILQ_HEAD(, task) tasks;
	_Atomic uint64_t limit; /* bytes; set by the main thread */
	struct waiters waiters; /* for room, oldest first */
	uint64_t resident;      /* pages of the programs: last sample plus what we did since */
	uint64_t overhead;      /* pages of frames that have been used */
	uint64_t reserved;      /* pages of frames that may be used: room is kept for them */
	uint64_t shared;        /* pages counted in several tasks (after a fork) */
	uint32_t evictions;     /* pages that have left, ever; wraps */
	uint32_t reclaim;       /* pages that must leave although the limit is kept */
	uint64_t sampled_at, next_sample, shared_at, overrun_at, full_at, active_at, hopeless_until,
		grown_at; /* ns */
	uint64_t published_at;  /* ns */
	uint64_t peak;          /* pages, overhead included */
	bool armed;             /* the limit was neared: memory is registered */
	struct trace *trace;    /* of what happens, being recorded, or NULL; pager's */
	struct counters ended;  /* of tasks that are gone */
	struct pager_group_stat published; /* guarded by the pager's registry lock */
};

struct task {
	TAILQ_ENTRY(task) link;        /* of its group */
	TAILQ_ENTRY(task) work_link;   /* of the worker, while `queued` */
	struct group *group;
	struct worker *worker;
	uint64_t id, parent, token;
	pid_t pid;
	char state_name[32];

	int uffd, maps, pagemap, statm, smaps_rollup, mem, pidfd;
	int agent_pidfd[2];
	pid_t agent_ns_pid[2];
	unsigned agent; /* which twin works */
	struct uffd_features features;
	uint64_t sentinel, staging, staging_rwx;
	uint64_t exclude[5][2];

	bool ended;      /* to be freed when nothing is under way */
	bool queued;     /* on the worker's work list */
	bool messages;   /* the uffd is readable */
	bool evictable;  /* an agent serves it */
	bool gate_wanted;
	bool unmarked;   /* some words wait for their marker */
	bool forked;     /* it has forked, or was: its pages may be shared */
	bool snapped;    /* a snapshot may have protected pages that are memory */
	bool silent;     /* its children must make no system calls */
	uint64_t gate_since; /* ns */
	uint64_t twin_killed_at; /* ns; 0: the working twin lives as far as we know */
	struct task_poll uffd_poll, bell_poll;
	unsigned under_way;  /* fills and writes */

	int exchange_fd, doorbell;
	struct exchange *exchange;
	uint64_t exchange_size;
	char *frame_memory;
	int buffer_index; /* registered buffer of the frames, or -1 */

	struct state *state;
	struct table table;
	struct regions regions;
	struct mappings mappings;
	struct frames frames;
	struct command commands[EXCHANGE_COMMANDS];
	uint32_t posted, reaped;
	struct limbo_entry *limbo;
	size_t n_limbo, limbo_capacity;
	struct waiters retries; /* an event is pending: tried again soon */

	struct {
		uint64_t size, data; /* of the last statm: a change means new VMAs */
		uint64_t anonymous;  /* pages */
		uint64_t next_scan, next_walk; /* ns */
		bool wanted;         /* a scan is due at once */
		bool sampled;
	} adopt;
	struct {
		uint64_t at, lap;
		uint64_t exhausted_until; /* ns: nothing evictable was found */
		uint64_t came_in; /* pages ever brought in, as of then */
		uint64_t taken_in_lap, busy_in_lap, own_in_lap, shared_in_lap;
		bool breaks;          /* shared pages leave too: what is the task's alone is too little */
		bool at_huge;         /* it stands before a huge page, which takes a command of its own */
		uint64_t alone_since; /* the lap since which no relative lives; 0: one does */
	} hand;
	struct queue queue;        /* pages on probation */
	struct victims *victims;   /* what the policy knows; pager's */
	struct snapshot *snapshot; /* being made, or NULL */
	struct streams *streams, *touches; /* of swap-ins, of first touches; pager's */
	uint64_t refaults;   /* pages that had to come back, halved every REFAULTS_HALVE */
	uint64_t refaults_at;
	uint64_t came_in;    /* pages ever brought in */
	uint64_t registered; /* bytes */
	struct counters counters;
	struct pager_task_stat published; /* guarded by the pager's registry lock */
};

/* Memory of a new, empty task, or NULL; descriptors are -1. */
struct task *task_new(void);
/* => nothing is under way, slots have been returned. Closes descriptors. NULL is fine. */
void task_free(struct task *task);

/* Remembers a word in limbo. -ENOMEM: the caller lets the slot go at once. */
int limbo_add(struct task *task, uint64_t address, word_t word);

/* Pages were added to or taken from what the task's program has. */
void task_charge(struct task *task, int64_t pages);
/* Pages that a fork had left in several tasks have left one of them: the others still have them. */
void group_unshare(struct group *group, uint64_t pages);
