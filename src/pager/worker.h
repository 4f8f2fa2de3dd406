/*
 * The worker: a thread with one io_uring, sole owner of its groups and their tasks.
 *
 * Internal to pager/. Everything here runs on the worker's thread unless it says otherwise.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "mm/task.h"
#include "pager/pager.h"
#include "policy/poll.h"
#include "policy/stream.h"
#include "policy/victim.h"
#include "sys/numa.h"
#include "tier/zpool.h"

#define BOUNCE_PAGES  2048u
#define BUFFER_BOUNCE 0 /* index of the bounce memory among the registered buffers */
#define BUFFERS       4096u

/* A message to a worker. Owned by the sender until it has run; the sender may wait for that. */
struct mail {
	STAILQ_ENTRY(mail) link;
	void (*run)(struct worker *worker, struct mail *mail);
};

struct worker {
	struct pager *pager;
	unsigned index;
	pthread_t thread;
	bool started;
	struct uring uring;
	pthread_mutex_t mail_lock;
	STAILQ_HEAD(, mail) mail;
	int mail_fd;
	struct completion mail_poll;
	bool mail_armed;
	bool stop;

	TAILQ_HEAD(, group) groups;
	TAILQ_HEAD(work_list, task) work; /* tasks with messages or completions to look at */
	unsigned n_retries;               /* faults on tasks' retry lists */
	LIST_HEAD(, trace) traces;
	unsigned n_snapshots;             /* snapshots that nobody will call when they can go on */
	uint64_t now;                     /* ns, of this pass */
	struct poll poll;

	TAILQ_HEAD(image_reads, image_read) reads; /* of files, under way */
	STAILQ_HEAD(image_calls, image_call) image_calls;
	uint64_t images_due;   /* ns: when images are looked at again */
	bool images_pressing;  /* image_memory is short: what is dirty is written at once */
	struct mail images_mail;
	_Atomic bool images_kicked; /* images_mail is on its way */

	TAILQ_HEAD(fills, fill) ahead; /* reads that nobody has asked for yet, oldest first */
	unsigned n_awaited;            /* reads that somebody waits for */

	char *bounce; /* BOUNCE_PAGES pages for reads, registered */
	uint64_t bounce_used[BOUNCE_PAGES / 64];
	int bounce_index; /* registered buffer, or -1 */
	uint64_t buffers_used[BUFFERS / 64];
	_Alignas(4096) char scratch[4096];
};

struct pager {
	struct pager_config config;
	int state_dir;
	struct worker *workers;
	unsigned n_workers;
	struct numa numa;
	struct zpool *zpool;           /* NULL: nothing is compressed */
	struct tier *tiers[TIERS_MAX]; /* [0] unused: TIER_SAME */
	unsigned order[TIERS_MAX];     /* tier numbers by falling priority */
	unsigned n_tiers;              /* in order[] */
	uint64_t seed;                 /* of their checksums */
	_Atomic unsigned next_equal;   /* tiers of equal priority are taken in turn */
	_Atomic uint64_t next_id;
	char zero_page[4096] __attribute__((aligned(4096)));
	const char *huge_zero; /* LEAF_SIZE of zeros, that cost no memory */

	/* The registry: which groups and tasks there are. Changed by workers (tasks) and the main
	 * thread (groups), read by the main thread; never held on the fault path. */
	pthread_mutex_t registry;

	/* Which images there are, and from none to one who uses them. Never held across I/O. */
	pthread_mutex_t images_lock;
	LIST_HEAD(, image) images;
	struct image_total image_total;
	_Atomic unsigned image_reads; /* counted for image_error_every */

	pthread_mutex_t notices_lock;
	struct pager_notice notices[256];
	unsigned notices_first, n_notices;
	int notice_fd;
};

struct pager_group {
	struct group group;
	struct pager *pager;
};

