/*
 * The file that a trace is: a header, then records. upager-trace(5) says the same in other words.
 *
 * A record begins with a byte, its kind. Then come variable-length integers (seven bits in each byte, the
 * lowest first; the eighth bit: more follow): the nanoseconds since the record before, or, for the first,
 * since header.started; and those fields that TRACE_KINDS has for the kind, in this order:
 *
 *   T  task     number of the task
 *   I  tid      of the thread, in its own pid namespace; 0: not known
 *   P  address  number of its page, as the difference to that of the last record that has one (zigzag:
 *               0, -1, 1, -2 are 0, 1, 2, 3)
 *   N  pages    how many, from there on
 *   H  how      see the kind
 *   A  a, B  b  see the kind
 *
 * A file that ends anywhere can be read up to there.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TRACE_MAGIC      0x3165636172747075ull /* "uptrace1" */
#define TRACE_VERSION    1u
#define TRACE_RECORD_MAX 81u /* bytes */

enum trace_field {
	TRACE_T = 1 << 0,
	TRACE_I = 1 << 1,
	TRACE_P = 1 << 2,
	TRACE_N = 1 << 3,
	TRACE_H = 1 << 4,
	TRACE_A = 1 << 5,
	TRACE_B = 1 << 6,
};
#define TRACE_RUN (TRACE_T | TRACE_P | TRACE_N)
#define TRACE_IO  (TRACE_T | TRACE_N | TRACE_H | TRACE_A | TRACE_B)

/* Kinds are numbered from 1; 0 is no record.
 *
 *   TASK      one is there, has come, or has said who it is: tid of its agent, a = pid (0: not yet known),
 *             b = the task it was forked from
 *   GONE      the task has ended; so have its faults
 *   FAULT     its message has been read: how = enum trace_leaf, a = enum trace_access
 *   WAIT      for the first time it could not be answered: how = enum trace_wait
 *   OUTCOME   how = enum trace_outcome, a = nanoseconds that deciding took. The thread goes on, unless
 *             it was `major` or `parked`: then at the next IN, WOKEN or COPIED that has its page; or
 *             `none`: then the next OUTCOME is the fault's
 *   IN        pages have come in, those that were asked for and those that came along: how = enum
 *             trace_leaf that they were
 *   WOKEN     who waits for these pages looks again
 *   EVICT     a command to the agent: a = its number; one record for each run
 *   EVICTED   … has moved: a = its number, b = pages of the run that left, how = enum exchange_result of
 *             the first that did not, 0: all did
 *   COPIED    … is done: the pages are in frames: a = its number
 *   RECLAIM   frames of pages on standby are taken: from now on they rest in their slots alone
 *   WRITE     to a tier begins: how = tier, a = first slot, b = 0
 *   WRITTEN   … has ended: b = errno
 *   READ      from a tier begins, or (tier 0) from a file: a = first slot, or page of the file
 *             b = 1: ahead of a stream, nobody waits for it
 *   READ_DONE … has ended: b = errno
 *   READ_LOST nobody came in time for what was read ahead
 *   FORK, REMAP (a = page number it went to), REMOVE (how = 1: of the agent's own window), UNMAP: events
 *   ARMED     the limit is near: memory is registered
 *   LIMIT     a = pages
 *   RESIDENT  a sample: pages = evicted, a = of the programs, b = of frames
 *   LOST      a = records that had no room, just here
 *   END       the trace has ended: a = records before this one, b = how many had no room
 */
