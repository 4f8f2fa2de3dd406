/* A descriptor or a moment that the main loop waits for, as an object that can be freed at once. */
#pragma once

#include <stdint.h>
#include <uv.h>

struct watch;
typedef void (*watch_function)(void *context);

/* Calls when fd is readable or hung up. The fd is the watch's from now on, also on failure: NULL.
 */
struct watch *watch_fd(uv_loop_t *loop, int fd, watch_function call, void *context);
/* Calls once. */
struct watch *watch_timer(uv_loop_t *loop, uint64_t ms, watch_function call, void *context);
/* -1 for a timer. */
int watch_get_fd(const struct watch *watch);
/* Closes the descriptor; nothing is called any more. NULL is fine; returns NULL. */
struct watch *watch_free(struct watch *watch);
