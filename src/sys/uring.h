/*
 * io_uring as the worker's one wait: everything it sleeps for comes back as a completion.
 *
 * A completion is embedded in what is waited for; `done` runs on the worker's thread. One thread.
 */
#pragma once

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

/* So much is done at a time before what it has led to is submitted: a device that is kept busy answers
 * sooner than one that is given much at once, and then nothing. */
#define URING_BATCH 4u

struct completion {
	/* result: as the operation's system call would return, errors as -errno. */
	void (*done)(struct completion *completion, int result);
	STAILQ_ENTRY(completion) link; /* of what was posted */
};

struct uring {
	struct io_uring ring;
	bool fixed_buffers; /* a table for registered buffers exists */
	unsigned owner;     /* number of the thread that has it; its own to set */
	STAILQ_HEAD(posted, completion) posted;
};

/* entries: size of the submission queue. buffers: how many buffers may be registered. */
int uring_init(struct uring *uring, unsigned entries, unsigned buffers);
void uring_done(struct uring *uring);

/* Registers memory as buffer `index`; base NULL takes it away. */
int uring_set_buffer(struct uring *uring, unsigned index, void *base, size_t length);

/* One-shot readiness of a descriptor; result = poll events. */
int uring_poll(struct uring *uring, int fd, unsigned events, struct completion *completion);
/* Ends a poll: it completes with -ECANCELED (or had completed already). */
int uring_poll_cancel(struct uring *uring, struct completion *completion);

/* Reads or writes `length` bytes at `offset`. buffer_index < 0: not registered. */
int uring_read(struct uring *uring, int fd, void *to, unsigned length, uint64_t offset,
	       int buffer_index, struct completion *completion);
int uring_write(struct uring *uring, int fd, const void *from, unsigned length, uint64_t offset,
		int buffer_index, struct completion *completion);
/* fdatasync(2). */
int uring_sync(struct uring *uring, int fd, struct completion *completion);
/* Completes with -ETIME after so many nanoseconds. */
int uring_timeout(struct uring *uring, struct __kernel_timespec *after, struct completion *c);

/* Completes with 0 without the kernel: `done` runs later, in uring_run() or uring_run_posted(). Until it
 * has, the completion must not be posted again. */
void uring_post(struct uring *uring, struct completion *completion);
/* Runs what has been posted so far, not what that posts. Returns how many ran. */
int uring_run_posted(struct uring *uring);

/* Hands over what has been prepared, without looking for completions. */
void uring_flush(struct uring *uring);
/* Submits what is queued; waits up to timeout_ns for a completion (0: only looks), runs those that were
 * posted, and up to URING_BATCH of those that have come. Returns how many ran, or -errno. */
int uring_run(struct uring *uring, uint64_t timeout_ns);