#define TRACE_KINDS(X)                                                                             \
	X(TASK, task, TRACE_T | TRACE_I | TRACE_A | TRACE_B)                                       \
	X(GONE, gone, TRACE_T)                                                                     \
	X(FAULT, fault, TRACE_T | TRACE_I | TRACE_P | TRACE_H | TRACE_A)                           \
	X(WAIT, wait, TRACE_T | TRACE_I | TRACE_P | TRACE_H)                                       \
	X(OUTCOME, outcome, TRACE_T | TRACE_I | TRACE_P | TRACE_H | TRACE_A)                       \
	X(IN, in, TRACE_RUN | TRACE_H)                                                             \
	X(WOKEN, woken, TRACE_RUN)                                                                 \
	X(EVICT, evict, TRACE_RUN | TRACE_A)                                                       \
	X(EVICTED, evicted, TRACE_RUN | TRACE_H | TRACE_A | TRACE_B)                               \
	X(COPIED, copied, TRACE_RUN | TRACE_A)                                                     \
	X(RECLAIM, reclaim, TRACE_RUN)                                                             \
	X(WRITE, write, TRACE_IO)                                                                  \
	X(WRITTEN, written, TRACE_IO)                                                              \
	X(READ, read, TRACE_IO | TRACE_P)                                                          \
	X(READ_DONE, read_done, TRACE_IO | TRACE_P)                                                \
	X(READ_LOST, read_lost, TRACE_RUN)                                                         \
	X(FORK, fork, TRACE_T)                                                                     \
	X(REMAP, remap, TRACE_RUN | TRACE_A)                                                       \
	X(REMOVE, remove, TRACE_RUN | TRACE_H)                                                     \
	X(UNMAP, unmap, TRACE_RUN)                                                                 \
	X(ARMED, armed, 0)                                                                         \
	X(LIMIT, limit, TRACE_A)                                                                   \
	X(RESIDENT, resident, TRACE_N | TRACE_A | TRACE_B)                                         \
	X(LOST, lost, TRACE_A)                                                                     \
	X(END, end, TRACE_A | TRACE_B)

enum trace_kind {
	TRACE_NOTHING,
#define X(NAME, name, fields) TRACE_##NAME,
	TRACE_KINDS(X)
#undef X
	TRACE_N_KINDS,
};

/* What the page's word was: which branch of the fault tree (docs/tree.md). `same`: swap, but filled with
 * one pattern; `file`: of an image. */
#define TRACE_LEAVES(X)                                                                            \
	X(none) X(present) X(evicting) X(standby) X(swap) X(filling) X(poison) X(same) X(file)     \
	X(sentinel) X(hugetlb)
enum trace_leaf {
#define X(name) TRACE_LEAF_##name,
	TRACE_LEAVES(X)
#undef X
};

/* The counters that faults move; of these names, upager stat tells the meaning. */
#define TRACE_OUTCOMES(X)                                                                          \
	X(zero) X(minor) X(major) X(parked) X(wp_reuse) X(race) X(spurious) X(poisoned)            \
	X(gone) X(handshake)
enum trace_outcome {
	TRACE_OUTCOME_none, /* it has joined the reading of a file */
#define X(name) TRACE_OUTCOME_##name,
	TRACE_OUTCOMES(X)
#undef X
};

enum trace_access { TRACE_READS = 0, TRACE_WRITES = 1, TRACE_PROTECTED = 2, TRACE_BY_AGENT = 4 };
enum trace_wait { TRACE_FOR_EVENT = 1, TRACE_FOR_ROOM = 2 };

struct trace_header {
	uint64_t magic;
	uint32_t version;
	uint32_t size;    /* of the header, bytes: there the records begin */
	uint64_t started; /* CLOCK_MONOTONIC, ns */
	int64_t time;     /* of the same moment: nanoseconds since 1970 */
	int32_t pid, tid; /* of the daemon and of its worker */
	char group[72];
};

struct trace_record {
	uint64_t time; /* CLOCK_MONOTONIC, ns */
	uint64_t task;
	uint64_t address; /* bytes, of a page */
	uint64_t pages, a, b;
	uint32_t tid;
	uint8_t kind, how;
};

/* What a record is told as the difference to. At the beginning {.time = header.started}. */
struct trace_state {
	uint64_t time, page;
};

/* 0; -EBADMSG: no trace; -EPROTONOSUPPORT: of another version. */
int trace_header_check(const struct trace_header *header);
/* => r->time is not before the last record's. Returns how many bytes it took. */
size_t trace_encode(struct trace_state *state, const struct trace_record *r,
		    uint8_t to[static TRACE_RECORD_MAX]);
/* Returns how many bytes the record took; 0: it does not end within `length`; -EBADMSG: it is none.
 * Fields that it does not have are 0. */
ssize_t trace_decode(struct trace_state *state, const uint8_t *from, size_t length,
		     struct trace_record *ret);
