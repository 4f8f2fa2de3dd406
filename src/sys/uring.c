#include "sys/uring.h"

#include <errno.h>

int uring_init(struct uring *uring, unsigned entries, unsigned buffers)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN |
			 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER,
		.cq_entries = entries * 8,
	};
	int r = io_uring_queue_init_params(entries, &uring->ring, &params);

	if (r == -EINVAL) {
		params = (struct io_uring_params){.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
						  .cq_entries = entries * 8};
		r = io_uring_queue_init_params(entries, &uring->ring, &params);
	}
	if (r < 0)
		return r;
	STAILQ_INIT(&uring->posted);
	uring->fixed_buffers = io_uring_register_buffers_sparse(&uring->ring, buffers) == 0;
	return 0;
}

void uring_done(struct uring *uring)
{
	io_uring_queue_exit(&uring->ring);
}

int uring_set_buffer(struct uring *uring, unsigned index, void *base, size_t length)
{
	struct iovec iov = {.iov_base = base, .iov_len = length};
	__u64 tag = 0;
	int r;

	if (!uring->fixed_buffers)
		return -EOPNOTSUPP;
	r = io_uring_register_buffers_update_tag(&uring->ring, index, &iov, &tag, 1);
	return r < 0 ? r : 0;
}

static struct io_uring_sqe *get_sqe(struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe) {
		io_uring_submit(&uring->ring);
		sqe = io_uring_get_sqe(&uring->ring);
	}
	return sqe;
}

int uring_poll(struct uring *uring, int fd, unsigned events, struct completion *completion)
{
	struct io_uring_sqe *sqe = get_sqe(uring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_poll_add(sqe, fd, events);
	io_uring_sqe_set_data(sqe, completion);
	return 0;
}

int uring_poll_cancel(struct uring *uring, struct completion *completion)
{
	struct io_uring_sqe *sqe = get_sqe(uring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_poll_remove(sqe, (uintptr_t)completion);
	io_uring_sqe_set_data(sqe, NULL);
	return 0;
}

int uring_read(struct uring *uring, int fd, void *to, unsigned length, uint64_t offset,
	       int buffer_index, struct completion *completion)
{
	struct io_uring_sqe *sqe = get_sqe(uring);

	if (!sqe)
		return -EBUSY;
	if (buffer_index >= 0)
		io_uring_prep_read_fixed(sqe, fd, to, length, offset, buffer_index);
	else
		io_uring_prep_read(sqe, fd, to, length, offset);
	io_uring_sqe_set_data(sqe, completion);
	return 0;
}

int uring_write(struct uring *uring, int fd, const void *from, unsigned length, uint64_t offset,
		int buffer_index, struct completion *completion)
{
	struct io_uring_sqe *sqe = get_sqe(uring);

	if (!sqe)
		return -EBUSY;
	if (buffer_index >= 0)
		io_uring_prep_write_fixed(sqe, fd, from, length, offset, buffer_index);
	else
		io_uring_prep_write(sqe, fd, from, length, offset);
	io_uring_sqe_set_data(sqe, completion);
	return 0;
}

int uring_sync(struct uring *uring, int fd, struct completion *completion)
{
	struct io_uring_sqe *sqe = get_sqe(uring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, completion);
	return 0;
}

int uring_timeout(struct uring *uring, struct __kernel_timespec *after, struct completion *c)
{
	struct io_uring_sqe *sqe = get_sqe(uring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_timeout(sqe, after, 0, 0);
	io_uring_sqe_set_data(sqe, c);
	return 0;
}

void uring_flush(struct uring *uring)
{
	if (io_uring_sq_ready(&uring->ring))
		io_uring_submit(&uring->ring);
}

void uring_post(struct uring *uring, struct completion *completion)
{
	STAILQ_INSERT_TAIL(&uring->posted, completion, link);
}

int uring_run_posted(struct uring *uring)
{
	struct posted posted = STAILQ_HEAD_INITIALIZER(posted);
	struct completion *completion;
	int n = 0;

	STAILQ_CONCAT(&posted, &uring->posted);
	while ((completion = STAILQ_FIRST(&posted))) {
		STAILQ_REMOVE_HEAD(&posted, link);
		completion->done(completion, 0);
		n++;
	}
	return n;
}

int uring_run(struct uring *uring, uint64_t timeout_ns)
{
	int n = uring_run_posted(uring), r;
	struct __kernel_timespec ts = {.tv_sec = (long long)(timeout_ns / 1000000000ull),
				       .tv_nsec = (long long)(timeout_ns % 1000000000ull)};
	struct io_uring_cqe *cqe;

	if (timeout_ns && !n && STAILQ_EMPTY(&uring->posted))
		r = io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &ts, NULL);
	else
		r = io_uring_sq_ready(&uring->ring) ? io_uring_submit(&uring->ring) : 0;
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EBUSY && r != -EAGAIN)
		return r;
	for (unsigned i = 0; i < URING_BATCH && io_uring_peek_cqe(&uring->ring, &cqe) == 0; i++) {
		struct completion *completion = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&uring->ring, cqe);
		if (completion)
			completion->done(completion, result);
		n++;
	}
	return n;
}
