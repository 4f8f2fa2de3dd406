/* Filters for tests: a device that fails, a device that is slow. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tier/tier.h"

struct tier_filter {
	struct tier tier;
	unsigned every;    /* error: fail the n-th transfer */
	unsigned delay_us; /* delay */
	_Atomic unsigned count;
};

static struct tier_filter *filter_of(const struct tier *tier)
{
	return container_of(tier, struct tier_filter, tier);
}

static void filter_close(struct tier *tier)
{
	free(filter_of(tier));
}

static int filter_flush(struct tier *tier)
{
	return tier->next->ops->flush ? tier->next->ops->flush(tier->next) : 0;
}

static int wait_for(struct tier_io *io, unsigned us, void (*done)(struct completion *, int))
{
	io->after = (struct __kernel_timespec){.tv_sec = us / 1000000,
					       .tv_nsec = (us % 1000000) * 1000ll};
	io->completion.done = done;
	return uring_timeout(io->uring, &io->after, &io->completion);
}

static void error_done(struct completion *completion, int result)
{
	struct tier_io *io = container_of(completion, struct tier_io, completion);

	(void)result;
	atomic_fetch_add(&io->tier->errors, 1);
	io->finished(io, -EIO);
}

static int error_submit(struct tier *tier, struct tier_io *io)
{
	struct tier_filter *filter = filter_of(tier);

	if (atomic_fetch_add(&filter->count, 1) % filter->every == filter->every - 1) {
		io->tier = tier;
		return wait_for(io, 1, error_done);
	}
	return tier->next->ops->submit(tier->next, io);
}

static void delay_done(struct completion *completion, int result)
{
	struct tier_io *io = container_of(completion, struct tier_io, completion);
	struct tier *next = io->tier->next;
	int r = next->ops->submit(next, io);

	(void)result;
	if (r < 0)
		io->finished(io, r);
}

static int delay_submit(struct tier *tier, struct tier_io *io)
{
	io->tier = tier;
	return wait_for(io, filter_of(tier)->delay_us, delay_done);
}

static const struct tier_ops error_ops = {
	.name = "error",
	.submit = error_submit,
	.flush = filter_flush,
	.close = filter_close,
};

static const struct tier_ops delay_ops = {
	.name = "delay",
	.submit = delay_submit,
	.flush = filter_flush,
	.close = filter_close,
};

static int filter_open(const struct tier_ops *ops, unsigned every, unsigned delay_us,
		       struct tier *next, struct tier **ret)
{
	struct tier_filter *filter = calloc(1, sizeof(*filter));

	if (!filter)
		return -ENOMEM;
	filter->tier.ops = ops;
	filter->tier.next = next;
	filter->tier.priority = next->priority;
	memcpy(filter->tier.path, next->path, sizeof(next->path));
	filter->every = every;
	filter->delay_us = delay_us;
	*ret = &filter->tier;
	return 0;
}

int tier_error_open(unsigned every, struct tier *next, struct tier **ret)
{
	return filter_open(&error_ops, every, 0, next, ret);
}

int tier_delay_open(unsigned delay_us, struct tier *next, struct tier **ret)
{
	return filter_open(&delay_ops, 0, delay_us, next, ret);
}
