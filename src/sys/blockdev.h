/* Block devices. */
#pragma once

#include <stdint.h>

/* Bytes of an open block device. 0 or -errno. */
int blockdev_size(int fd, uint64_t *ret);