/* ---- notices.c ---- */
void pager_notify_snapshot(struct task *task, enum pager_notice_kind kind,
			   const struct pager_snapshot_stat *stat, int error);
void pager_notify_trace(struct pager *pager, const struct pager_trace_stat *stat, int error);
void pager_notify(struct task *task, enum pager_notice_kind kind, uint64_t address, uint64_t value);
/* The same, when it concerns nobody in particular. */
void pager_notify_all(struct pager *pager, enum pager_notice_kind kind, uint64_t value);

/* ---- mail.c ---- */
struct task *worker_task(struct worker *worker, pager_task_id id); /* NULL: none, or it has ended */

/* ---- pager.c ---- */
/* The index of the worker that has the task, or -ESRCH. Waits for workers; not for them to call. */
int pager_find_worker(struct pager *pager, pager_task_id id);
/* Runs on the worker that has the task, and waits for it; not for workers to call. -ESRCH: none has. */
int pager_ask(struct pager *pager, pager_task_id id, int (*ask)(struct task *task, void *context),
	      void *context);
static inline bool pager_may(const struct worker *w, enum pager_feature feature)
{
	return w->pager->config.features & feature;
}
/* The tier of a slot. */
static inline struct tier *tier_of(const struct worker *w, unsigned tier)
{
	return w->pager->tiers[tier];
}
static inline const struct victim_policy *policy_of(const struct task *t)
{
	static const struct victim_policy *const policies[] = {
		[PAGER_POLICY_2Q] = &victim_2q, [PAGER_POLICY_CLOCK] = &victim_clock};

	return policies[t->worker->pager->config.policy];
}
/* What the policy is to know, as of now. */
struct victims *victims_of(struct task *task);
void pager_slot_get(struct worker *w, word_t word);
void pager_slot_put(struct worker *w, word_t word);

/* ---- tiers.c ---- */
int tiers_open(struct pager *pager, const char **ret_error_on);
void tiers_remove(struct pager *pager);
void tiers_close(struct pager *pager);

/* ---- worker.c ---- */
int worker_start(struct worker *worker, struct pager *pager, unsigned index);
void worker_stop(struct worker *worker);
void worker_post(struct worker *worker, struct mail *mail); /* any thread */
void worker_queue(struct task *task); /* look at it in this pass */
int worker_take_buffer(struct worker *worker, void *base, uint64_t length);
void worker_give_buffer(struct worker *worker, int index);
/* Contiguous bounce pages, up to `want`; 0 when none is free. */
uint32_t bounce_take(struct worker *worker, uint32_t want, char **ret);
void bounce_give(struct worker *worker, char *at, uint32_t n);

/* ---- gate.c ---- */
bool gate_take(struct task *task); /* false: the agent has it; its doorbell will tell */
void gate_release(struct task *task, bool changed); /* changed: raises the epoch first */
/* Replaces a twin that has held the gate, or a command, for too long. */
void gate_watch(struct task *task);

/* ---- event.c: messages of one task ---- */
void task_messages(struct task *task); /* reads and applies all that wait */
void event_drop_word(struct task *task, struct leaf *leaf, unsigned index);
void event_discard(struct task *task, uint64_t start, uint64_t end); /* the range reads as zeros */
/* Is a REMOVE of this range the agent's, who has emptied its window? */
bool event_is_ours(const struct task *task, uint64_t start, uint64_t end);
void limbo_purge(struct task *task); /* if no event can claim anything any more */
void limbo_clear(struct task *task);

/* ---- fork.c ---- */
void fork_task(struct task *parent, int uffd);
/* The content that a word stands for, as SWAP or POISON, its slot counted for somebody else; NONE:
 * it has none with us. */
word_t word_share(struct task *task, word_t word);

