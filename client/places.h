/*
 * Where things are: the daemon's executable, the preload library, the daemons' sockets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The path of upagerd / of libupager-preload.so: $UPAGERD / $UPAGER_PRELOAD, beside this
 * executable in the build tree, or where they are installed. NULL after saying where it looked. */
char *place_daemon(void);
char *place_preload(void);

/* Sockets on which a daemon might listen: the system's, the user's, those of embedded daemons. */
struct places {
	char **path;
	size_t n;
};
void places_sockets(struct places *ret, bool embedded_too);
void places_done(struct places *places);
