#include "proto/session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int) * SESSION_FDS) + CMSG_SPACE(sizeof(struct ucred))];
};

void session_header_init(struct session_header *header, unsigned type)
{
	*header = (struct session_header){
		.magic = SESSION_MAGIC, .version = SESSION_VERSION, .type = (uint16_t)type};
}

int session_send(int socket, const void *message, unsigned size, const int *fds, unsigned n_fds)
{
	struct iovec iov = {.iov_base = (void *)message, .iov_len = size};
	union control control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (n_fds) {
		struct cmsghdr *cmsg;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(socket, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Takes descriptors and credentials out of a received message; returns how many descriptors. */
static unsigned take_control(struct msghdr *msg, int *fds, int *ret_pid)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS) {
			n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(c), sizeof(int) * n);
		} else if (c->cmsg_type == SCM_CREDENTIALS && ret_pid) {
			struct ucred cred;

			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
			*ret_pid = cred.pid;
		}
	}
	return n;
}

int session_peek(int socket)
{
	struct session_header header;
	ssize_t n;

	do
		n = recv(socket, &header, sizeof(header), MSG_PEEK);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	if (n != sizeof(header) || header.magic != SESSION_MAGIC ||
	    header.version != SESSION_VERSION)
		return -EPROTO;
	return header.type;
}

int session_receive(int socket, unsigned type, void *message, unsigned size, int *fds,
		    unsigned max_fds, unsigned *ret_n_fds, int *ret_pid)
{
	struct iovec iov = {.iov_base = message, .iov_len = size};
	union control control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	const struct session_header *header = message;
	int got[sizeof(control) / sizeof(int)];
	unsigned n_fds;
	ssize_t n;

	do
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	n_fds = take_control(&msg, got, ret_pid);
	if (n == 0 && !n_fds)
		return -ECONNRESET;
	if ((unsigned)n != size || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || n_fds > max_fds ||
	    header->magic != SESSION_MAGIC || header->version != SESSION_VERSION ||
	    header->type != type) {
		for (unsigned i = 0; i < n_fds; i++)
			close(got[i]);
		return -EPROTO;
	}
	for (unsigned i = 0; i < n_fds; i++)
		fds[i] = got[i];
	if (ret_n_fds)
		*ret_n_fds = n_fds;
	return 0;
}