/* ---- fault.c ---- */
struct fault {
	/* the request */
	struct task *const task;
	const uint64_t address;
	const bool write, protect; /* protect: a write to a protected page */
	const bool by_agent;       /* must not wait for room: the room comes through it */
	const bool overrun;        /* let it through above the limit: nothing can leave */
	const bool again;          /* it has waited */
	const uint32_t ptid;       /* the thread, in its own pid namespace; 0: not known */
	/* the decisions */
	word_t word;
	struct mapping *mapping; /* of an image; NULL: anonymous memory */
	bool major;              /* the page was read for it */
};
enum fault_result {
	FAULT_DONE,
	FAULT_RETRY,   /* an event is pending: soon again */
	FAULT_NO_ROOM, /* the limit is reached */
	FAULT_RESTART, /* the word has changed: decide anew */
	FAULT_FALLBACK, /* not as a huge page: page by page */
};
enum fault_result handle_mm_fault(struct fault *fault);
/* A message, or a waiter's second try: waits in the right place if it must. */
void task_fault(struct task *task, uint64_t address, bool write, bool protect, uint32_t ptid,
		uint64_t since, bool overrun);
void task_retry(struct task *task);

/* ---- fill.c: pages in ---- */
enum fault_result fill_zero(struct fault *fault);
enum fault_result fill_standby(struct fault *fault);
enum fault_result fill_same(struct fault *fault);
enum fault_result fill_poison(struct fault *fault);
/* There is no memory for a page: others leave, and it is tried again. */
enum fault_result fill_short(struct task *task);
/* What a refused call on one page comes to. */
enum fault_result fill_refused(struct task *task, uint64_t address, ssize_t result);
/* How many pages may come in at the fault of the `window` that a stream asks for. */
uint32_t fill_clip(const struct fault *fault, uint32_t window);
/* The word of a page that has come in from a slot, whose count it keeps or lets go. flags: WORD_WP,
 * FILL_ASKED, FILL_STREAM. */
void fill_commit(struct task *task, uint64_t address, struct slot slot, unsigned flags);
/* New memory: pages that have become the client's and were never out. */
void fill_is_new(struct task *task, uint64_t address, uint32_t n);
#define FILL_ASKED  (1u << 30) /* a fault was for it */
#define FILL_STREAM (1u << 31) /* it came in with a stream */
unsigned fill_streams(const struct stream *stream, uint32_t window); /* FILL_STREAM or 0 */
/* clean = wp: a page that is read keeps its slot until the first write, which tells. */
unsigned fill_protects(const struct fault *fault); /* WORD_WP or 0 */
/* Is the page's content really with us? 1; 0: the client discarded it; -errno. */
int fill_is_ours(struct task *task, uint64_t address, word_t word);
/* Gives a page in a frame back to the client; its word becomes PRESENT. false: not possible now. */
bool fill_put_back(struct task *task, uint32_t frame);
/* Pages on standby in neighbouring frames, from `address` on: returns how many have come in. */
uint32_t fill_frames(struct task *task, uint64_t address, uint32_t max, unsigned flags);

/* ---- swapin.c: pages from a tier ---- */
/* Begins to read up to `max` pages from `address` on; returns how many. 0: nothing to read there, or
 * no memory to read it into. */
uint32_t fill_slots(struct task *task, uint64_t address, uint32_t max, unsigned flags);
enum fault_result fill_read(struct fault *fault);
/* Lets go of what was read ahead long ago; and when there will be something to let go of, ns. */
void ahead_serve(struct worker *worker);
uint64_t ahead_due(const struct worker *worker);
/* The task ends. */
void ahead_forget(struct task *task);

/* ---- hugetlb.c: reserved huge pages ---- */
/* Serves the faults of [start, end), whole huge pages of 2 MiB of the client's that it asks for. They
 * stay resident. What adopt_scan then finds there goes on being served. -EINVAL, -EBUSY. */
