#include "sys/nowait.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t nowait_read(int fd, void *to, size_t size)
{
	struct iovec iov = {.iov_base = to, .iov_len = size};
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	/* Kernels that don't know it for this kind of descriptor: the flags are trusted there. */
	if (n < 0 && (errno == EOPNOTSUPP || errno == EINVAL || errno == ESPIPE))
		n = read(fd, to, size);
	return n < 0 ? -errno : n;
}
