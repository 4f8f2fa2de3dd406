/*
 * The agent: a twin of the client (it shares the address space, nothing else) that does what only
 * the client may do: move its pages out. It decides nothing.
 *
 * It runs without libc: no errno, no TLS, no stack protector, no memory that can be paged. What it
 * needs lies in a struct agent in shared memory, together with its stack.
 */
#pragma once

#include <stdint.h>

#include "proto/exchange.h"
#include "proto/session.h"

#define AGENT_STACK (32u << 10)
#define AGENT_NAME  "upager-agent" /* /proc/PID/comm */

struct agent {
	struct exchange *exchange;
	uint64_t exchange_size;
	uint64_t staging, staging_rwx; /* windows of EXCHANGE_BATCH pages; 0 = none */
	int uffd, socket, doorbell;
	uint32_t index;
	int32_t client;        /* its pid, in the client's namespace */
	uint32_t give_up_s;
	struct session_ready ready;
	struct { /* the daemon's commands are read once */
		struct exchange_run runs[EXCHANGE_RUNS];
		uint8_t result[EXCHANGE_BATCH];
		uint32_t n_runs, n_pages, first_frame, flags;
	} work;
};

/* The twin's life; clone(2)'s function. Does not return. */
int agent_main(void *agent);
