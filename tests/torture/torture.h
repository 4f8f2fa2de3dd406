/*
 * The torture client: threads and forked children do random things to memory and check every byte.
 *
 * What a page must hold is not stored but recomputed: a struct page is a few words from which the
 * 4096 bytes follow. All of the client's own state stands in one MAP_SHARED block (`world`), which
 * no pager of private memory can spoil; a fork gives the child a private copy of that block.
 *
 * An actor is one thread and what it owns. Nobody else touches its regions; what several actors
 * share (struct shared) is divided among them page by page.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE      4096ul
#define WORDS     (PAGE / 8)
#define ACTORS    32
#define REGIONS   12 /* per actor */
#define BLOCKS    48 /* malloc blocks per actor */
#define LOG       64 /* operations remembered per actor */
#define CHILDREN  6  /* living children of one process */
#define MAX_DEPTH 2  /* of nested forks */
#define STREAMS   3  /* shared regions */
#define CLUSTER   4  /* pages of a shared region that go to one actor */
#define ROM_PAGES 1024
#define TALLY_PAGES 256
#define SIGNAL_PAGES 64
#define FILES        3    /* that are mapped; the last is never mapped shared */
#define MAPPED_PAGES 1024 /* of each */
#define FILE_COPIES  768  /* pages of private mappings of all actors: their copies stay resident */
#define VIEWS        8    /* shared mappings of one actor */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum page_flag {
	P_FREED = 1 << 0,    /* MADV_FREE: the old content or zeros, until written */
	P_GUARD = 1 << 1,    /* MADV_GUARD_INSTALL: any access is refused */
	P_RO = 1 << 2,       /* mprotect PROT_READ */
	P_NONE = 1 << 3,     /* mprotect PROT_NONE */
	P_ABSENT = 1 << 4,   /* not mapped (by us) */
	P_DONTFORK = 1 << 5, /* absent in a child */
	P_WIPE = 1 << 6,     /* zeros in a child */
	P_LOCKED = 1 << 7,   /* mlock */
	P_FILE = 1 << 8,     /* no copy yet: it holds what the file's page holds */
	P_TORN = 1 << 9,     /* whoever wrote it was killed: it holds anything, until written */
};
#define P_UNREADABLE (P_GUARD | P_NONE | P_ABSENT)
#define P_UNWRITABLE (P_UNREADABLE | P_RO)

/* content: bits 0–3 kind, 4–11 words changed since, 12–63 a number used once; 0 = zeros.
 * Content says nothing of the place, so pages can be copied and moved. */
struct page {
	uint64_t content;
	uint64_t before; /* the content before that, for the report only */
	uint32_t flags;
	uint32_t tag;  /* pages of one tag lie in one VMA of the kernel */
	uint32_t file; /* what it is a private mapping of: FILE_PAGE(); 0: anonymous */
};

enum content_kind { CONTENT_ZERO, CONTENT_RANDOM, CONTENT_SAME, CONTENT_PATTERN, CONTENT_TEXT,
		    CONTENT_KINDS };

enum region_kind {
	R_FREE,
	R_NORMAL,  /* VMA attributes change in parts of it */
	R_WHOLE,   /* stays one VMA: mremap works on all of it */
	R_HUGE,    /* aligned to 2 MiB, MADV_HUGEPAGE */
	R_SPARSE,  /* a page here and there in 1 TiB MAP_NORESERVE */
	R_DOWN,    /* MAP_GROWSDOWN */
	R_BRK,     /* the heap */
	R_PIN,     /* io_uring has it as a registered buffer */
	R_KINDS,
};

struct region {
	enum region_kind kind;
	uint32_t pages;  /* in use */
	uint64_t addr;
	uint64_t stride; /* bytes from page to page */
	uint64_t first;  /* its pages in world_pages() */
};

#define FILE_PAGE(number, page) (1 + (uint32_t)(number)*MAPPED_PAGES + (page))

/* A part of a file that is mapped shared. What it holds is the files' shadow, which is one for all
 * actors and processes: see files.c. */
struct view {
	uint64_t addr;
	uint32_t pages; /* 0: free */
	uint32_t file;  /* FILE_PAGE() of the first */
	uint32_t flags; /* P_RO, P_NONE, P_DONTFORK */
	bool fixed;     /* never writable: the descriptor was not */
};

