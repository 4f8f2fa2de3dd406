/*
 * The exchange: a memfd shared by one task's agent and the daemon.
 *
 *   0            struct exchange: gate, epoch, command ring
 *   FRAMES       frames: pages on their way out, or on standby
 *
 * The daemon makes it (sealed against shrinking) and trusts nothing in it: it keeps its own copy
 * of every command, checks every value it reads, and a wild client spoils only its own pages.
 *
 * The gate is held by whoever moves pages (the agent) or reads the uffd (the daemon), never both:
 * MOVE does not ask whether its source is still the mapping that the command meant, but answers
 * EAGAIN while an event is unread. The epoch dates commands: the daemon raises it, holding the
 * gate, with every event that changed the address space; the agent refuses older commands.
 *
 * A command that takes longer is interrupted for the daemon: between two pieces of it the agent says
 * how far it has come, and hands the gate over.
 *
 *   gate:  FREE → AGENT → FREE            the agent moves pages
 *          FREE → DAEMON → FREE           the daemon reads the uffd
 *          AGENT → AGENT|WANTED → DAEMON  handed over, with a doorbell
 *
 * A command:  EMPTY → POSTED (daemon) → TAKEN → MOVED (results valid) → COPIED (frames valid, agent)
 *             → EMPTY (daemon).
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define EXCHANGE_MAGIC    0x6567616863786575ull
#define EXCHANGE_VERSION  3u
#define EXCHANGE_BATCH    512u     /* pages of one command, and of a staging window: a huge page */
#define EXCHANGE_RUNS     64u      /* runs of one command */
#define EXCHANGE_COMMANDS 4u       /* commands under way; a power of two */
#define EXCHANGE_FRAMES   (64u << 10) /* offset of frame 0, bytes */
#define EXCHANGE_FRAMES_MAX 16384u /* 64 MiB */

enum exchange_gate {
	EXCHANGE_GATE_FREE = 0,
	EXCHANGE_GATE_AGENT = 1,
	EXCHANGE_GATE_DAEMON = 2,
	EXCHANGE_GATE_WANTED = 4, /* with AGENT */
};

enum exchange_state {
	EXCHANGE_EMPTY,
	EXCHANGE_POSTED,
	EXCHANGE_TAKEN,
	EXCHANGE_MOVED,
	EXCHANGE_COPIED,
};

enum exchange_flag {
	EXCHANGE_EXEC = 1,     /* use the rwx staging window */
	EXCHANGE_POPULATE = 2, /* make pages exclusive first (they were shared by a fork) */
	EXCHANGE_HUGE = 4,     /* one run, a huge page: what refuses, refuses as a whole */
};

enum exchange_result {
	EXCHANGE_PENDING,
	EXCHANGE_OUT,          /* moved out, marker set */
	EXCHANGE_OUT_UNMARKED, /* moved out, but an event came before the marker */
	EXCHANGE_BUSY,         /* pinned, or shared with a forked process */
	EXCHANGE_GONE,         /* nothing there to move */
	EXCHANGE_STALE,        /* refused: the epoch has passed or an event is pending */
	EXCHANGE_DENIED,       /* this range can't be moved (locked, other protection) */
};

struct exchange_run {
	uint64_t address;
	uint64_t pages;
};

struct exchange_command {
	_Atomic uint32_t state; /* enum exchange_state */
	uint32_t flags;         /* enum exchange_flag */
	uint64_t epoch;
	uint32_t n_runs, n_pages;
	uint32_t first_frame; /* page i of the command goes to frame first_frame + i */
	_Atomic uint32_t settled; /* so many of its first pages have their result (agent) */
	struct exchange_run runs[EXCHANGE_RUNS];
	uint8_t result[EXCHANGE_BATCH]; /* enum exchange_result */
};

struct exchange {
	uint64_t magic;
	uint32_t version;
	uint32_t n_frames;
	_Atomic uint32_t gate;    /* futex */
	_Atomic uint32_t posted;  /* futex: commands posted ever; the agent waits on it */
	_Atomic uint32_t taken;   /* commands finished ever, by whichever twin */
	_Atomic uint32_t active;  /* futex: index of the twin that works */
	_Atomic uint64_t epoch;
	_Atomic uint32_t sleeping; /* the agent waits for `posted` */
	_Atomic uint32_t goodbye;  /* the daemon ends in good order: agents leave */
	struct exchange_command commands[EXCHANGE_COMMANDS];
};

_Static_assert(sizeof(struct exchange) <= EXCHANGE_FRAMES, "commands fit before the frames");

static inline uint64_t exchange_frame_offset(uint32_t frame)
{
	return EXCHANGE_FRAMES + (uint64_t)frame * 4096;
}