int hugetlb_serve(struct task *task, uint64_t start, uint64_t end);
/* A scan has found such memory; returns whether it is served from now on. */
bool hugetlb_adopt(struct task *task, struct region *region);
/* A range was moved: what is served there goes on being served. */
void hugetlb_remap(struct task *task, uint64_t from, uint64_t to, uint64_t length);
bool hugetlb_serves(struct task *task, uint64_t address);
enum fault_result hugetlb_fault(struct fault *fault);

/* ---- hand.c: which pages leave ---- */
/* What is gathered for one command. */
struct batch {
	struct exchange_run runs[EXCHANGE_RUNS];
	uint32_t n, max, n_runs; /* pages, runs */
	uint32_t n_shared; /* pages that other tasks have too */
	bool refused;      /* one of them has refused to leave before */
	uint64_t region; /* start of the region that the last run is in: MOVE takes no more than one */
	bool exec;
	enum victim_source source;
	bool huge;   /* it is one huge page */
	bool splits; /* there is no place for a huge page: its pages leave singly */
};
/* There is nothing to take, for a while; and is that still so? */
void hand_rest(struct task *task);
bool hand_rests(const struct task *task);
/* Fills the batch from its source, if that is the queue, or from where the hand stands; it may stay
 * empty. Where the hand meets a huge page
 * it stops (hand.at_huge): that leaves with an empty batch of LEAF_WORDS pages. */
void hand_gather(struct task *task, struct batch *batch);

/* ---- cluster.c: huge pages as a whole ---- */
bool cluster_serves(const struct task *task, const struct batch *batch);
/* Where in [start, end) the next huge page begins; end: there is none, or they leave singly. */
uint64_t cluster_next(const struct task *task, const struct batch *batch, uint64_t start,
		      uint64_t end);
/* Offers the huge page at `address`; false: the batch is full, or must be sent first. */
bool cluster_offer(struct task *task, struct batch *batch, uint64_t region, uint64_t address,
		   uint64_t *ret_at);
/* A command has ended of which so many pages left. */
void cluster_left(struct task *task, const struct command *command, uint32_t moved);
/* May all of the leaf that is out come in, without anything having to leave for it? */
bool cluster_fits(const struct fault *fault, const struct leaf *leaf);
/* Brings in what of the leaf is still out. */
void cluster_fill(struct fault *fault, struct leaf *leaf);

/* ---- writeback.c: from frames to slots ---- */
void writeback_command(struct task *task, const struct command *command);

/* ---- evict.c: pages out ---- */
void evict_group(struct group *group);
void evict_harvest(struct task *task);  /* results of moved commands; gate held, or agent dead */
void evict_complete(struct task *task); /* commands that are copied */
void evict_frame_drop(struct task *task, uint32_t frame); /* its word has gone another way */
bool evict_retry_marks(struct task *task); /* markers that an event prevented */

/* ---- adopt.c: which memory there is ---- */
int adopt_sentinel(struct task *task);
void adopt_scan(struct task *task);
/* Is all in the range that can be paged registered, as far as it lets itself be? */
bool adopt_complete(struct task *task, uint64_t start, uint64_t end);
void group_arm(struct group *group); /* registers the memory of its tasks; once is for ever */
void adopt_sample(struct group *group); /* statm of all tasks, limit, eviction, waiters */
/* Room for the programs of a group, pages. */
uint64_t group_room(const struct group *group);
/* Would the limit still not be near if so many pages came in? */
bool group_is_easy(const struct group *group, uint64_t pages);
void group_overhead(struct group *group);
void group_wake(struct group *group); /* waiters, as far as there is room */
void group_publish(struct group *group);

/* ---- attach.c: tasks come and go ---- */
struct task *task_create(struct group *group);
int task_make_exchange(struct task *task);
void task_watch(struct task *task);  /* polls its descriptors */
void task_end(struct task *task);    /* begins; task_reap ends it when nothing is under way */
bool task_reap(struct task *task);
void task_broken(struct task *task, int error); /* cannot be served: killed, said, ended */
