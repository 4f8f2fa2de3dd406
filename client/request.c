#include "request.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>

int request_explain(int r)
{
	return r == -EAGAIN ? -ETIMEDOUT : r == -ECONNRESET ? -ECONNREFUSED : r;
}

/* What is asked for may take its time; the daemon's end would end the wait. */
static void wait_for_ever(int socket)
{
	const struct timeval never = {0};

	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never));
}

int request_reply(int socket, struct session_reply *ret, int *memory)
{
	unsigned n = 0;
	int r = session_receive(socket, SESSION_REPLY, ret, sizeof(*ret), memory, memory ? 1 : 0,
				&n, NULL);

	if (r == 0 && ret->status < 0)
		r = ret->status;
	return r < 0 ? r : memory && !n ? -EPROTO : 0;
}

int request_range(int socket, enum session_type type, const void *address, size_t length,
		  enum session_advice advice, int file)
{
	struct session_range range = {
		.advice = advice, .address = (uintptr_t)address, .length = page_up(length)};
	struct session_reply reply;
	int r;

	session_header_init(&range.header, type);
	r = session_send(socket, &range, sizeof(range), &file, file >= 0 ? 1 : 0);
	wait_for_ever(socket);
	return r < 0 ? r : request_reply(socket, &reply, NULL);
}
