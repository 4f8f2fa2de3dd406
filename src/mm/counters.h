/*
 * What is counted, for a task and summed for its group.
 *
 * Written by the owning worker alone, read by anyone (relaxed atomics): COUNTERS() lists name and
 * meaning once; the control socket, `upager stat` and the tests all go through it.
 * Invariant: messages = the sum of the outcomes + the messages still waiting.
 */
#pragma once

#include <stdint.h>

/* Outcomes: every uffd message moves exactly one of these. */
#define COUNTER_OUTCOMES(X)                                                                        \
	X(zero, "first touches answered with zeros")                                               \
	X(minor, "pages given without I/O (standby, same-filled, read ahead, of an image)")                  \
	X(major, "pages read from a tier or a file")                                             \
	X(parked, "faults that joined an operation already under way")                             \
	X(wp_reuse, "writes to protected pages let through")                                       \
	X(race, "pages found resolved when they were to be filled")                                \
	X(spurious, "messages about pages long resolved")                                          \
	X(poisoned, "pages that could not be brought back (SIGBUS)")                               \
	X(gone, "faults of a task that has ended")                                                 \
	X(handshake, "sentinel reads of forked children")                                          \
	X(fork, "fork events")                                                                     \
	X(remap, "remap events")                                                                   \
	X(remove, "remove events")                                                                 \
	X(unmap, "unmap events")

#define COUNTER_WORK(X)                                                                            \
	X(messages, "uffd messages read")                                                          \
	X(waited, "faults that waited for room")                                                   \
	X(evicted, "pages evicted")                                                                \
	X(clean, "pages evicted without a write")                                                  \
	X(same, "pages evicted into no slot (zero or same-filled)")                                \
	X(pages_out, "pages written to tiers")                                                     \
	X(pages_in, "pages read from tiers and files")                                             \
	X(compressed_out, "of the pages written, those that went to compressed memory")            \
	X(compressed_in, "of the pages read, those that came from compressed memory")              \
	X(readahead, "pages brought in before they were asked for")                                \
	X(readahead_lost, "pages read ahead that nobody came for in time")                         \
	X(huge_out, "huge pages that left whole")                                                  \
	X(huge_in, "huge pages that came back whole")                                              \
	X(cluster_fallback, "faults in a huge page that had no room to come back whole")           \
	X(standby_hits, "pages rescued from standby")                                              \
	X(activate, "pages that came back soon after they had left")                              \
	X(migrated, "pages moved to the memory node of the thread that touched them")              \
	X(reclaims, "fills that found no memory, so that more had to leave")                       \
	X(busy, "pages that refused to leave (pinned or shared)")                                  \
	X(stale, "eviction commands refused: an event came between")                               \
	X(unmarked, "pages moved out whose marker had to be set later")                            \
	X(put_back, "pages moved out and given back at once")                                      \
	X(scans, "walks over a client's maps")                                                     \
	X(retries, "uffd calls that met a pending event")                                          \
	X(overruns, "faults let through above the limit")

#define COUNTERS(X) COUNTER_OUTCOMES(X) COUNTER_WORK(X)

struct counters {
#define X(name, text) uint64_t name;
	COUNTERS(X)
#undef X
};

/* => called by the owner of the counters. */
#define count_add(counters, name, n)                                                               \
	__atomic_store_n(&(counters)->name, (counters)->name + (uint64_t)(n), __ATOMIC_RELAXED)
#define count(counters, name) count_add(counters, name, 1)
