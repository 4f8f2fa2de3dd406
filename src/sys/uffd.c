#include "sys/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sys/kernel.h"
#include "sys/nowait.h"

#define REQUIRED                                                                                   \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |     \
	 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_THREAD_ID)
#define EVICT (UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_MOVE)
#define FILES                                                                                      \
	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

enum uffd_verdict uffd_classify(ssize_t result)
{
	if (result >= 0)
		return UFFD_DONE;
	switch (-result) {
	case EAGAIN:
	case EINTR:
		return UFFD_RETRY;
	case ENOMEM:
		return UFFD_SHORT;
	case EEXIST:
		return UFFD_EXISTS;
	case EFAULT:
		return UFFD_ABSENT;
	case ENOENT:
	case EINVAL:
	case EBUSY:
	case EPERM:
	case ENOSPC:
		return UFFD_CHANGED;
	case ESRCH:
		return UFFD_ENDED;
	default:
		return UFFD_BROKEN;
	}
}

int uffd_open(int device)
{
	int fd;

	if (device >= 0)
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	else
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int uffd_handshake(int uffd, struct uffd_features *wanted)
{
	const uint64_t optional = (wanted->poison ? UFFD_FEATURE_POISON : 0) |
				  (wanted->evict ? EVICT : 0) | (wanted->files ? FILES : 0);
	/* In the order in which the kernel learned them: what an older one does not know fails the
	 * call, which may then be made again. */
	static const uint64_t known[] = {
		EVICT | UFFD_FEATURE_POISON | FILES,
		UFFD_FEATURE_POISON | FILES,
		FILES,
		0,
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		uint64_t features = optional & known[i];
		struct uffdio_api api = {.api = UFFD_API, .features = REQUIRED | features};

		if (ioctl(uffd, UFFDIO_API, &api) == 0) {
			wanted->evict = features & UFFD_FEATURE_MOVE;
			wanted->poison = features & UFFD_FEATURE_POISON;
			wanted->files = features & UFFD_FEATURE_MINOR_SHMEM;
			return 0;
		}
		if (errno != EINVAL)
			return -errno;
	}
	return -EOPNOTSUPP;
}

static int register_range(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffdio_register reg = {.range = {.start = start, .len = length}, .mode = mode};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

int uffd_register(int uffd, uint64_t start, uint64_t length)
{
	return register_range(uffd, start, length,
			      UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

int uffd_register_file(int uffd, uint64_t start, uint64_t length)
{
	return register_range(uffd, start, length,
			      UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
				      UFFDIO_REGISTER_MODE_WP);
}

int uffd_wake(int uffd, uint64_t start, uint64_t length)
{
	struct uffdio_range range = {.start = start, .len = length};

	return ioctl(uffd, UFFDIO_WAKE, &range) ? -errno : 0;
}

ssize_t uffd_copy(int uffd, uint64_t to, const void *from, uint64_t length, bool protect)
{
	struct uffdio_copy copy = {
		.dst = to,
		.src = (uintptr_t)from,
		.len = length,
		.mode = protect ? UFFDIO_COPY_MODE_WP : 0,
	};

	if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
		return copy.copy;
	return copy.copy > 0 ? copy.copy : -errno;
}

ssize_t uffd_zeropage(int uffd, uint64_t to, uint64_t length)
{
	struct uffdio_zeropage zero = {.range = {.start = to, .len = length}};

	if (ioctl(uffd, UFFDIO_ZEROPAGE, &zero) == 0)
		return zero.zeropage;
	return zero.zeropage > 0 ? zero.zeropage : -errno;
}

ssize_t uffd_continue(int uffd, uint64_t start, uint64_t length, bool protect)
{
	struct uffdio_continue cont = {
		.range = {.start = start, .len = length},
		.mode = protect ? UFFDIO_CONTINUE_MODE_WP : 0,
	};

	if (ioctl(uffd, UFFDIO_CONTINUE, &cont) == 0)
		return cont.mapped;
	return cont.mapped > 0 ? cont.mapped : -errno;
}

int uffd_protect(int uffd, uint64_t start, uint64_t length, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = start, .len = length},
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

ssize_t uffd_poison(int uffd, uint64_t start, uint64_t length)
{
	struct uffdio_poison poison = {.range = {.start = start, .len = length}};

	if (ioctl(uffd, UFFDIO_POISON, &poison) == 0)
		return poison.updated;
	return poison.updated > 0 ? poison.updated : -errno;
}

void uffd_wait(int uffd, uint64_t ns)
{
	struct pollfd poll_fd = {.fd = uffd, .events = POLLIN};
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

	ppoll(&poll_fd, 1, &ts, NULL);
}

ssize_t uffd_read(int uffd, struct uffd_msg *messages, size_t max)
{
	ssize_t got = nowait_read(uffd, messages, max * sizeof(*messages));

	if (got < 0)
		return got == -EAGAIN || got == -EINTR ? 0 : got;
	return got / (ssize_t)sizeof(*messages);
}
