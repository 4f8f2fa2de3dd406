/* The two listening sockets: inherited from systemd, or made here. */
#pragma once

struct failure;

/* A listening socket of the type (SOCK_STREAM, SOCK_SEQPACKET) that systemd passed, or -1. */
int listen_inherited(int type);

/* Binds (does not listen) a CLOEXEC, non-blocking socket of mode 0666 at path. A dead daemon's
 * socket is removed first; -EADDRINUSE: someone listens there, and *failure says who; -EEXIST:
 * something else has that name. */
int listen_bind(const char *path, int type, struct failure *failure);
