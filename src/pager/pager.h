/*
 * The pager as the daemon sees it: workers that own tasks, groups that carry limits, tiers.
 *
 * Threads: every function here is called from the daemon's main thread only. What a worker has to
 * tell comes through the notices queue, whose eventfd the main loop polls.
 * Errors: functions return 0 or -errno unless they say otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mm/stat.h"

struct pager;
struct pager_group;

/* Kernel features that a test may take away ("features" in the configuration). */
enum pager_feature {
	PAGER_FEATURE_MOVE = 1 << 0,           /* UFFDIO_MOVE, Linux 6.8 */
	PAGER_FEATURE_WP_UNPOPULATED = 1 << 1, /* markers, Linux 6.4 */
	PAGER_FEATURE_POISON = 1 << 2,         /* UFFDIO_POISON, Linux 6.6 */
	PAGER_FEATURE_PROCMAP_QUERY = 1 << 3,  /* Linux 6.11; else the text of /proc/PID/maps */
	PAGER_FEATURE_ALL = (1 << 4) - 1,
};

enum pager_register { PAGER_REGISTER_LAZY, PAGER_REGISTER_EAGER };
enum pager_clean { PAGER_CLEAN_HASH, PAGER_CLEAN_WP };
enum pager_policy { PAGER_POLICY_2Q, PAGER_POLICY_CLOCK };
enum pager_on_full { PAGER_ON_FULL_OVERRUN, PAGER_ON_FULL_KILL };

/* Memory that pages are compressed into, before they go to swap; the limits of groups do not hold it. */
struct pager_compressed {
	uint64_t size; /* bytes of memory; 0 = none */
	enum pager_algorithm { PAGER_LZ4, PAGER_ZSTD } algorithm;
	int level; /* 0 = the algorithm's own choice; below, faster; above (zstd alone), smaller */
};

/* One swap file or block device. Higher priority is filled first; equals are taken in turn. */
struct pager_swap {
	const char *path;
	uint64_t size;    /* bytes, a multiple of 4096; 0 = a block device's or existing file's own size */
	int priority;     /* -32768 … 32767 */
	bool preallocate; /* fallocate at start (else sparse) */
	bool direct;      /* O_DIRECT */
	bool create;      /* create the file (0600) if it is missing, and remove it at the end */
	unsigned error_every; /* tests: every n-th I/O fails with EIO; 0 = never */
	unsigned delay_us;    /* tests: every I/O completes so much later; microseconds */
};

struct pager_config {
	const char *state_dir; /* where words, slot records and the journal live; a tmpfs directory */
	unsigned workers;      /* 1 … 64 */
	unsigned features;     /* mask of enum pager_feature: what may be used if the kernel has it */
	enum pager_register reg;
	enum pager_clean clean;
	enum pager_policy policy; /* which pages leave */
	enum pager_on_full on_full;
	unsigned give_up_s;       /* seconds an agent waits for a dead daemon */
	unsigned readahead_pages; /* largest readahead window, 1 … 512 pages */
	unsigned busy_poll_us;    /* how long a worker polls after activity; 0 = never */
	unsigned stuck_ms;        /* how long an agent may hold the gate before its twin is replaced */
	unsigned pretend_nodes;   /* tests: so many memory nodes; 0 = those that there are */
	uint64_t image_memory;    /* bytes that the pages of files may hold together */
	unsigned writeback_s;     /* seconds after which a dirty page of a file is written */
	unsigned image_delay_us;    /* tests: so much later a read of a file ends */
	unsigned image_error_every; /* tests: every n-th read of a file fails with EIO; 0 = never */
	struct pager_compressed compressed;
	const struct pager_swap *swaps; /* none: pages rest in compressed memory alone */
	size_t n_swaps;
};

/* Opens state and tiers and starts the workers. On failure *ret_error_on (may be NULL) names what
 * the error is about: a path of the configuration or a kernel feature; static or config-owned. */
int pager_new(const struct pager_config *config, struct pager **ret, const char **ret_error_on);

/* Stops the workers and takes the names of created swap files away: from then on nothing of the
 * pager is to be seen. Freeing what a large file held may take seconds: that is pager_free()'s. */
void pager_stop(struct pager *pager);

/* Ends every task's service (clients are released: their evicted pages are lost, so call it when
 * no task is left, or after killing them), stops the workers, closes and removes what was
 * created. */
void pager_free(struct pager *pager);

/* The smallest limit a group can have, bytes. */
uint64_t pager_minimum_limit(void);

/* => name is copied. limit in bytes, at least pager_minimum_limit() (else -ERANGE). */
int pager_group_new(struct pager *pager, const char *name, uint64_t limit,
		    struct pager_group **ret);
/* => the group has no tasks. */
void pager_group_free(struct pager_group *group);
/* Takes effect at once, up or down; -ERANGE below the minimum. */
int pager_group_set_limit(struct pager_group *group, uint64_t limit);

