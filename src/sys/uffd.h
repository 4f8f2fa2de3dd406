/*
 * userfaultfd: every ioctl on one, as a function that returns bytes done or -errno.
 *
 * Partial progress is a value: a call that did some pages and then met an obstacle returns the
 * bytes done; the next call, begun there, returns the obstacle's -errno.
 * Ranges are page aligned. See ioctl_userfaultfd(2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct uffd_msg;

/* What a uffd can do, from UFFDIO_API's answer. */
struct uffd_features {
	bool evict; /* UFFDIO_MOVE, and markers (WP_UNPOPULATED) */
	bool poison;
	bool files; /* memfd mappings: missing, minor and protected pages are told of */
};

/* What an -errno of a uffd call means; nobody else looks at one. */
enum uffd_verdict {
	UFFD_DONE,    /* no error */
	UFFD_RETRY,   /* an event is pending: drain, then again */
	UFFD_SHORT,   /* no memory: something must leave, then again */
	UFFD_EXISTS,  /* something is mapped there already */
	UFFD_CHANGED, /* the range is not (or no longer) registered as it was */
	UFFD_ABSENT,  /* what the range maps has no such page */
	UFFD_ENDED,   /* the address space is gone */
	UFFD_BROKEN,  /* a mistake of ours */
};
enum uffd_verdict uffd_classify(ssize_t result);

/* A new uffd of the calling process (O_CLOEXEC | O_NONBLOCK), from an open /dev/userfaultfd or, if
 * that is -1, from the system call. */
int uffd_open(int device);

/* The UFFDIO_API handshake with the events and features we use: of the optional ones those that are
 * in *wanted and that the kernel has; *wanted says which they are. -EOPNOTSUPP: something that we
 * cannot do without is missing. */
int uffd_handshake(int uffd, struct uffd_features *wanted);

int uffd_register(int uffd, uint64_t start, uint64_t length);
/* A mapping of a memfd or of huge pages: also pages that the file has, but the mapping not, are told
 * of. */
int uffd_register_file(int uffd, uint64_t start, uint64_t length);
int uffd_wake(int uffd, uint64_t start, uint64_t length);

/* Installs copies of `from` and wakes; protect: write-protected. */
ssize_t uffd_copy(int uffd, uint64_t to, const void *from, uint64_t length, bool protect);
ssize_t uffd_zeropage(int uffd, uint64_t to, uint64_t length);
/* Maps pages that the memfd behind the range has, and wakes; protect: write-protected. */
ssize_t uffd_continue(int uffd, uint64_t start, uint64_t length, bool protect);
/* All or nothing; unprotecting wakes. */
int uffd_protect(int uffd, uint64_t start, uint64_t length, bool protect);
ssize_t uffd_poison(int uffd, uint64_t start, uint64_t length);

/* Until there is a message, so long at most. */
void uffd_wait(int uffd, uint64_t ns);

/* Reads up to `max` messages; 0 = none waits (or the client has not yet made progress). */
ssize_t uffd_read(int uffd, struct uffd_msg *messages, size_t max);
