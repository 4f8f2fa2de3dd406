#include "bare.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "now.h"
#include "sys/uffd.h"

#define PAGE_BYTES   4096u
#define BUSY_POLL_NS 60000u /* as busy_poll_us of upagerd.json */

struct bare {
	int uffd;
	char *memory;
	const char *contents;
	pthread_t thread;
};

static void answer(const struct bare *bare, const struct uffd_msg *message)
{
	uint64_t at = message->arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1);

	if (message->event != UFFD_EVENT_PAGEFAULT)
		return;
	if (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
		uffd_protect(bare->uffd, at, PAGE_BYTES, false);
	else if (bare->contents)
		uffd_copy(bare->uffd, at, bare->contents + (at - (uint64_t)(uintptr_t)bare->memory),
			  PAGE_BYTES, false);
	else
		uffd_zeropage(bare->uffd, at, PAGE_BYTES);
}

static void *loop(void *arg)
{
	const struct bare *bare = arg;
	struct pollfd wait = {.fd = bare->uffd, .events = POLLIN};
	uint64_t active = now_ns();

	for (;;) {
		struct uffd_msg message;

		if (read(bare->uffd, &message, sizeof(message)) == sizeof(message)) {
			answer(bare, &message);
			active = now_ns();
		} else if (now_ns() - active > BUSY_POLL_NS) {
			poll(&wait, 1, -1);
		}
	}
	return NULL;
}

int bare_new(char *memory, size_t length, const char *contents, struct bare **ret)
{
	struct uffd_features features = {};
	struct bare *bare = malloc(sizeof(*bare));
	int r;

	if (!bare)
		return -ENOMEM;
	*bare = (struct bare){.uffd = uffd_open(-1), .memory = memory, .contents = contents};
	r = bare->uffd < 0 ? bare->uffd : uffd_handshake(bare->uffd, &features);
	if (r >= 0)
		r = uffd_register(bare->uffd, (uint64_t)(uintptr_t)memory, length);
	if (r >= 0)
		r = -pthread_create(&bare->thread, NULL, loop, bare);
	if (r < 0)
		free(bare);
	else
		*ret = bare;
	return r;
}

int bare_protect(struct bare *bare, char *start, size_t length)
{
	return uffd_protect(bare->uffd, (uint64_t)(uintptr_t)start, length, true);
}
