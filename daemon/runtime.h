/*
 * Where the daemon's files live while it runs.
 *
 * The runtime directory holds the sockets and a lock. The pager's state needs a tmpfs: the runtime
 * directory if it is on one, else a private directory /dev/shm/upager-PID-XXXXXX. An embedded
 * daemon that was given no socket lives in such a directory altogether. Each private directory
 * holds a `lock` (flock'd as long as its daemon lives) and `leftovers`: "DEVICE INODE PATH" of
 * swap files outside it. A directory whose lock is free was left by a crash, and is swept.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>

struct failure;
struct pager_swap;

#define RUNTIME_SHM "/dev/shm"

struct runtime {
	char dir[PATH_MAX];
	char socket[PATH_MAX], session[PATH_MAX];
	char state[PATH_MAX];	    /* the pager's state_dir */
	char private_dir[PATH_MAX]; /* "" = none */
	bool dir_made, state_made, bound, opened;
	int lock, private_lock;
};

/* socket NULL = an embedded daemon's private place; runtime_dir NULL = the socket's directory. shm
 * is RUNTIME_SHM, but for tests. -EADDRINUSE: another daemon holds the lock. */
int runtime_open(struct runtime *runtime, const char *socket, const char *runtime_dir,
		 const char *shm, struct failure *failure);
/* Removes what was made: sockets (if bound), state, directories. Also after a failed open. */
void runtime_close(struct runtime *runtime);
/* Notes a file that a sweep shall remove if this daemon crashes; nothing without a private dir. */
int runtime_add_leftover(const struct runtime *runtime, const char *path);
/* Removes what crashed daemons of this user left in shm; returns how many directories. */
unsigned runtime_sweep(const char *shm);
