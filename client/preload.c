/*
 * The shim: what LD_PRELOAD brings into a client. It interposes nothing: its constructor attaches
 * the program to the daemon (attach.h).
 *
 * A program must never fail because of it: whatever goes wrong here, the program runs unpaged, and
 * says so only if UPAGER_DEBUG is set.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "connect.h"
#include "proto/session.h"

/* A filter may forbid what we do and kill for it. */
static bool has_seccomp_filter(void)
{
	char text[4096];
	const char *line;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return true;
	text[n] = 0;
	line = strstr(text, "\nSeccomp:");
	return line && strtol(line + 9, NULL, 10) != SECCOMP_MODE_DISABLED;
}

__attribute__((constructor)) static void shim_start(void)
{
	const char *path = getenv(SESSION_ENV_SOCKET), *key = getenv(SESSION_ENV_GROUP);
	struct sockaddr_un address;

	if (!path || !key || has_seccomp_filter() || daemon_address(path, &address) < 0)
		return;
	attach_program(&address, strtoull(key, NULL, 16), getenv("UPAGER_DEBUG") != NULL);
}