/* As of the last look at the group: a long time ago, if it is far below its limit. */
void pager_group_stat(const struct pager_group *group, struct pager_group_stat *ret);
/* Looks at it now. Waits for the worker. */
void pager_group_refresh(struct pager_group *group);

/* What a client hands over in its hello. The pager takes ownership of every descriptor, also on
 * failure; -1 = not given. */
struct pager_attach {
	pid_t pid;        /* from SO_PEERCRED */
	int uffd;         /* without UFFDIO_API done; -1 if the token names a forked child */
	int maps, pagemap, statm, smaps_rollup, mem; /* /proc/self/… opened by the client */
	int pidfd;        /* of the client */
	uint64_t sentinel; /* address of the sentinel page */
	uint64_t token;    /* from the sentinel page of a forked child; 0 = a new program */
};

struct pager_welcome {
	int exchange; /* memfd for the client, stays the pager's: dup or send it, don't close it */
	int doorbell; /* eventfd the agent writes; stays the pager's */
	int uffd;     /* of a forked child, which has none: send it too; stays the pager's; else -1 */
	uint64_t exchange_size; /* bytes */
};

/* Makes a task (or, with a token, finds the forked child that the pager already serves and puts
 * it in *ret_id; its group is the parent's and `group` is ignored). Waits for the worker.
 * -ESRCH unknown token, -EINVAL not a userfaultfd, -EOPNOTSUPP features missing, -ENOMEM … */
int pager_attach(struct pager *pager, struct pager_group *group, const struct pager_attach *what,
		 struct pager_welcome *ret_welcome, pager_task_id *ret_id);

/* The agents run: from now on the task can be evicted from. agent_pids are in the client's pid
 * namespace (agent_tids messages carry), agent_pidfds are ours and owned by the pager from now on.
 * [0] is active, [1] the spare (-1 = none). */
struct pager_agents {
	int pidfd[2];
	pid_t ns_pid[2];
	uint64_t staging;     /* address of the rw staging window, EXCHANGE_BATCH pages */
	uint64_t staging_rwx; /* address of the rwx window, 0 = none */
	uint64_t exclude[4][2]; /* ranges [start, end) never to adopt; unused = 0,0 */
};
int pager_agent_ready(struct pager *pager, pager_task_id id, const struct pager_agents *agents);

/* The client has exited or executed another program: everything of the task is returned, its twins
 * are killed. A PAGER_NOTICE_TASK_GONE follows when the worker has let go. */
void pager_detach(struct pager *pager, pager_task_id id);

/* Copies at most `max` tasks of the group; returns how many there are. */
size_t pager_group_tasks(const struct pager_group *group, struct pager_task_stat *ret, size_t max);

/* ---- images: files that programs have mapped through us ---- */

struct image;

/* Opens the image of a file that a program gave: `file` stays the caller's. A shared one is written
 * to if the descriptor can be. *ret_memory is the memfd that the program maps, at the file's own
 * offsets; it becomes the caller's. -EINVAL: no regular file, or O_APPEND or O_DIRECT; -EACCES: it
 * can't be read; -EFBIG; … */
int pager_image_open(struct pager *pager, int file, bool shared, struct image **ret,
		     int *ret_memory);
/* The caller is done; mappings have uses of their own. NULL is fine. */
void pager_image_close(struct image *image);

/* Answers a call: 0 or -errno, once, on a worker's thread. */
typedef void pager_done(void *context, int result);

struct pager_range {
	uint64_t address; /* page aligned */
	uint64_t length;  /* bytes, not 0 */
};

/* Memory that the task has mapped from the image's memfd is served from now on. unit: bytes that
 * are best read together, a power of two; 0 = no matter. -ESRCH, -EINVAL and -ENOMEM come at once,
 * and then `done` is not called; through it -EINVAL (no image is mapped there), -EOPNOTSUPP. */
int pager_map(struct pager *pager, pager_task_id id, const struct pager_range *range,
	      struct image *image, uint64_t unit, pager_done *done, void *context);

/* What was written to shared mappings in the range before the call is in the file for certain when
 * `done` is called with 0. Through it -ENOMEM (nothing of ours is mapped there), -EIO, -ENOSPC … */
int pager_sync(struct pager *pager, pager_task_id id, const struct pager_range *range,
	       pager_done *done, void *context);

enum pager_advice {
	PAGER_ADVICE_NORMAL,
	PAGER_ADVICE_SEQUENTIAL, /* read far ahead; for the whole of each mapping in the range */
	PAGER_ADVICE_RANDOM,     /* read what is touched alone */
	PAGER_ADVICE_COLD,       /* clean pages of files leave now, others when memory is short */
};
int pager_advise(struct pager *pager, pager_task_id id, const struct pager_range *range,
		 enum pager_advice advice, pager_done *done, void *context);

struct pager_image_stat {
	uint64_t limit, resident, dirty; /* bytes, of all images */
};
void pager_image_stat(const struct pager *pager, struct pager_image_stat *ret);

