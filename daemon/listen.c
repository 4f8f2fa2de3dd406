#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "failure.h"

int listen_inherited(int type)
{
	int n = sd_listen_fds(0);

	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++)
		if (sd_is_socket(fd, AF_UNIX, type, 1) > 0) {
			fcntl(fd, F_SETFD, FD_CLOEXEC);
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
			return fd;
		}
	return -1;
}

static int make_address(const char *path, struct sockaddr_un *ret, struct failure *failure)
{
	if (strlen(path) >= sizeof(ret->sun_path))
		return fail(failure, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes",
			    path, sizeof(ret->sun_path) - 1);
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	strcpy(ret->sun_path, path);
	return 0;
}

/* 0: nothing is in the way any more. */
static int remove_stale(const struct sockaddr_un *address, int type, struct failure *failure)
{
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);
	struct stat st;
	int fd, r;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT
			   ? 0
			   : fail(failure, -errno, "%s: %s", address->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return fail(failure, -EEXIST, "%s: exists and is not a socket", address->sun_path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(failure, -errno, "socket: %s", strerror(errno));
	r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? errno : 0;
	if (r == 0)
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	close(fd);
	if (r == 0 || r == EAGAIN)
		return fail(failure, -EADDRINUSE, "another upagerd (pid %d) listens on %s",
			    (int)peer.pid, address->sun_path);
	if (r != ECONNREFUSED)
		return fail(failure, -r, "%s: %s", address->sun_path, strerror(r));
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return fail(failure, -errno, "%s: can't remove a dead daemon's socket: %s",
			    address->sun_path, strerror(errno));
	return 0;
}

int listen_bind(const char *path, int type, struct failure *failure)
{
	struct sockaddr_un address;
	int fd, r = make_address(path, &address, failure);

	if (r >= 0)
		r = remove_stale(&address, type, failure);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(failure, -errno, "socket: %s", strerror(errno));
	/* Between bind and listen nobody can connect, so the mode is never seen half set. */
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(path, 0666) < 0) {
		r = fail(failure, -errno, "%s: can't make the socket: %s", path, strerror(errno));
		close(fd);
		return r;
	}
	return fd;
}
