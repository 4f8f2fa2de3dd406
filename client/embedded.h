/*
 * A private daemon for one run: started, watched, and gone with everything it had.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct embedded_options {
	const char *config;  /* a configuration to derive from, or NULL */
	const char *swap;    /* swap file or device, "none", or NULL */
	uint64_t swap_size;  /* bytes, 0 = as large as seems useful */
	const char *socket;  /* where it shall listen, or NULL = wherever it likes */
	uint64_t compressed; /* bytes of compressed memory, 0 = as configured */
	uint64_t memory;     /* bytes; the limit of the run */
};

struct embedded {
	pid_t pid;   /* 0 = none */
	int pidfd;
	int channel; /* the ready line comes here; the daemon sees it close when we die */
	int log;     /* what it says, in memory */
	char *socket;
};
#define EMBEDDED_NONE ((struct embedded){.pidfd = -1, .channel = -1, .log = -1})

/* Starts upagerd and waits until it serves. 0, or -1 after saying why not. => embedded_end. */
int embedded_start(const struct embedded_options *options, struct embedded *ret);

/* The daemon has died: prints the last of its log and has removed what it left. */
void embedded_died(struct embedded *embedded);

/* Warnings that the daemon logged, if any. */
void embedded_print_log(const struct embedded *embedded);

/* Waits up to `patience_ms` for the daemon to end by itself. */
bool embedded_ended(struct embedded *embedded, int patience_ms);

/* Ends the daemon if it still runs; it removes everything of its own. Takes EMBEDDED_NONE. */
void embedded_end(struct embedded *embedded);

/* Lets the daemon live on for tasks that outlive the run. */
void embedded_leave(struct embedded *embedded);
