#include "connect.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "proto/session.h"

#define HANDSHAKE 5 /* seconds that the daemon may take for each answer */

int daemon_address(const char *path, struct sockaddr_un *ret)
{
	if (strlen(path) + sizeof(SESSION_SUFFIX) > sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	stpcpy(stpcpy(ret->sun_path, path), SESSION_SUFFIX);
	return 0;
}

int daemon_connect(const struct sockaddr_un *address, int *ret_device, uint32_t *ret_give_up_s)
{
	const struct timeval limit = {.tv_sec = HANDSHAKE};
	int r, device = -1, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct session_offer offer;
	unsigned n_fds = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? -errno : 0;
	if (r == 0)
		r = session_receive(fd, SESSION_OFFER, &offer, sizeof(offer), &device, 1, &n_fds,
				    NULL);
	if (r < 0) {
		close(fd);
		return r;
	}
	if (ret_device)
		*ret_device = n_fds ? device : -1;
	else if (n_fds)
		close(device);
	if (ret_give_up_s)
		*ret_give_up_s = offer.give_up_s;
	return fd;
}