struct block {
	uint8_t *data;
	uint64_t size, number;
};

struct log_entry {
	uint64_t number;
	uint64_t addr, addr2, bytes;
	int32_t op, region, result;
};

struct actor {
	unsigned index;
	uint64_t rng, number; /* number: the next content */
	uint64_t ops;         /* operations begun */
	uint64_t mapped;      /* pages of all regions */
	uint32_t tag;
	uint32_t forks;
	struct region regions[REGIONS];
	struct block blocks[BLOCKS];
	struct view views[VIEWS];
	struct log_entry log[LOG];
	uint64_t expect[WORDS]; /* scratch */
};

/* A region that all actors use, each its own clusters. */
struct shared {
	uint64_t addr;
	uint32_t pages;
	uint32_t pad;
	uint64_t first;
};

/* What the watchdog looks at: written by the actor's thread or the child that stands for it. */
struct beat {
	_Alignas(64) uint64_t count;
	int32_t op;
	pid_t pid;
	uint64_t number;
};

struct totals {
	uint64_t ops, verified, forks, spawns, signals;
};

struct world {
	uint64_t seed, size; /* size of this block, bytes */
	uint64_t pages_at;   /* offset of the struct page array */
	uint32_t capacity;   /* most pages of a region */
	uint32_t budget;     /* most pages of an actor */
	unsigned actors;
	bool single, verbose, hold, sigbus_ok, spoil;
	unsigned stall_s;
	const char *dir;
	pthread_rwlock_t lock; /* held for reading by each operation; unused in children */
	uint32_t stop, failed, fork_serial, alive;
	struct shared streams[STREAMS];
	uint64_t rom, tally, signal_pages; /* addresses */
	uint32_t tallies[ACTORS][TALLY_PAGES];
	struct page signal_shadow[SIGNAL_PAGES];
	uint64_t signal_expect[WORDS];
	uint32_t signal_busy, signal_pad;
	uint64_t signal_rng;
	uint64_t freed[64]; /* addresses that were unmapped of late, as hints */
	uint32_t freed_next;
	uint32_t brk_taken;
	struct beat beats[ACTORS];
	struct totals totals[ACTORS];
	uint32_t done[128], idle[128]; /* by operation */
	struct actor actor[ACTORS];
};

extern struct world *root; /* the first process's block: beats, totals, stop */
extern struct world *W;    /* this process's */
extern unsigned depth;     /* 0 = the first process */
extern bool complete;      /* the other actors' part of W is true in this process, too */

struct op {
	const char *name;
	unsigned weight;
	unsigned how;
	/* Returns 0, or -1 if there was nothing to do it on. */
	int (*run)(struct actor *a);
};
#define OP_ALONE    1u /* every other actor waits */
#define OP_THREADS  2u /* starts threads: not in --single */
#define OP_SHARED   4u /* needs the other actors' state to be true */
#define OP_PROCESS  8u /* starts processes */
extern struct op ops_touch[], ops_map[], ops_advice[], ops_io[], ops_process[], ops_shared[],
	ops_huge[], ops_file[], ops_save[];

/* page.c */
uint64_t mix64(uint64_t x);
uint64_t rnd(struct actor *a);
unsigned pick(struct actor *a, uint64_t n); /* 0 … n-1 */
bool chance(struct actor *a, unsigned one_in);
void content_make(uint64_t content, uint64_t *words);
uint64_t content_new(struct actor *a);
struct page *world_pages(struct world *w);
struct page *page_of(const struct region *r, unsigned i);
uint64_t *addr_of(const struct region *r, unsigned i);
void page_set(struct page *p, uint64_t content); /* a whole page was written */
void page_discard(struct page *p);               /* zeros, or what the file has */
void page_anew(struct page *p, uint32_t flags);  /* other memory is there, or none */
void page_write(struct actor *a, struct page *p, uint64_t *at);
void page_modify(struct actor *a, struct page *p, uint64_t *at);
void page_verify(struct actor *a, struct page *p, uint64_t *at);
bool page_discardable(const struct page *p);

