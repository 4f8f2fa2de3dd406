#include "sys/blockdev.h"

#include <errno.h>
#include <linux/fs.h>
#include <stddef.h>
#include <sys/ioctl.h>

int blockdev_size(int fd, uint64_t *ret)
{
	return ioctl(fd, BLKGETSIZE64, ret) ? -errno : 0;
}
