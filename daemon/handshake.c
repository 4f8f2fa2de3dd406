#include "handshake.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "sys/pidfd.h"

static bool is_proc_file(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

static bool is_pipe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

bool handshake_sort_fds(const struct session_hello *hello, const int *got, unsigned n_got,
			int fds[SESSION_FDS])
{
	unsigned needed = (1u << SESSION_FD_UFFD) - 1, next = 0;

	if (!hello->token)
		needed |= 1u << SESSION_FD_UFFD;
	if (hello->fd_mask >> SESSION_FDS || (hello->fd_mask & needed) != needed ||
	    (unsigned)__builtin_popcount(hello->fd_mask) != n_got)
		return false;
	for (unsigned i = 0; i < SESSION_FDS; i++)
		fds[i] = hello->fd_mask & (1u << i) ? got[next++] : -1;
	for (unsigned i = SESSION_FD_MAPS; i <= SESSION_FD_MEM; i++)
		if (!is_proc_file(fds[i]))
			return false;
	return is_pipe(fds[SESSION_FD_LIFELINE]);
}

int handshake_check_agent(const struct session_ready *ready, unsigned seen, pid_t client,
			  pid_t sender)
{
	if (ready->index >= SESSION_TWINS || seen & (1u << ready->index))
		return -EPROTO;
	if (ready->staging % 4096 || ready->staging_rwx % 4096)
		return -EINVAL;
	for (unsigned i = 0; i < 4; i++)
		if (ready->exclude[i][0] > ready->exclude[i][1])
			return -EINVAL;
	if (sender <= 0 || sender == client)
		return -EPROTO;
	/* Kernels without kcmp, and a client we may not look at, leave nothing to compare. */
	return pidfd_same_vm(client, sender) == 0 ? -ESTALE : 0;
}