/* region.c */
/* A free one, its shadow empty; NULL: none is, or the actor has enough. */
struct region *region_slot(struct actor *a, unsigned pages);
struct region *region_new(struct actor *a, enum region_kind kind);
void region_fill(struct actor *a, struct region *r, unsigned from);
void region_free(struct actor *a, struct region *r);
struct region *region_pick(struct actor *a, unsigned kinds); /* mask of 1 << kind, or NULL */
bool run_pick(struct actor *a, struct region *r, unsigned max, unsigned *start, unsigned *n);
bool run_without(const struct region *r, unsigned start, unsigned n, unsigned flags);
bool run_anonymous(const struct region *r, unsigned start, unsigned n);
bool run_one_vma(const struct region *r, unsigned start, unsigned n);
/* The run has become one VMA, or part of one. */
void run_tag(struct actor *a, struct region *r, unsigned start, unsigned n);
/* The run was cut out of its VMAs. What was in two stays in two, even if it is alike now: VMAs that
 * were written on their own never merge again. */
void run_split(struct actor *a, struct region *r, unsigned start, unsigned n);
extern unsigned verify_one_in; /* how many pages of those that region_verify & co. see */
void region_verify(struct actor *a, const struct region *r);
void actor_verify(struct actor *a); /* all it owns */
void world_verify(struct actor *a); /* all, the other actors' too */
void streams_make(void);
void shared_verify(struct actor *a, unsigned owner);
void blocks_verify(struct actor *a);
#define ALL_KINDS ((1u << R_KINDS) - 1)
#define PARTS	  (1u << R_NORMAL)

/* files.c: the files that are mapped, through the daemon or (without it) as ever */
void files_make(struct actor *a);
void files_end(struct actor *a); /* everything is in them */
/* Until it is let go, nobody else looks at this page of a file or stores there. False: somebody
 * does. A run: how many of n, from the first on. */
bool file_claim(uint32_t file);
unsigned file_claim_run(uint32_t file, unsigned n);
void file_release(uint32_t file, unsigned n);
void file_forsaken(pid_t pid); /* => the process has been killed */
struct page *file_shadow(uint32_t file);
unsigned file_left(uint32_t file); /* pages from it to the file's end */
/* Those of the file itself against their shadows, which are claimed. */
void file_compare(struct actor *a, uint32_t file, unsigned n);
enum file_how { FILE_PRIVATE, FILE_SHARED, FILE_FIXED };
/* NULL: this kernel's files cannot be served. */
void *file_map(struct actor *a, int fd, uint64_t offset, uint64_t bytes, enum file_how how);
void *file_map_pages(struct actor *a, uint32_t file, unsigned pages, enum file_how how);
void file_unmap(struct actor *a, void *at, uint64_t bytes);
void file_sync(struct actor *a, void *at, uint64_t bytes);
/* mapped: a file is, in all of the range. */
void file_advise(struct actor *a, void *at, uint64_t bytes, unsigned advice, bool mapped);
void *anonymous_map(struct actor *a, uint64_t bytes);
int temporary_file(struct actor *a, int flags);

/* ops_map.c */
void *remap(void *from, size_t old_size, size_t new_size, int flags, ...);

/* ops_file.c */
bool private_room(struct actor *a, unsigned more); /* for more pages that may be copied */
void views_verify(struct actor *a, const struct actor *whose);
void views_after_fork(struct actor *a);

/* ops_save.c */
void save_init(void); /* before there are threads */

/* ops_process.c */
void children_reap(struct actor *a, bool wait);

/* report.c */
void log_range(struct actor *a, uint64_t addr, uint64_t bytes);
void log_target(struct actor *a, uint64_t addr);
void beat(struct actor *a);
_Noreturn void fail_page(struct actor *a, const struct page *p, const uint64_t *at);
_Noreturn void fail(struct actor *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define check(a, condition)                                                                        \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail(a, "%s:%d: %s: %m", __FILE__, __LINE__, #condition);                  \
	} while (0)
bool touch_fails(volatile uint64_t *at); /* with SIGBUS */
void signals_init(void);
void signals_thread(struct actor *a); /* an alternate stack for this thread */
void watchdog_start(void);
void alarm_arm(void);

/* torture.c */
const char *op_name(int op);
void act(struct actor *a); /* one operation */
