/* Connections to the session socket. Async-signal-safe. */
#pragma once

#include <stdint.h>
#include <sys/un.h>

/* The session socket that stands beside the control socket `path`. -ENAMETOOLONG. */
int daemon_address(const char *path, struct sockaddr_un *ret);

/* Connects and hears the offer: returns the socket, or -errno. Each answer may take five seconds.
 * *ret_device: /dev/userfaultfd, or -1 if it was not offered. Both outputs may be NULL. */
int daemon_connect(const struct sockaddr_un *address, int *ret_device, uint32_t *ret_give_up_s);
