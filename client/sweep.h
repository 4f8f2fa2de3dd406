/*
 * Runtime directories of embedded daemons: made under a lock, removed when the lock is free.
 *
 * A run directory holds `lock` (flocked by `upager run` and, through the inherited descriptor, by
 * its daemon), `run.json` (what lies outside of it and goes with it) and what the daemon keeps.
 */
#pragma once

#include <stdint.h>

/* Makes a locked run directory, mode 0711. 0 and *ret_dir (free it), *ret_lock (a CLOEXEC
 * descriptor), or -1 after saying why. */
int run_directory_make(char **ret_dir, int *ret_lock);

/* Notes that `swap` (may be NULL) was made for this run and that its socket is `socket` (NULL if
 * it is inside); so that they go when the directory does. 0 or -errno. */
int run_directory_note(const char *dir, const char *swap, const char *socket);

/* Removes the directory and what was noted; quiet about what is gone already. */
void run_directory_remove(const char *dir);

/* Removes what crashed runs of this user have left. */
void run_directories_sweep(void);
