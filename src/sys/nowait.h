/*
 * Reads that never block, whatever the flags of the descriptor say: a client holds a duplicate of
 * its uffd and doorbell, and may clear O_NONBLOCK at any time.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Like read(2), but -errno; -EAGAIN if there is nothing to read now. */
ssize_t nowait_read(int fd, void *to, size_t size);
