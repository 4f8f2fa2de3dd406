/*
 * A private daemon for one run: started, watched, and gone with everything it had.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct embedded_options {
	const char *config;  /* a configuration to derive from, or NULL */
	const char *swap;    /* swap file or device, or NULL */
	uint64_t swap_size;  /* bytes, 0 = as large as seems useful */
	const char *socket;  /* where it shall listen, or NULL = in its runtime directory */
	uint64_t memory;     /* bytes; the limit of the run */
};

struct embedded {
	pid_t pid;    /* 0 = none */
	int pidfd;
	int channel;  /* the ready line came here; the daemon sees it close when we die */
	int lock;
	char *dir, *socket;
};

/* Sweeps what crashed runs left, starts upagerd and waits until it serves. 0, or -1 after saying
 * why not. => embedded_end. */
int embedded_start(const struct embedded_options *options, struct embedded *ret);

/* The daemon has died: prints the last of its log. Removes what it left. */
void embedded_died(struct embedded *embedded);

/* Waits up to `patience_ms` for the daemon to end by itself. */
bool embedded_ended(struct embedded *embedded, int patience_ms);

/* Ends the daemon if it runs still, and removes everything of it. */
void embedded_end(struct embedded *embedded);

/* Lets the daemon live on for tasks that outlive the run: it cleans up after itself. */
void embedded_leave(struct embedded *embedded);
