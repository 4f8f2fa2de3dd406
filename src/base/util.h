/* Small things that every floor needs: pages, arithmetic, scope cleanup, time. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096u
#define PAGE_MASK  (~(uint64_t)(PAGE_SIZE - 1))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define MIN(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) min_a_ = (a);                                                        \
		__typeof__(b) min_b_ = (b);                                                        \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define MAX(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) max_a_ = (a);                                                        \
		__typeof__(b) max_b_ = (b);                                                        \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})

static inline uint64_t page_down(uint64_t address)
{
	return address & PAGE_MASK;
}

static inline uint64_t page_up(uint64_t address)
{
	return (address + PAGE_SIZE - 1) & PAGE_MASK;
}

static inline uint64_t bytes_to_pages(uint64_t bytes)
{
	return bytes >> PAGE_SHIFT;
}

static inline uint64_t pages_to_bytes(uint64_t pages)
{
	return pages << PAGE_SHIFT;
}

/* CLOCK_MONOTONIC, nanoseconds. */
static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

#define MS 1000000ull /* nanoseconds */

/* Closes *fd if it is open and forgets it. */
static inline void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