/* Begins a snapshot of the task's memory, or of a range of it, written to fd, an empty regular file; taken,
 * also on failure. proto/snapshot.h tells its form. Does not wait. PAGER_NOTICE_SNAPSHOT_BEGUN tells that
 * the moment has been, PAGER_NOTICE_SNAPSHOT of the end, once, begun or not: 0, or ESRCH the task has
 * ended, EAGAIN its memory did not stand still, EOPNOTSUPP its agents have not come, EFAULT not all of the
 * range is memory that is paged, ECANCELED, ETIMEDOUT the file took nothing for seconds, or an error of
 * writing. Here: -ESRCH no such task, -EBUSY one is being made, -EOPNOTSUPP it has no agent, -EINVAL the
 * range, -EFBIG it is larger than 1 TiB. */
struct pager_snapshot_stat {
	uint64_t id;
	uint64_t resident, evicted; /* bytes in it, by where they were */
	uint64_t copied;            /* bytes of these that need not be kept for it any more */
	uint64_t lost;              /* bytes of these that are zeros now */
	uint64_t stall_ns;          /* how long who wrote to its memory waited for the beginning */
};
/* range: NULL: all that is paged. */
int pager_snapshot(struct pager *pager, pager_task_id task, const struct pager_range *range, int fd,
		   uint64_t *ret_id);
/* Of the one that is being made. -ESRCH: there is none, or it has not begun. */
int pager_snapshot_stat(struct pager *pager, pager_task_id task, struct pager_snapshot_stat *ret);
/* Lets go of it, if it has not ended. */
void pager_snapshot_cancel(struct pager *pager, pager_task_id task, uint64_t id);

/* Begins to record what happens to the group's tasks, to fd, an empty regular file; taken, also on
 * failure. proto/trace.h tells its form. PAGER_NOTICE_TRACE tells of the end, once: 0, ETIMEDOUT the file
 * took nothing for seconds, or an error of writing; what is in it then can be read. It ends with the
 * group, too. Here: -EBUSY the group is being traced. */
struct pager_trace_stat {
	uint64_t id;
	uint64_t records; /* in the file */
	uint64_t dropped; /* records that are not, as the file was too slow for them */
	uint64_t bytes;
};
int pager_trace(struct pager_group *group, int fd, uint64_t *ret_id);
/* Ends it, if it has not ended. */
void pager_trace_end(struct pager *pager, uint64_t id);

struct pager_tier_stat {
	char name[16];  /* "same", "compressed", "swap0", … */
	char path[256]; /* empty for tiers without a file */
	int priority;
	uint64_t size, used; /* bytes */
	uint64_t pages_in, pages_out, errors;
	bool direct, preallocated, registered_buffers;
	/* Of compressed memory, where size and used are what it may take and takes: */
	bool compressed;
	uint64_t peak;         /* bytes that it took at most */
	uint64_t pages;        /* that are there */
	uint64_t bytes_out;    /* what the pages out have become */
	uint64_t written_back; /* pages that went from there to the tiers behind */
	uint64_t rejected;     /* pages that do not compress */
};
size_t pager_tiers(const struct pager *pager, struct pager_tier_stat *ret, size_t max);

enum pager_notice_kind {
	PAGER_NOTICE_TASK_FORKED,   /* task = child, value = parent's; before it can say hello */
	PAGER_NOTICE_TASK_GONE,     /* after detach, or a child without hello that died */
	PAGER_NOTICE_GROUP_ARMED,   /* the limit is near: memory is being registered */
	PAGER_NOTICE_OVERRUN,       /* value = bytes over the limit that could not be evicted */
	PAGER_NOTICE_SWAP_FULL,     /* eviction stopped */
	PAGER_NOTICE_IO_ERROR,      /* value = errno; address = the page */
	PAGER_NOTICE_POISONED,      /* a page was lost: the client gets SIGBUS at address */
	PAGER_NOTICE_AGENT_REPLACED, /* a stuck twin was killed, the spare took over */
	PAGER_NOTICE_UNEVICTABLE,   /* no agent left, or no way to evict here: value = errno */
	PAGER_NOTICE_IMAGE_LOST,    /* value pages that nobody maps any more could not be written */
	PAGER_NOTICE_SNAPSHOT_BEGUN, /* from now on what the task writes is not in it */
	PAGER_NOTICE_SNAPSHOT,      /* it has ended: value = errno, 0 = whole */
	PAGER_NOTICE_TRACE,         /* it has ended: value = errno, 0 = whole; of no group and no task */
	PAGER_NOTICE_BROKEN,        /* the task can't be served; value = errno. It was killed. */
};
struct pager_notice {
	enum pager_notice_kind kind;
	struct pager_group *group;
	pager_task_id task;
	pid_t pid;
	uint64_t address;
	uint64_t value;
	struct pager_snapshot_stat snapshot; /* of PAGER_NOTICE_SNAPSHOT… */
	struct pager_trace_stat trace;       /* of PAGER_NOTICE_TRACE */
};
/* Readable when notices wait. */
int pager_notice_fd(const struct pager *pager);
/* 1 and a notice, or 0 when none waits. */
int pager_next_notice(struct pager *pager, struct pager_notice *ret);
