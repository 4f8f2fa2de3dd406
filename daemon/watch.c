#include "watch.h"

#include <stdlib.h>
#include <unistd.h>

struct watch {
	union {
		uv_handle_t handle;
		uv_poll_t poll;
		uv_timer_t timer;
	};
	int fd;
	watch_function call;
	void *context;
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;

	(void)status;
	(void)events;
	watch->call(watch->context);
}

static void on_timer(uv_timer_t *timer)
{
	struct watch *watch = timer->data;

	watch->call(watch->context);
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct watch *watch_new(int fd, watch_function call, void *context)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	watch->fd = fd;
	watch->call = call;
	watch->context = context;
	return watch;
}

struct watch *watch_fd(uv_loop_t *loop, int fd, watch_function call, void *context)
{
	struct watch *watch = watch_new(fd, call, context);

	if (!watch || uv_poll_init(loop, &watch->poll, fd) < 0) {
		free(watch);
		close(fd);
		return NULL;
	}
	watch->handle.data = watch;
	if (uv_poll_start(&watch->poll, UV_READABLE, on_poll) < 0)
		return watch_free(watch);
	return watch;
}

struct watch *watch_timer(uv_loop_t *loop, uint64_t ms, watch_function call, void *context)
{
	struct watch *watch = watch_new(-1, call, context);

	if (!watch)
		return NULL;
	uv_timer_init(loop, &watch->timer);
	watch->handle.data = watch;
	uv_timer_start(&watch->timer, on_timer, ms, 0);
	return watch;
}

int watch_get_fd(const struct watch *watch)
{
	return watch->fd;
}

struct watch *watch_free(struct watch *watch)
{
	if (!watch)
		return NULL;
	uv_close(&watch->handle, on_closed);
	if (watch->fd >= 0)
		close(watch->fd);
	return NULL;
}
